// Opens the real front end, builds the graph of an API-format prompt, lays it out, saves what the front end serialises, loads that again
// in a fresh page and compares the prompt it makes with the one it came from. Started by save_workflow.py, which passes the job as JSON.

import { readFileSync } from 'node:fs'
import { addProperties, compare, finish, launch, openFrontend, photograph, write } from './browser.mjs'

const job = JSON.parse(process.argv[2])
const api = JSON.parse(readFileSync(job.api, 'utf8'))
const layout = JSON.parse(readFileSync(job.layout, 'utf8'))

const context = await launch(job, layout.viewport ?? { width: 2200, height: 1300 })
await finish(context, async () => {
  const { workflow, problems } = await (await openFrontend(context, job.server)).evaluate(build, { api, layout })
  if (problems.length > 0) throw new Error(`the layout is not good:\n  ${problems.join('\n  ')}`)
  if (workflow.version !== 0.4) throw new Error(`expected format 0.4 from the front end, got ${workflow.version}`)
  await addProperties(workflow, job, layout.models)
  const page = await openFrontend(context, job.server)
  const again = await page.evaluate(load, workflow)
  const differences = compare(api, again)
  if (differences.length > 0) throw new Error(`the saved workflow makes another prompt:\n  ${differences.join('\n  ')}`)
  await photograph(page, job.screenshot)
  write(workflow, job)
})

async function build({ api, layout }) {
  await window.faithdiff.build(api, layout)
  return { problems: window.faithdiff.problems(window.app.graph), workflow: (await window.app.graphToPrompt()).workflow }
}

async function load(saved) {
  await window.app.loadGraphData(saved, true, true)
  return await window.faithdiff.flatPrompt()
}
