// What a user without weights does in the front end: the button, its dialog, and the clicks that it takes.

export function weightsCommands(page, closePanels) {
  const dialog = page.getByTestId('faithdiff-weights')

  // An API-format prompt on a new canvas in a page loaded anew; clicks are counted from then on.
  async function openPrompt({ prompt }) {
    await page.reload({ waitUntil: 'domcontentloaded' })
    await page.waitForFunction(() => window.app?.canvas && window.LiteGraph?.registered_node_types?.FaithDiffSampler)
    await page.waitForTimeout(2000) // its own start-up loads a graph last
    await closePanels()
    await page.evaluate(async (wanted) => {
      window.app.loadApiJson(wanted, 'faithdiff')
      await window.faithdiff.pause(1500)
      window.faithdiff.fit()
      window.faithdiffClicks = 0
      window.addEventListener('pointerdown', (event) => { window.faithdiffClicks += event.isTrusted ? 1 : 0 }, true)
    }, prompt)
    await page.waitForTimeout(500)
  }

  const clicks = () => page.evaluate(() => window.faithdiffClicks)

  // `type`: of a node, or its title. Where a widget is on the screen: drawn on the canvas, or a button of its own.
  async function clickWidget({ type, label }) {
    const button = page.getByRole('button', { name: label, exact: true })
    if (await button.count()) return await button.first().click()
    const place = await page.evaluate(({ type, label }) => {
      const { canvas, graph } = window.app
      const node = graph._nodes.find((each) => each.type === type || each.title === type)
      const widget = node.widgets.find((each) => each.name === label)
      const box = canvas.canvas.getBoundingClientRect()
      const at = (axis, inside) => (node.pos[axis] + inside + canvas.ds.offset[axis]) * canvas.ds.scale
      return { x: box.left + at(0, node.size[0] / 2), y: box.top + at(1, widget.last_y + 10) }
    }, { type, label })
    await page.mouse.click(place.x, place.y)
  }

  // Names of a node's widgets, its value of one of them, and what a saved workflow keeps of it.
  async function widgetsOf({ type }) {
    return await page.evaluate((wanted) => {
      const node = window.app.graph._nodes.find((each) => each.type === wanted || each.title === wanted)
      return { names: node.widgets.map((widget) => widget.name), values: node.widgets.map((widget) => widget.value), saved: node.serialize().widgets_values, marked: Boolean(node.has_errors) }
    }, type)
  }

  async function dialogText() {
    await dialog.getByRole('button', { name: 'Download' }).waitFor()
    return await dialog.innerText()
  }

  // What the dialog shows while it works: a first line of progress.
  async function progressLine() {
    await dialog.locator('p', { hasText: /downloading/ }).first().waitFor()
    return await dialog.innerText()
  }

  const offered = () => page.getByTestId('faithdiff-offer').count()
  const pressOffer = ({ name }) => page.getByTestId('faithdiff-offer').getByRole('button', { name, exact: true }).click()

  const pressInDialog = ({ name }) => dialog.getByRole('button', { name, exact: true }).click()
  const dialogGone = () => dialog.waitFor({ state: 'detached' })
  const dialogError = async () => {
    await dialog.locator('p.error:not(:empty)').waitFor()
    return await dialog.innerText()
  }

  return { openPrompt, clicks, clickWidget, offered, pressOffer, widgetsOf, dialogText, progressLine, pressInDialog, dialogGone, dialogError }
}
