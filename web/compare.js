// FaithDiff Before / After: puts a view with a slider on each such node, and shows in it what a run gave.
//
// ComfyUI loads every *.js below web/ as an extension. This one alone registers anything; the files in compare/ only
// export, so that it does no harm that they are loaded by themselves, too.

import { app } from '../../scripts/app.js'
import { label, lastOutput, pictureUrl, takePlace } from './compare/host.js'
import { CompareView } from './compare/view.js'

const NODE = 'FaithDiffCompare'
const NAME = 'comparison' // of the widget
const MIN_HEIGHT_PX = 200
const FIRST_SIZE_PX = [420, 460] // room for a picture; a saved workflow brings its own size

/** @type {WeakMap<object, CompareView>} the view of each node; goes when the node goes */
const views = new WeakMap()

/** Shows an output of the node; one without pictures leaves what is there. */
function show(node, output) {
  const view = views.get(node)
  if (!view) return
  takePlace(node, view.element)
  const [before, after] = [output?.before ?? [], output?.after ?? []]
  if (before.length > 0 && after.length > 0) view.show(before.map(pictureUrl), after.map(pictureUrl))
}

/** Shows on every node what the page still knows of its last run: after a change of tabs, an undo, a run from the history. */
function showAll() {
  const root = app.graph?.rootGraph ?? app.graph
  if (!root) return
  for (const graph of [root, ...(root.subgraphs?.values() ?? [])]) {
    for (const node of graph.nodes ?? []) show(node, lastOutput(node, root))
  }
}

app.registerExtension({
  name: 'FaithDiff.Compare',

  nodeCreated(node) {
    if (node.comfyClass !== NODE) return
    const view = new CompareView(() => [label(node, 'before'), label(node, 'after')])
    views.set(node, view)
    const options = { serialize: false, hideOnZoom: false, hideInPanel: true, getMinHeight: () => MIN_HEIGHT_PX }
    const widget = node.addDOMWidget(NAME, NAME, view.element, options)
    widget.serialize = false // of the saved workflow; the one in `options` is of the prompt
    node.setSize([Math.max(node.size[0], FIRST_SIZE_PX[0]), Math.max(node.size[1], FIRST_SIZE_PX[1])])
    const { onExecuted } = node
    node.onExecuted = function (output) {
      onExecuted?.call(this, output)
      show(this, output)
    }
  },

  afterConfigureGraph: showAll,
  onNodeOutputsUpdated: showAll,
})
