// All that the view takes from ComfyUI's front end (tested with 1.39 and 1.47).

import { api } from '../../../scripts/api.js'
import { app } from '../../../scripts/app.js'

/**
 * Address of a picture as a run names it, unchanged: the server makes no smaller copy of it.
 * @param {{filename: string, subfolder: string, type: string}} picture
 */
export function pictureUrl({ filename, subfolder, type }) {
  return api.apiURL(`/view?${new URLSearchParams({ filename, subfolder: subfolder ?? '', type })}`)
}

/** What an input is called in the user's language, or by the user. */
export function label(node, name) {
  const input = node.inputs?.find((slot) => slot.name === name)
  return input?.label ?? input?.localized_name ?? name
}

/** What the page keeps of the node's last run. A node in a subgraph is kept under that graph's id, too. */
export function lastOutput(node, root) {
  const key = node.graph === root ? String(node.id) : `${node.graph.id}:${node.id}`
  return app.nodeOutputs?.[key]
}

/** Whether the nodes are elements of the page ("Nodes 2.0"); else they are drawn on a canvas that lies under our element. */
export function isNodes2() {
  return Boolean(globalThis.LiteGraph?.vueNodesMode)
}

/**
 * Puts a node's element where that of its forerunner still is: after an undo "Nodes 2.0" (1.47) goes on showing the widget of the
 * node of that id that is gone.
 */
export function takePlace(node, element) {
  if (!isNodes2() || element.isConnected || node.graph !== app.canvas?.graph) return
  document.querySelector(`[data-node-id="${CSS.escape(node.id)}"] .${element.className.split(' ', 1)[0]}`)?.replaceWith(element)
}

/** Gives the canvas what happened on our element: the node's menu (right button), moving the canvas (middle button). */
export function passToCanvas(event) {
  app.canvas?.canvas?.dispatchEvent(new PointerEvent(event.type, event))
}
