// Does in the front end what a user does, for the tests: one command a line on stdin ({"command", ...}), one answer a line on stdout
// ({"result"} or {"error"}). The first argument is the job as JSON: server, browser, profile.

import { createInterface } from 'node:readline'
import { launch, openFrontend, untilReady } from './browser.mjs'
import { byHand } from './by_hand.mjs'
import { restoreFolder, restoreNothing } from './folder_button.mjs'
import { weightsCommands } from './weights.mjs'

const WAIT_MS = 200_000 // a machine may be busy
const PACK = 'ComfyUI-FaithDiff'

const job = JSON.parse(process.argv[2])
const context = await launch(job, { width: 1600, height: 1000 })
const page = await openFrontend(context, job.server)
page.setDefaultTimeout(WAIT_MS)

const commands = {
  restoreFolder: (options) => restoreFolder(page, options),
  restoreNothing: (options) => restoreNothing(page, options),
  helpOf, insertBlueprint, labels, openTemplate, run, screenshot, setLanguage, setNodes2, swapForNano, templates, ...byHand(page), ...weightsCommands(page, closePanels),
}
for await (const line of createInterface({ input: process.stdin })) {
  const { command, ...options } = JSON.parse(line)
  let answer
  try {
    answer = { result: (await commands[command](options)) ?? null }
  } catch (error) {
    answer = { error: `${command}: ${error.message.split('\n    at ')[0]}` }
  }
  process.stdout.write(`${JSON.stringify(answer)}\n`)
}
await context.close()

// --- Templates

// The cards of the pack's templates, with their pictures as the browser got them.
async function templates() {
  await openTemplates()
  const cards = page.locator('[data-testid^="template-workflow-"]')
  await cards.first().waitFor()
  const shown = []
  for (const card of await cards.all()) {
    await card.scrollIntoViewIfNeeded() // a picture is fetched when its card comes into sight
    const picture = card.locator('img').first()
    await picture.waitFor()
    const handle = await picture.elementHandle()
    await page.waitForFunction((image) => image.complete, handle)
    shown.push(await card.evaluate((node) => {
      const image = node.querySelector('img')
      return { name: node.dataset.testid.replace('template-workflow-', ''), width_px: image.naturalWidth, height_px: image.naturalHeight }
    }))
  }
  return shown
}

async function openTemplates() {
  const dialog = page.getByRole('dialog')
  const pack = page.locator('[data-testid="template-workflow-faithdiff_upscale"]')
  if (await pack.isVisible()) return
  await closePanels()
  await page.getByTestId('side-toolbar').getByText('Templates', { exact: true }).click()
  for (let tries = 0; tries < 10 && !(await pack.isVisible()); tries++) { // a click while the list still loads is lost
    await dialog.getByText(PACK).first().click()
    await page.waitForTimeout(1000)
  }
  await pack.waitFor()
}

// Click a template; what the graph then is, and what the front end complains of.
async function openTemplate({ name }) {
  await openTemplates()
  const before = await page.evaluate(() => window.app.extensionManager.workflow.activeWorkflow?.path)
  await page.getByTestId(`template-workflow-${name}`).click()
  await page.waitForFunction(({ name, before }) => { // opened once more it has a number behind its name
    const active = window.app.extensionManager.workflow.activeWorkflow
    return active?.path !== before && active?.filename.startsWith(name)
  }, { name, before })
  await page.waitForTimeout(1500) // complaints come when the scan of models and media is done
  const graph = await page.evaluate(async () => {
    const nodes = window.app.graph._nodes
    const zoom = window.app.canvas.ds.scale // as it opens
    window.faithdiff.fit()
    return {
      zoom,
      problems: window.faithdiff.problems(window.app.graph),
      unknown: nodes.filter((node) => !window.LiteGraph.registered_node_types[node.type]).map((node) => node.type),
      marked: nodes.filter((node) => node.has_errors).map((node) => node.title),
      notes: nodes.filter((node) => node.type === 'MarkdownNote').length,
      groups: window.app.graph._groups.length,
      prompt: await window.faithdiff.flatPrompt(),
    }
  })
  return { ...graph, complaints: await complaints() }
}

