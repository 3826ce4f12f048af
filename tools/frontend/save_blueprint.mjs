// Builds a template in the real front end and saves the subgraph in it as the front end would publish it. Started by save_blueprint.py, which
// passes the job as JSON.

import { readFileSync } from 'node:fs'
import { addProperties, finish, launch, openFrontend, photograph, write } from './browser.mjs'

const job = JSON.parse(process.argv[2])
const api = JSON.parse(readFileSync(job.api, 'utf8'))
const layout = JSON.parse(readFileSync(job.layout, 'utf8'))

const context = await launch(job, { width: 2200, height: 1000 })
await finish(context, async () => {
  const page = await openFrontend(context, job.server)
  const { blueprint, problems } = await page.evaluate(build, { api, layout, name: job.name })
  if (problems.length > 0) throw new Error(`the layout is not good:\n  ${problems.join('\n  ')}`)
  const { category, description, search_aliases: aliases } = job.texts
  const [subgraph] = blueprint.definitions.subgraphs
  Object.assign(subgraph, { category, description })
  blueprint.extra = { BlueprintDescription: description, BlueprintSearchAliases: aliases }
  await addProperties(blueprint, job, layout.models)
  await photograph(page, job.screenshot)
  write(blueprint, job)
})

// Runs in the page.
async function build({ api, layout, name }) {
  const { app, faithdiff } = window
  await faithdiff.build(api, layout)
  const [node] = app.graph._nodes.filter((one) => one.subgraph && one.title === name)
  for (const other of app.graph._nodes.filter((one) => one !== node)) app.graph.remove(other)
  await faithdiff.pause(500)
  const { nodes, subgraphs } = app.canvas._serializeItems([node])
  const blueprint = { revision: 0, last_node_id: node.id, last_link_id: 0, nodes, links: [], version: 0.4, definitions: { subgraphs } }
  const problems = faithdiff.problems(app.graph)
  app.canvas.setGraph(node.subgraph)
  return { blueprint, problems }
}
