// The button "Get weights" on Load FaithDiff Model (where there are none), on FaithDiff Get Weights and over the canvas of a workflow that
// lacks them. After it the lists are read anew, and the front end's complaints are taken back.

import { app } from '../../scripts/app.js'
import { api } from '../../scripts/api.js'
import { openDialog } from './weights_dialog.js'
import { hideOffer, showOffer } from './weights_offer.js'

const ADDRESS = '/faithdiff/weights'
const LABEL = 'Get weights...'
const LOADER = 'FaithDiffLoadModel'
const GETTER = 'FaithDiffGetWeights'
const buttons = new WeakMap() // node -> its button; goes when the node goes

let latest = null // what the server said last: { files, job }

async function ask(path = '', body) {
  const options = body === undefined ? {} : { method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify(body) }
  const answer = await api.fetchApi(ADDRESS + path, options)
  const value = await answer.json().catch(() => ({}))
  if (!answer.ok) throw new Error(value.error ?? `ComfyUI answered ${answer.status}`)
  latest = value
  return value
}

// Every node of a graph and of the subgraphs in it.
function* nodesOf(graph) {
  for (const node of graph?._nodes ?? graph?.nodes ?? []) {
    yield node
    if (node.subgraph) yield* nodesOf(node.subgraph)
  }
}

// The names that widgets of the open workflow have as their values.
function namesInUse() {
  const values = [...nodesOf(app.rootGraph ?? app.graph)].flatMap((node) => (node.widgets ?? []).map((widget) => widget.value))
  return new Set(values.filter((value) => typeof value === 'string'))
}

function addButton(node) {
  if (buttons.has(node)) return
  const button = node.addWidget('button', LABEL, null, open, { serialize: false })
  button.serialize = false // neither the workflow nor the prompt knows of it
  buttons.set(node, button)
  node.setSize?.([node.size[0], Math.max(node.size[1], node.computeSize()[1])])
}

function removeButton(node) {
  const button = buttons.get(node)
  buttons.delete(node)
  if (!button || !node.widgets?.includes(button)) return
  if (node.removeWidget) node.removeWidget(button)
  else node.widgets.splice(node.widgets.indexOf(button), 1)
  node.setSize?.([node.size[0], node.computeSize()[1]])
}

const isAbsent = () => !latest?.files.find((file) => file.id === 'faithdiff')?.found

function choicesOf(widget, node) {
  const values = widget.options?.values
  return typeof values === 'function' ? values(widget, node) : values
}

// A loader whose file is the one that can be had, and is not there.
function lacksIt(node) {
  const file = latest.files.find((each) => each.id === 'faithdiff')
  return node.comfyClass === LOADER && node.widgets?.some((widget) => {
    const choices = choicesOf(widget, node)
    return Array.isArray(choices) && !choices.includes(widget.value) && [file.name, file.loaded].includes(widget.value)
  })
}

const wantsButton = (node) => node.comfyClass === GETTER || (node.comfyClass === LOADER && latest && isAbsent())

// The buttons, and an offer over the canvas where a loader lacks its file: in a subgraph nobody sees the loader's button, and the front end lets
// no widget of ours stand on the subgraph itself.
function updateAll() {
  const nodes = [...nodesOf(app.rootGraph ?? app.graph)]
  for (const node of nodes) {
    if (wantsButton(node)) addButton(node)
    else removeButton(node)
  }
  const lacking = latest && isAbsent() && nodes.some(lacksIt)
  if (lacking) showOffer({ label: LABEL, open })
  else hideOffer()
}

function open() {
  openDialog({ ask, inUse: namesInUse(), done: finish })
}

// As if a user had chosen it anew, so that the front end takes its complaint about the node back: it looks where a value changes.
function choose(node, widget, wanted) {
  for (const value of ['', wanted]) {
    if (widget.setValue) {
      widget.setValue(value, { node, canvas: app.canvas })
    } else { // one that a subgraph shows
      const before = widget.value
      widget.value = value
      widget.callback?.(value, app.canvas, node)
      node.onWidgetChanged?.(widget.name, value, before, widget)
    }
  }
}

// The lists anew. Workflows keep the name FaithDiff.bin: the loader takes the fp16 file in its place.
async function finish(state) {
  await app.refreshComboInNodes()
  const names = state.files.flatMap((file) => (file.found ? [file.name, file.loaded] : []))
  for (const node of nodesOf(app.rootGraph ?? app.graph)) {
    for (const widget of node.widgets ?? []) {
      if (names.includes(widget.value) && choicesOf(widget, node)?.includes(widget.value)) choose(node, widget, widget.value)
    }
  }
  app.graph.setDirtyCanvas(true, true)
  app.extensionManager?.toast?.add({ severity: 'success', summary: 'FaithDiff', detail: `${state.job.names.join(', ')}: ready. Press Run.`, life: 8000 })
}

// What the server has now, and what follows from it.
async function lookAgain() {
  await ask().catch(() => {}) // a server without the addresses: no button, and the node still works
  updateAll()
}

app.registerExtension({
  name: 'FaithDiff.weights',
  commands: [{ id: 'FaithDiff.GetWeights', label: 'FaithDiff: get weights', icon: 'pi pi-download', function: open }],
  menuCommands: [{ path: ['Extensions', 'FaithDiff'], commands: ['FaithDiff.GetWeights'] }],
  setup: lookAgain,
  refreshComboInNodes: lookAgain, // by the key R, too
  nodeCreated(node) {
    if (wantsButton(node)) addButton(node)
  },
  afterConfigureGraph: updateAll,
})
