// A folder through the button of FaithDiff Load Folder, as a user does it: for the tests.

// Load Folder, Scale Image and Save Folder on a new canvas; a click on the button; what the node says before and after.
export async function restoreFolder(page, { folder, nodes2 }) {
  const before = await page.evaluate(makeGraph, folder)
  await page.waitForTimeout(500) // elements of nodes come a moment later
  if (nodes2) await page.getByRole('button', { name: 'Restore the whole folder' }).click()
  else await page.mouse.click(...await page.evaluate(placeOfButton))
  await page.waitForFunction(() => document.querySelector('[role=status]')?.textContent.includes(' 0 left'))
  return { ...before, ...await page.evaluate(readBar) }
}

// The text and the bar of the node after a click with nothing left to do.
export async function restoreNothing(page, { nodes2 }) {
  if (nodes2) await page.getByRole('button', { name: 'Restore the whole folder' }).click()
  else await page.mouse.click(...await page.evaluate(placeOfButton))
  await page.waitForFunction(() => document.querySelector('[role=status]')?.textContent.startsWith('All '))
  return await page.evaluate(readBar)
}

async function makeGraph(folder) {
  const { app, LiteGraph } = window
  await app.extensionManager.command.execute('Comfy.NewBlankWorkflow')
  await window.faithdiff.pause(300)
  const [load, scale, save] = ['FaithDiffLoadFolder', 'ImageScaleBy', 'FaithDiffSaveFolder'].map((type, i) => {
    const node = LiteGraph.createNode(type)
    app.graph.add(node)
    node.pos = [80 + 480 * i, 120]
    return node
  })
  load.widgets.find((widget) => widget.name === 'folder').value = folder
  load.connect(0, scale, 0)
  scale.connect(0, save, save.findInputSlot('image'))
  load.connect(2, save, save.findInputSlot('folder'))
  app.canvas.ds.scale = 0.9
  app.canvas.ds.offset = [20, 20]
  app.canvas.draw(true, true)
  const [prompt] = Object.values((await app.graphToPrompt()).output).filter((node) => node.class_type === load.type)
  return { inputs: Object.keys(prompt.inputs), saved: load.serialize().widgets_values }
}

// Where to click, in pixels of the page; the button is drawn on the canvas.
function placeOfButton() {
  const { app } = window
  const load = app.graph._nodes.find((node) => node.type === 'FaithDiffLoadFolder')
  const button = load.widgets.find((widget) => widget.type === 'button')
  const [x, y] = app.canvas.ds.convertOffsetToCanvas([load.pos[0] + load.size[0] / 2, load.pos[1] + (button.last_y ?? button.y) + 10])
  const { left, top } = app.canvas.canvas.getBoundingClientRect()
  return [left + x, top + y]
}

function readBar() {
  const bar = document.querySelector('progress')
  return { text: document.querySelector('[role=status]').textContent, value: bar.value, max: bar.max, isSeen: bar.checkVisibility() }
}
