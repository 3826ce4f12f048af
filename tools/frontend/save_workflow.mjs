// Opens the real front end, builds the graph of an API-format prompt, lays it out, saves what the front end serialises, loads that again
// in a fresh page and compares the prompt it makes with the one it came from. Started by save_workflow.py, which passes the job as JSON.

import { readFileSync, renameSync, writeFileSync } from 'node:fs'
import { isDeepStrictEqual } from 'node:util'
import { chromium } from 'playwright-core'

const FLAGS = [
  '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run',
  '--disable-background-networking', '--disable-component-update', '--disable-sync',
]
const READY_MS = 120_000
const FRONTEND_NODES = ['MarkdownNote', 'Note'] // no pack of the server's makes these

const job = JSON.parse(process.argv[2])
const api = JSON.parse(readFileSync(job.api, 'utf8'))
const layout = JSON.parse(readFileSync(job.layout, 'utf8'))

const context = await chromium.launchPersistentContext(job.profile, {
  executablePath: job.browser, headless: true, args: FLAGS, viewport: layout.viewport ?? { width: 2200, height: 1300 },
})
try {
  const workflow = addProperties(await build(await openFrontend()), await packsOfNodes(), layout.models ?? {})
  const page = await openFrontend()
  const again = await page.evaluate(async (saved) => {
    await window.app.loadGraphData(saved, true, true)
    return (await window.app.graphToPrompt()).output
  }, workflow)
  const differences = compare(api, again)
  if (differences.length > 0) throw new Error(`the saved workflow makes another prompt:\n  ${differences.join('\n  ')}`)
  await photograph(page)
  writeFileSync(`${job.out}.part`, `${JSON.stringify(workflow, null, 2)}\n`)
  renameSync(`${job.out}.part`, job.out)
} catch (error) {
  console.error(`error: ${error.message.replace(/\n    at .*/gs, '')}`)
  process.exitCode = 1
} finally {
  await context.close()
}

async function openFrontend() {
  const page = await context.newPage()
  await page.goto(job.server, { waitUntil: 'domcontentloaded' })
  await page.waitForFunction(() => window.app?.canvas && window.app.graph && window.LiteGraph?.registered_node_types?.FaithDiffSampler, null, { timeout: READY_MS })
  await page.waitForTimeout(2000) // its own start-up loads a graph last
  return page
}

async function build(page) {
  return await page.evaluate(buildInPage, { api, layout })
}

// Runs in the page.
async function buildInPage({ api, layout }) {
  const PADDING = 20
  const TITLE_BAR = 30 // above a node's own position
  const { app, LiteGraph } = window
  app.loadApiJson(api, 'faithdiff')
  await new Promise((resolve) => setTimeout(resolve, 1000)) // widgets get their final sizes a moment later
  const graph = app.graph
  for (const group of [...graph._groups]) graph.remove(group)
  for (const widget of graph._nodes.flatMap((node) => node.widgets ?? [])) {
    if (widget.name === 'control_after_generate') widget.value = 'fixed'
  }
  const byName = Object.fromEntries(graph._nodes.map((node) => [String(node.id), node]))
  for (const [name, note] of Object.entries(layout.notes ?? {})) {
    const node = LiteGraph.createNode('MarkdownNote')
    graph.add(node)
    node.title = note.title
    node.widgets[0].value = note.text.join('\n')
    byName[name] = node
  }
  const nodeOf = (name) => {
    if (!byName[name]) throw new Error(`the layout names node ${name}, which the prompt has not`)
    return byName[name]
  }
  for (const name of Object.keys(byName)) if (!layout.nodes[name]) throw new Error(`the layout has no place for node ${name} (${byName[name].type})`)
  for (const [name, [x, y, width, height]] of Object.entries(layout.nodes)) {
    const node = nodeOf(name)
    const least = node.type === 'MarkdownNote' ? [0, 0] : node.computeSize()
    node.pos = [x, y]
    node.setSize([Math.max(width, least[0]), Math.max(height ?? 0, least[1])])
  }
  app.canvas.draw(true, true) // brings up to date the rectangles that the groups go by
  for (const spec of layout.groups ?? []) {
    const group = new LiteGraph.LGraphGroup(spec.title)
    group.color = spec.color
    graph.add(group)
    group.resizeTo(spec.nodes.map(nodeOf), PADDING)
  }
  const boxes = graph._nodes.map((node) => [node.title, node.pos[0], node.pos[1] - TITLE_BAR, node.size[0], node.size[1] + TITLE_BAR])
  const groups = graph._groups.map((group) => [group.title, group.pos[0], group.pos[1], group.size[0], group.size[1]])
  for (const list of [boxes, groups]) {
    for (const [i, a] of list.entries()) for (const b of list.slice(i + 1)) {
      if (a[1] < b[1] + b[3] && b[1] < a[1] + a[3] && a[2] < b[2] + b[4] && b[2] < a[2] + a[4]) throw new Error(`these overlap: ${JSON.stringify([a, b])}`)
    }
  }
  for (const link of graph.links.values()) {
    const [from, to] = [graph.getNodeById(link.origin_id), graph.getNodeById(link.target_id)]
    const below = to.pos[0] === from.pos[0] && to.pos[1] > from.pos[1]
    if (from.pos[0] + from.size[0] > to.pos[0] && !below) throw new Error(`the link from "${from.title}" to "${to.title}" runs backwards`)
  }
  app.canvas.setDirty(true, true)
  return (await app.graphToPrompt()).workflow
}

