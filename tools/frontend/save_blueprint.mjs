// Builds a graph in the real front end, lets it convert all but the outer nodes to a subgraph, shows the wanted widgets outside, and saves
// the subgraph as the front end would publish it. Started by save_blueprint.py, which passes the job as JSON.

import { createHash } from 'node:crypto'
import { readFileSync, renameSync, writeFileSync } from 'node:fs'
import { addProperties, finish, launch, openFrontend, photograph } from './browser.mjs'

const UUID = /[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}/g

const job = JSON.parse(process.argv[2])
const source = JSON.parse(readFileSync(job.layout, 'utf8'))

const context = await launch(job, { width: 2200, height: 1000 })
await finish(context, async () => {
  const page = await openFrontend(context, job.server)
  const { blueprint, problems } = await page.evaluate(build, { source, name: job.name })
  if (problems.length > 0) throw new Error(`the layout is not good:\n  ${problems.join('\n  ')}`)
  const [subgraph] = blueprint.definitions.subgraphs
  Object.assign(subgraph, { category: source.category, description: source.description })
  blueprint.extra = { BlueprintDescription: source.description, BlueprintSearchAliases: source.search_aliases }
  await addProperties([...subgraph.nodes, ...blueprint.nodes], job, source.models, subgraph.id)
  await photograph(page, job.screenshot)
  writeFileSync(`${job.out}.part`, `${withFixedIds(JSON.stringify(blueprint, null, 2))}\n`)
  renameSync(`${job.out}.part`, job.out)
})

// Runs in the page.
async function build({ source, name }) {
  const { app } = window
  const byName = await window.faithdiff.build(source.prompt, source)
  const inside = Object.keys(byName).filter((key) => !source.outside.includes(key))
  const { subgraph, node } = app.graph.convertToSubgraph(new Set([...inside.map((key) => byName[key]), ...app.graph._groups]))
  subgraph.name = node.title = name
  for (const input of [...subgraph.inputs]) { // the front end shows some widgets of its own accord, among them the seed
    if (node.inputs.find((slot) => slot.name === input.name)?.link == null) subgraph.removeInput(input)
  }
  for (const wanted of source.widgets) {
    const inner = subgraph.getNodeById(byName[wanted.node].id)
    const slot = inner?.inputs.find((input) => input.name === wanted.input)
    if (!slot) throw new Error(`node ${wanted.node} has no input ${wanted.input}`)
    const input = subgraph.addInput(wanted.name, String(slot.type))
    input.connect(slot, inner)
    if (wanted.label) subgraph.renameInput(input, wanted.label)
  }
  for (const key of source.outside) app.graph.remove(byName[key])
  node.setSize([source.width, node.computeSize()[1]])
  await window.faithdiff.pause(500)
  const { nodes, subgraphs } = app.canvas._serializeItems([node])
  const blueprint = { revision: 0, last_node_id: node.id, last_link_id: 0, nodes, links: [], version: 0.4, definitions: { subgraphs } }
  const problems = window.faithdiff.problems(subgraph)
  app.canvas.setGraph(subgraph)
  return { blueprint, problems }
}

// The front end draws its ids at random; ours are the same whenever the file is made.
function withFixedIds(text) {
  const ids = new Map()
  for (const [id] of text.matchAll(UUID)) {
    const hash = createHash('sha256').update(`${job.name}/${ids.size}`).digest('hex')
    if (!ids.has(id)) ids.set(id, `${hash.slice(0, 8)}-${hash.slice(8, 12)}-4${hash.slice(13, 16)}-8${hash.slice(17, 20)}-${hash.slice(20, 32)}`)
  }
  return text.replace(UUID, (id) => ids.get(id))
}