// The texts of the front end's own complaints: missing nodes, models, pictures, inputs.
async function complaints() {
  const places = page.locator('[data-testid="error-overlay"], [data-testid^="missing-"], .p-toast-message-error, .p-toast-message-warn')
  return await places.evaluateAll((found) => found.map((place) => place.innerText.replace(/\s+/g, ' ').trim()))
}

// --- Running

// Click Run and wait until it has ended and a node shows a picture; the pictures, and what went wrong.
async function run({ timeout_s }) {
  await closePanels()
  const ended = page.evaluate((ms) => new Promise((resolve) => {
    const api = window.app.api
    const pictures = []
    const add = ({ detail }) => pictures.push(...(detail.output?.images ?? []))
    api.addEventListener('executed', add)
    const end = (outcome) => {
      api.removeEventListener('executed', add)
      resolve({ outcome, pictures })
    }
    api.addEventListener('execution_success', () => end('success'), { once: true })
    api.addEventListener('execution_error', ({ detail }) => end(`${detail.node_type}: ${detail.exception_message}`), { once: true })
    setTimeout(() => end(`not done after ${ms / 1000} s`), ms)
  }), timeout_s * 1000)
  await page.getByTestId('queue-button').click()
  const { outcome, pictures } = await ended
  if (outcome === 'success') {
    const areShown = () => window.app.graph._nodes.some((node) => !['FaithDiffLoadPhoto', 'LoadImage'].includes(node.type) && node.imgs?.length > 0)
    await page.waitForFunction(areShown)
    await page.waitForTimeout(1000)
  }
  return { outcome, pictures, complaints: await complaints() }
}

// --- Help

// A node of a type alone on a new canvas; its help page, opened by the button over the selected node.
async function helpOf({ type }) {
  await closePanels()
  await page.evaluate(async (wanted) => {
    const { app, LiteGraph } = window
    await app.extensionManager.command.execute('Comfy.NewBlankWorkflow')
    await window.faithdiff.pause(300)
    const node = LiteGraph.createNode(wanted)
    app.graph.add(node)
    node.pos = [400, 300]
    app.canvas.ds.scale = 1
    app.canvas.ds.offset = [0, 0]
    app.canvas.selectNode(node)
    app.canvas.setDirty(true, true)
  }, type)
  await page.getByTestId('info-button').click()
  const help = page.locator('.node-help-content')
  await help.locator('h1').first().waitFor()
  await page.waitForTimeout(300)
  return await help.evaluate((place) => ({
    title: place.querySelector('h1').innerText,
    text: place.innerText,
    broken: [...place.querySelectorAll('img, video')].filter((media) => !(media.naturalWidth || media.videoWidth)).map((media) => media.src),
  }))
}

// --- Blueprint

// Look a blueprint up in the node library and drag it to the canvas; what stands there then.
async function insertBlueprint({ name }) {
  await closePanels()
  await page.evaluate(() => window.app.extensionManager.command.execute('Comfy.NewBlankWorkflow'))
  await page.getByTestId('side-toolbar').getByText('Nodes', { exact: true }).click()
  await page.locator('.side-bar-panel, .comfy-vue-side-bar-container').first().getByPlaceholder(/search/i).fill(name)
  const entry = page.locator('.side-bar-panel, .comfy-vue-side-bar-container').first().getByText(name, { exact: true }).first()
  await entry.dragTo(page.locator('#graph-canvas'), { targetPosition: { x: 900, y: 300 } })
  await page.waitForFunction(() => window.app.graph._nodes.length > 0)
  await closePanels()
  return await page.evaluate(() => {
    const [node] = window.app.graph._nodes
    window.faithdiff.fit()
    return {
      title: node.title,
      inputs: node.inputs.map((input) => input.name),
      outputs: node.outputs.map((output) => output.type),
      widgets: Object.fromEntries(node.widgets.map((widget) => [widget.name, widget.value])),
      inside: node.subgraph._nodes.map((inner) => inner.type),
      problems: window.faithdiff.problems(node.subgraph),
    }
  })
}

