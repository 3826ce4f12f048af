// Chromium with the real front end in it, for the scripts beside this one.

import { createHash } from 'node:crypto'
import { renameSync, writeFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { isDeepStrictEqual } from 'node:util'
import { chromium } from 'playwright-core'

const FLAGS = [
  '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run',
  '--disable-background-networking', '--disable-component-update', '--disable-sync',
]
const READY_MS = 280_000
const SETTLED_MS = 2000
const UUID = /[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}/g
const FRONTEND_NODES = ['MarkdownNote', 'Note'] // no pack of the server's makes these

export async function launch(job, viewport) {
  const context = await chromium.launchPersistentContext(job.profile, { executablePath: job.browser, headless: true, args: FLAGS, viewport })
  await context.addInitScript({ path: fileURLToPath(new URL('in_page.js', import.meta.url)) })
  return context
}

export async function openFrontend(context, server) {
  const page = await context.newPage()
  await page.goto(server, { waitUntil: 'domcontentloaded' })
  await untilReady(page)
  return page
}

export async function untilReady(page) {
  const isReady = () => window.app?.canvas && window.app.graph && window.LiteGraph?.registered_node_types?.FaithDiffSampler
  await page.waitForFunction(isReady, null, { timeout: READY_MS })
  await page.waitForTimeout(SETTLED_MS) // its own start-up loads a graph last
}

// A job's error as one line on stderr, and the exit code.
export async function finish(context, work) {
  try {
    await work()
  } catch (error) {
    console.error(`error: ${error.message.replace(/\n    at .*/gs, '')}`)
    process.exitCode = 1
  } finally {
    await context.close()
  }
}

// What the front end leaves to ComfyUI-Manager: which pack a node comes from, which version, where its model is to be had.
export async function addProperties(graph, job, models) {
  const get = async (path) => (await fetch(job.server + path)).json()
  const core = { cnr_id: 'comfy-core', ver: (await get('/system_stats')).system.comfyui_version }
  const ours = { cnr_id: 'faithdiff', ver: job.version }
  const packOf = (module) => (module === 'nodes' || module.startsWith('comfy_extras') ? core : module.startsWith('custom_nodes.') ? ours : null)
  const known = await get('/object_info')
  const subgraphs = graph.definitions?.subgraphs ?? []
  const ids = subgraphs.map((subgraph) => subgraph.id)
  for (const node of [graph, ...subgraphs].flatMap((part) => part.nodes)) {
    const origin = ids.includes(node.type) ? ours : packOf(known[node.type]?.python_module ?? '')
    if (!origin && !FRONTEND_NODES.includes(node.type)) throw new Error(`node ${node.id} (${node.type}) is of no known pack`)
    Object.assign(node.properties, origin)
    const wanted = (node.widgets_values ?? []).map((value) => models[value]).filter(Boolean)
    if (wanted.length > 0) node.properties.models = wanted
  }
}

// A graph as the front end serialised it, whole or not at all. Its ids are drawn at random there; here they are the same whenever the file is made.
export function write(graph, job) {
  const ids = new Map()
  const text = JSON.stringify(graph, null, 2)
  for (const [id] of text.matchAll(UUID)) {
    const hash = createHash('sha256').update(`${job.name}/${ids.size}`).digest('hex')
    if (!ids.has(id)) ids.set(id, `${hash.slice(0, 8)}-${hash.slice(8, 12)}-4${hash.slice(13, 16)}-8${hash.slice(17, 20)}-${hash.slice(20, 32)}`)
  }
  writeFileSync(`${job.out}.part`, `${text.replace(UUID, (id) => ids.get(id))}\n`)
  renameSync(`${job.out}.part`, job.out)
}

// How two API-format prompts differ, a line for each difference.
export function compare(wanted, got) {
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
export async function photograph(page, path) {
  await page.evaluate(async () => {
    await window.app.extensionManager.command.execute('Workspace.ToggleFocusMode')
    await window.faithdiff.pause(500)
    window.faithdiff.fit()
  })
  await page.waitForTimeout(1500)
  await page.screenshot({ path })
}
