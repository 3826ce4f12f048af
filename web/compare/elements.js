// The elements of a view; style.css has their looks.

const STYLE = new URL('./style.css', import.meta.url).href

/** An element of a class with children. */
function make(kind, name, ...children) {
  const element = document.createElement(kind)
  element.className = `faithdiff-compare-${name}`
  element.append(...children)
  return element
}

/** Brings the style sheet into the page, once. */
function style() {
  if (document.head.querySelector(`link[href="${STYLE}"]`)) return
  const link = document.createElement('link')
  link.rel = 'stylesheet'
  link.href = STYLE
  document.head.append(link)
}

/** One of the two pictures: it is cut off at the slider, and its name with it. */
function layer(name) {
  const slot = make('div', 'picture')
  const text = make('span', 'label')
  const cut = make('div', name, slot, text)
  return { cut, slot, text }
}

/** A button that says what it is for to those who do not see its sign. */
function button(sign, purpose) {
  const element = make('button', 'button', sign)
  element.type = 'button'
  element.ariaLabel = purpose
  return element
}

/** All elements of a view. `root` holds the others, and takes the keyboard's input. */
export function makeElements() {
  style()
  const [before, after] = [layer('before'), layer('after')]
  const handle = make('div', 'handle', make('span', 'grip'))
  handle.setAttribute('role', 'slider')
  handle.setAttribute('aria-label', 'Before / after')
  handle.setAttribute('aria-valuemin', '0')
  handle.setAttribute('aria-valuemax', '100')
  const [previous, next, index] = [button('‹', 'Previous picture'), button('›', 'Next picture'), make('span', 'index')]
  const batch = make('div', 'batch', previous, index, next)
  const zoom = button('', 'Whole picture, or 100 %')
  const root = make('div', 'root', after.cut, before.cut, handle, make('div', 'bar', batch, zoom))
  root.tabIndex = 0
  root.dataset.captureWheel = 'true' // the front end then knows that wheels here are not the canvas's
  return { root, before, after, handle, batch, previous, next, index, zoom }
}
