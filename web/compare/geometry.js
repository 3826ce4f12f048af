// Where the pictures lie in the view. Lengths are in the view's own px, which the canvas of the graph scales on the way to the screen.

const MAX_ZOOM = 16 // screen px a picture px

export class Placement {
  constructor() {
    this.view = { width: 0, height: 0 }
    this.picture = { width: 0, height: 0 }
    this.screen = 1 // screen px a px of the view
    this.isFitted = true // the whole picture, also when the view changes its size
    this.scale = 1 // px of the view a px of the picture
    this.x = 0 // of the picture's left upper corner
    this.y = 0
  }

  get isReady() {
    return this.view.width > 0 && this.view.height > 0 && this.picture.width > 0
  }

  get fitScale() {
    return Math.min(this.view.width / this.picture.width, this.view.height / this.picture.height)
  }

  /** Screen px a picture px: 1 is "100 %". */
  get zoom() {
    return this.scale * this.screen
  }

  /** After a change of the view's or the picture's size: the whole picture stays whole; else the place in the middle stays. */
  resize(view, picture, screen) {
    const isOther = picture.width !== this.picture.width || picture.height !== this.picture.height
    const middle = { x: (this.view.width / 2 - this.x) / this.scale, y: (this.view.height / 2 - this.y) / this.scale }
    Object.assign(this, { view, picture, screen })
    if (isOther) this.isFitted = true
    if (!this.isReady) return
    if (this.isFitted) this.fit()
    else {
      this.x = view.width / 2 - middle.x * this.scale
      this.y = view.height / 2 - middle.y * this.scale
      this.#keepInside()
    }
  }

  fit() {
    this.isFitted = true
    this.scale = this.fitScale
    this.#keepInside()
  }

  /** The picture at a zoom, the point (x, y) of the view staying where it is. */
  zoomTo(zoom, x, y) {
    const [whole, single] = [this.fitScale, 1 / this.screen]
    const [least, most] = [Math.min(whole, single), Math.max(whole, MAX_ZOOM * single)]
    const scale = Math.min(Math.max(zoom / this.screen, least), most)
    this.isFitted = scale === whole
    this.x = x - ((x - this.x) / this.scale) * scale
    this.y = y - ((y - this.y) / this.scale) * scale
    this.scale = scale
    this.#keepInside()
  }

  /** Zoom by a factor; it halts at 100 % on the way, where every pixel is one of the screen's. */
  zoomBy(factor, x, y) {
    const wanted = this.zoom * factor
    const passesOne = (this.zoom - 1) * (wanted - 1) < 0 && Math.abs(this.zoom - 1) > 1e-6
    this.zoomTo(passesOne ? 1 : wanted, x, y)
  }

  move(dx, dy) {
    this.x += dx
    this.y += dy
    this.#keepInside()
  }

  /** Centred where the picture is smaller than the view, else without a gap at any side. */
  #keepInside() {
    const inside = (at, room, length) => (length <= room ? (room - length) / 2 : Math.min(0, Math.max(room - length, at)))
    this.x = inside(this.x, this.view.width, this.picture.width * this.scale)
    this.y = inside(this.y, this.view.height, this.picture.height * this.scale)
  }
}