// Inside the blueprint, the nodes that need a text encoder give way to those of the nano model; outside, a picture goes in and comes out.
async function swapForNano({ photo, model, vae, scale, steps }) {
  await page.evaluate(async (wanted) => {
    const { app, LiteGraph } = window
    const [outer] = app.graph._nodes
    const graph = outer.subgraph
    const find = (type) => graph._nodes.find((node) => node.type === type)
    const add = (type, where) => {
      const node = LiteGraph.createNode(type)
      where.add(node)
      return node
    }
    const move = (from, fromSlot, to, toSlot) => {
      const ends = [...(from.outputs[fromSlot].links ?? [])].map((id) => graph.links.get(id)).map((link) => [graph.getNodeById(link.target_id), link.target_slot])
      for (const [node, slot] of ends) to.connect(toSlot, node, slot)
    }
    const [nanoVae, noPrompt] = [add('FaithDiffLoadNanoVAE', graph), add('FaithDiffNoPrompt', graph)]
    nanoVae.widgets[0].value = wanted.vae
    move(find('CheckpointLoaderSimple'), 2, nanoVae, 0)
    find('FaithDiffAlignLatent').connect(0, noPrompt, 0)
    move(find('FaithDiffPrompt'), 0, noPrompt, 0)
    move(find('FaithDiffPrompt'), 1, noPrompt, 0)
    const set = (node, values) => {
      for (const [name, value] of Object.entries(values)) node.widgets.find((widget) => widget.name === name).value = value
    }
    set(outer, { weights: wanted.model, scale: wanted.scale })
    const sampler = find('FaithDiffSampler') // not by the preset
    for (const name of ['steps', 'cfg']) sampler.disconnectInput(sampler.inputs.findIndex((input) => input.name === name))
    set(sampler, { steps: wanted.steps, cfg: 1 })
    const [load, save] = [add('LoadImage', app.graph), add('SaveImage', app.graph)]
    load.widgets[0].value = wanted.photo
    load.pos = [outer.pos[0] - 400, outer.pos[1]]
    save.pos = [outer.pos[0] + outer.size[0] + 100, outer.pos[1]]
    load.connect(0, outer, 0)
    outer.connect(0, save, 0)
    window.faithdiff.fit()
  }, { photo, model, vae, scale, steps })
}

// --- Language, and the rest

// Set the language and load the page anew; back to a page with the pack's nodes.
async function setLanguage({ code }) {
  await page.evaluate((wanted) => window.app.extensionManager.setting.set('Comfy.Locale', wanted), code)
  await page.reload({ waitUntil: 'domcontentloaded' })
  await untilReady(page)
}

// Nodes 2.0, or the older way of drawing nodes.
async function setNodes2({ on }) {
  await page.evaluate((wanted) => window.app.extensionManager.setting.set('Comfy.VueNodes.Enabled', wanted), on)
  await page.waitForTimeout(1500)
}

// What new nodes of some types are called, with the labels of their slots and widgets.
async function labels({ types }) {
  return await page.evaluate((wanted) => Object.fromEntries(wanted.map((type) => {
    const node = window.LiteGraph.createNode(type)
    const named = [...(node.inputs ?? []), ...(node.widgets ?? [])].map((part) => [part.name, part.label ?? part.localized_name ?? part.name])
    return [type, { title: node.title, inputs: Object.fromEntries(named) }]
  })), types)
}

async function screenshot({ path, clip }) {
  await page.screenshot({ path, clip: clip ?? undefined })
}

// Dialogs and side panels closed, so that nothing is in front of the next click.
async function closePanels() {
  while (await page.getByRole('dialog').first().isVisible()) {
    await page.keyboard.press('Escape')
    await page.waitForTimeout(300)
  }
  await page.evaluate(async () => {
    window.app.extensionManager.sidebarTab.activeSidebarTabId = null
    document.querySelector('#vue-app').__vue_app__.config.globalProperties.$pinia._s.get('rightSidePanel').closePanel()
    await window.faithdiff.pause(300)
  })
}
