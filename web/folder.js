// FaithDiff Load Folder: a button that queues a run for each picture that is left, and a bar over pictures.
//
// Each run takes the next picture by itself, so the host's own queue is the loop: Cancel, previews and errors are as ever.
// Button and bar are widgets, which both ways of drawing nodes have.

import { api } from '../../scripts/api.js'
import { app } from '../../scripts/app.js'

const LOADER = 'FaithDiffLoadFolder'
const SAVER = 'FaithDiffSaveFolder'
const BUTTON = 'Restore the whole folder'
const ADDRESS = '/faithdiff/folder' // nodes/folder/served.py
const INPUTS = ['folder', 'pattern', 'sub_folders', 'save_to', 'retry_failed', 'again']
const MAX_QUEUED = 200 // each run holds a copy of the workflow, and the page fetches them all whenever one ends
const ASKED_ABOVE = 20 // "." is the whole input folder, and the first choice: nobody should restore all of that by one click
const MIN_HEIGHT_PX = 48

/** The bar and the line below it, on one node. */
class FolderBar {
  constructor() {
    this.element = document.createElement('div')
    Object.assign(this.element.style, { display: 'flex', flexDirection: 'column', gap: '4px', font: '12px sans-serif', overflow: 'auto' })
    this.bar = document.createElement('progress')
    Object.assign(this.bar, { max: 1, value: 0 })
    this.bar.style.width = '100%'
    this.text = document.createElement('div')
    Object.assign(this.text.style, { color: 'var(--input-text, #ddd)', overflowWrap: 'anywhere' })
    this.text.setAttribute('role', 'status') // a screen reader says what changes
    this.element.append(this.bar, this.text)
  }

  /** @param {{count: number, done: number, failed: number, left: number}} numbers */
  show({ count, done, failed, left }) {
    Object.assign(this.bar, { max: count, value: done })
    this.say(`${done} of ${count}${failed > 0 ? `, ${failed} failed` : ''}, ${left} left`)
  }

  say(text) {
    this.text.textContent = text
    this.bar.setAttribute('aria-label', text)
  }
}

/** @type {WeakMap<object, FolderBar>} the bar of each node; goes when the node goes */
const bars = new WeakMap()
/** @type {WeakSet<object>} nodes whose runs are being queued */
const busy = new WeakSet()

/** What the server says of the node's folder: {count, done, failed, left, text} or {error}. */
async function ask(node) {
  const values = INPUTS.map((name) => [name, String(node.widgets.find((widget) => widget.name === name)?.value ?? '')])
  const response = await api.fetchApi(`${ADDRESS}?${new URLSearchParams(values)}`)
  return await response.json()
}

/** Queues as many runs as pictures are left, by ComfyUI's own Run. */
async function restoreAll(node) {
  if (busy.has(node)) return // a second click while the first is at work
  busy.add(node)
  const bar = bars.get(node)
  try {
    const answer = await ask(node)
    if (answer.error) return bar.say(answer.error)
    bar.show(answer)
    if (answer.left === 0) return bar.say(answer.text)
    const runs = Math.min(answer.left, MAX_QUEUED)
    if (runs > ASKED_ABOVE && !window.confirm(`Restore ${runs} pictures?`)) return
    if (runs < answer.left) bar.say(`${runs} of ${answer.left} queued; click once more when they are done`)
    await app.queuePrompt(0, runs)
  } catch (error) {
    bar.say(`ComfyUI does not answer (${error.message}); is it still running?`)
  } finally {
    busy.delete(node)
  }
}

/** The node of an id as runs have it: `5`, or `12:5` for node 5 in the subgraph of node 12. */
function nodeOf(id) {
  let graph = app.graph?.rootGraph ?? app.graph
  const path = String(id).split(':')
  for (const outer of path.slice(0, -1)) graph = graph?.getNodeById(outer)?.subgraph
  return graph?.getNodeById(path.at(-1))
}

function addBar(node) {
  const bar = new FolderBar()
  bars.set(node, bar)
  const button = node.addWidget('button', BUTTON, null, () => restoreAll(node), { serialize: false })
  const options = { serialize: false, hideOnZoom: false, getMinHeight: () => MIN_HEIGHT_PX, getMaxHeight: () => 2 * MIN_HEIGHT_PX }
  const widget = node.addDOMWidget('progress', 'faithdiff_folder', bar.element, options)
  button.serialize = widget.serialize = false // of the saved workflow; the one in `options` is of the prompt
  node.setSize([node.size[0], Math.max(node.size[1], node.computeSize()[1])])
}

app.registerExtension({
  name: 'FaithDiff.Folder',

  nodeCreated(node) {
    if (![LOADER, SAVER].includes(node.comfyClass)) return
    if (node.comfyClass === LOADER) addBar(node)
    const { onExecuted } = node
    node.onExecuted = function (output) {
      onExecuted?.call(this, output)
      const numbers = output?.faithdiff_folder?.[0]
      if (numbers) bars.get(node.comfyClass === LOADER ? node : nodeOf(numbers.loader))?.show(numbers)
    }
  },
})