// What the front end leaves to ComfyUI-Manager: which pack a node comes from, which version, where its model is to be had.
function addProperties(workflow, origins, models) {
  if (workflow.version !== 0.4) throw new Error(`expected format 0.4 from the front end, got ${workflow.version}`)
  for (const node of workflow.nodes) {
    const origin = origins[node.type]
    if (!origin && !FRONTEND_NODES.includes(node.type)) throw new Error(`node ${node.id} (${node.type}) is of no known pack`)
    Object.assign(node.properties, origin)
    const known = (node.widgets_values ?? []).map((value) => models[value]).filter(Boolean)
    if (known.length > 0) node.properties.models = known
  }
  return workflow
}

async function packsOfNodes() {
  const get = async (path) => (await fetch(job.server + path)).json()
  const core = { cnr_id: 'comfy-core', ver: (await get('/system_stats')).system.comfyui_version }
  const ours = { cnr_id: 'faithdiff', ver: job.version }
  const packOf = (module) => (module === 'nodes' || module.startsWith('comfy_extras') ? core : module.startsWith('custom_nodes.') ? ours : null)
  return Object.fromEntries(Object.entries(await get('/object_info')).map(([type, info]) => [type, packOf(info.python_module)]))
}

function compare(wanted, got) {
  const differences = []
  for (const id of new Set([...Object.keys(wanted), ...Object.keys(got)])) {
    const [a, b] = [wanted[id], got[id]]
    if (!a || !b) differences.push(`node ${id}: ${a ? 'lost' : 'added'}`)
    else if (a.class_type !== b.class_type) differences.push(`node ${id}: ${a.class_type} became ${b.class_type}`)
    else for (const name of new Set([...Object.keys(a.inputs), ...Object.keys(b.inputs)])) {
      if (!isDeepStrictEqual(a.inputs[name], b.inputs[name])) {
        differences.push(`node ${id} (${a.class_type}) ${name}: ${JSON.stringify(a.inputs[name])} became ${JSON.stringify(b.inputs[name])}`)
      }
    }
  }
  return differences
}

// The graph alone: panels hidden, the view fitted to the graph.
async function photograph(page) {
  await page.evaluate(async () => {
    const { app } = window
    await app.extensionManager.command.execute('Workspace.ToggleFocusMode')
    await new Promise((resolve) => setTimeout(resolve, 500))
    const boxes = [...app.graph._nodes, ...app.graph._groups].map((item) => item.boundingRect ?? item._bounding)
    const [left, top] = [Math.min(...boxes.map((b) => b[0])), Math.min(...boxes.map((b) => b[1]))]
    const [right, bottom] = [Math.max(...boxes.map((b) => b[0] + b[2])), Math.max(...boxes.map((b) => b[1] + b[3]))]
    const canvas = app.canvas
    const [width, height] = [window.innerWidth, window.innerHeight]
    const scale = Math.min((width - 60) / (right - left), (height - 120) / (bottom - top), 1)
    canvas.ds.scale = scale
    canvas.ds.offset = [(width / scale - (right - left)) / 2 - left, (height / scale - (bottom - top)) / 2 - top]
    canvas.setDirty(true, true)
  })
  await page.waitForTimeout(1500)
  await page.screenshot({ path: job.screenshot })
}
