// The view of a node: two pictures that lie pixel on pixel, each cut off at the slider.

import { makeElements } from './elements.js'
import { Placement } from './geometry.js'
import { listen } from './gestures.js'

const EXACT_ZOOM = 2 // from here on pixels are drawn as squares; between 1 and 2 some would be wider than others

export class CompareView {
  #elements = makeElements()
  #labels
  #pairs = []
  #index = 0
  #wanted = 0 // counts what was asked for: pictures that come later than newer ones are not shown

  /** @param {() => [string, string]} labels names of both pictures */
  constructor(labels) {
    this.#labels = labels
    this.placement = new Placement()
    this.slider = 0.5 // of the view's width
    listen(this)
    new ResizeObserver(() => this.draw()).observe(this.element)
    this.#elements.batch.hidden = true
    this.draw()
  }

  get element() {
    return this.#elements.root
  }

  get parts() {
    return this.#elements
  }

  /**
   * Shows pictures of a run; the index of a batch stays where there is such a picture.
   * @param {string[]} before addresses; one, or as many as of the other
   * @param {string[]} after
   */
  show(before, after) {
    const of = (list, i) => list[Math.min(i, list.length - 1)]
    const number = Math.max(before.length, after.length)
    const pairs = Array.from({ length: number }, (_, i) => [of(before, i), of(after, i)])
    if (JSON.stringify(pairs) === JSON.stringify(this.#pairs)) return // the same run, told once more
    this.#pairs = pairs
    this.turnTo(Math.min(this.#index, number - 1))
  }

  /** Another picture of the batch, by so many; the ends are ends. */
  turn(by) {
    const index = Math.min(Math.max(this.#index + by, 0), this.#pairs.length - 1)
    if (index >= 0 && index !== this.#index) this.turnTo(index)
  }

  /** A picture of the batch. Where it is gone from the server the view is empty, as before the first run. */
  async turnTo(index) {
    this.#index = index
    const wanted = ++this.#wanted
    let images = []
    try {
      images = await Promise.all(this.#pairs[index].map(load))
    } catch {
      // empty
    }
    if (wanted !== this.#wanted) return
    this.#elements.before.slot.replaceChildren(...images.slice(0, 1))
    this.#elements.after.slot.replaceChildren(...images.slice(1))
    this.draw()
  }

  /** The slider to a place, a fraction of the view's width. */
  slideTo(slider) {
    this.slider = Math.min(Math.max(slider, 0), 1)
    this.draw()
  }

  /** Screen px a px of the view: the graph's zoom times that of the screen. */
  get screen() {
    const { root } = this.#elements
    return root.offsetWidth > 0 ? (root.getBoundingClientRect().width / root.offsetWidth) * devicePixelRatio : 1
  }

  /** Everything to its place. Cheap: elements are moved, nothing is painted here. */
  draw() {
    const { root, before, after, handle, batch, index, previous, next, zoom } = this.#elements
    const images = [before, after].map(({ slot }) => slot.firstElementChild)
    const at = this.placement
    const picture = { width: images[1]?.naturalWidth ?? 0, height: images[1]?.naturalHeight ?? 0 }
    at.resize({ width: root.clientWidth, height: root.clientHeight }, picture, this.screen)
    const percent = this.slider * 100
    before.cut.style.clipPath = `inset(0 ${100 - percent}% 0 0)`
    after.cut.style.clipPath = `inset(0 0 0 ${percent}%)`
    handle.style.left = `${percent}%`
    handle.setAttribute('aria-valuenow', Math.round(percent))
    const labels = this.#labels()
    before.text.textContent = labels[0]
    after.text.textContent = labels[1]
    root.classList.toggle('is-shown', at.isReady)
    if (!at.isReady) return
    for (const image of images) {
      image.style.width = `${picture.width}px`
      image.style.height = `${picture.height}px`
      image.style.transform = `translate(${at.x}px, ${at.y}px) scale(${at.scale})`
    }
    root.classList.toggle('is-large', !at.isFitted)
    root.classList.toggle('is-exact', at.zoom >= EXACT_ZOOM || Math.abs(at.zoom - 1) < 0.01)
    batch.hidden = this.#pairs.length < 2
    index.textContent = `${this.#index + 1} / ${this.#pairs.length}`
    previous.disabled = this.#index === 0
    next.disabled = this.#index === this.#pairs.length - 1
    zoom.textContent = `${Math.round(at.zoom * 100)} %`
  }
}

/** A picture as an element, decoded, so that both change in the same moment. Rejects where there is none. */
async function load(url) {
  const image = new Image()
  image.draggable = false
  image.alt = ''
  image.src = url
  await image.decode()
  return image
}
