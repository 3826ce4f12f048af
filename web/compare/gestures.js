// What the user does on a view: mouse, pen, finger, wheel and keys.

import { isNodes2, passToCanvas } from './host.js'

const WHEEL_STEP = 0.0015 // of the zoom's logarithm a px of the wheel: a notch of 100 px is 16 %
const LINE_PX = 33 // where a wheel counts lines
const KEY_ZOOM = 1.25
const [KEY_STEP, KEY_LEAP] = [0.01, 0.1] // of the width
const DRAG_PX = 3 // less is a click
const RIGHT_OR_MIDDLE = 2 | 4 // of event.buttons

/** Makes a view do what its user wants. */
export function listen(view) {
  const { root, previous, next, zoom } = view.parts
  root.addEventListener('pointerdown', (event) => press(view, event))
  for (const type of ['pointermove', 'pointerup']) root.addEventListener(type, pass)
  root.addEventListener('contextmenu', (event) => !isNodes2() && event.preventDefault()) // passToCanvas opens the node's own
  root.addEventListener('dblclick', (event) => {
    event.stopPropagation()
    if (!event.target.closest('button')) toggleZoom(view, event)
  })
  root.addEventListener('pointerenter', () => view.draw()) // the canvas may have been zoomed
  root.addEventListener('keydown', (event) => {
    if (!pressKey(view, event)) return
    event.preventDefault()
    event.stopPropagation() // these keys mean something to the canvas, too
  })
  // The front end listens above us, and takes wheels before they come down here: so we listen above it, while the pointer is here.
  const onWheel = (event) => {
    if (root.contains(event.target)) wheel(view, event)
    else stop()
  }
  const stop = () => window.removeEventListener('wheel', onWheel, { capture: true })
  root.addEventListener('pointerenter', () => window.addEventListener('wheel', onWheel, { capture: true, passive: false }))
  root.addEventListener('pointerleave', stop)
  previous.addEventListener('click', () => view.turn(-1))
  next.addEventListener('click', () => view.turn(1))
  zoom.addEventListener('click', () => toggleZoom(view, null))
}

/** Where an event is in the view's own px. */
function place(view, event) {
  const box = view.element.getBoundingClientRect()
  const ratio = view.element.offsetWidth / box.width
  return { x: (event.clientX - box.left) * ratio, y: (event.clientY - box.top) * ratio }
}

/** In the older way of drawing nodes: right and middle button belong to the canvas under us. */
function pass(event) {
  const isOurs = event.type === 'pointermove' ? !(event.buttons & RIGHT_OR_MIDDLE) : event.button === 0
  if (!isOurs && !isNodes2()) passToCanvas(event)
}

/** The slider follows the pointer from its line on; elsewhere too, as long as the picture is whole. Else the picture follows. */
function press(view, event) {
  pass(event)
  if (event.button !== 0 || event.target.closest('button')) return
  const { root, handle } = view.parts
  const onHandle = handle.contains(event.target)
  const slides = onHandle || view.placement.isFitted
  const start = place(view, event)
  const offset = onHandle ? view.slider * root.clientWidth - start.x : 0
  let [last, isDrag] = [start, onHandle]
  const move = (moved) => {
    const now = place(view, moved)
    isDrag ||= Math.hypot(now.x - start.x, now.y - start.y) >= DRAG_PX
    if (!isDrag) return
    if (slides) view.slideTo((now.x + offset) / root.clientWidth)
    else {
      view.placement.move(now.x - last.x, now.y - last.y)
      view.draw()
    }
    last = now
  }
  const end = () => {
    root.removeEventListener('pointermove', move)
    for (const type of ['pointerup', 'pointercancel', 'lostpointercapture']) root.removeEventListener(type, end)
  }
  root.setPointerCapture(event.pointerId)
  root.addEventListener('pointermove', move)
  for (const type of ['pointerup', 'pointercancel', 'lostpointercapture']) root.addEventListener(type, end)
}

/** Between the whole picture and 100 % at the place of an event, or in the middle. */
function toggleZoom(view, event) {
  const { root } = view.parts
  view.draw() // the graph may have been zoomed since
  if (!view.placement.isReady) return
  const at = event ? place(view, event) : { x: root.clientWidth / 2, y: root.clientHeight / 2 }
  if (view.placement.isFitted) view.placement.zoomTo(1, at.x, at.y)
  else view.placement.fit()
  view.draw()
}

/** Zoom at the pointer. The page then neither scrolls nor zooms, nor does the canvas. */
function wheel(view, event) {
  event.preventDefault()
  event.stopPropagation()
  view.draw() // the graph may have been zoomed since
  if (!view.placement.isReady) return
  const { x, y } = place(view, event)
  const px = event.deltaY * (event.deltaMode === WheelEvent.DOM_DELTA_LINE ? LINE_PX : 1)
  view.placement.zoomBy(Math.exp(-px * WHEEL_STEP), x, y)
  view.draw()
}

/** Whether the key means something here; it is done then. */
function pressKey(view, event) {
  if (event.ctrlKey || event.altKey || event.metaKey) return false
  const { root } = view.parts
  const step = event.shiftKey ? KEY_LEAP : KEY_STEP
  const zoomBy = (factor) => {
    view.draw() // the graph may have been zoomed since
    if (view.placement.isReady) view.placement.zoomBy(factor, root.clientWidth / 2, root.clientHeight / 2)
  }
  const actions = {
    ArrowLeft: () => view.slideTo(view.slider - step),
    ArrowRight: () => view.slideTo(view.slider + step),
    Home: () => view.slideTo(0),
    End: () => view.slideTo(1),
    PageUp: () => view.turn(-1),
    PageDown: () => view.turn(1),
    '+': () => zoomBy(KEY_ZOOM),
    '-': () => zoomBy(1 / KEY_ZOOM),
    0: () => toggleZoom(view, null),
  }
  const act = Object.hasOwn(actions, event.key) ? actions[event.key] : null
  act?.()
  if (act) view.draw()
  return act !== null
}
