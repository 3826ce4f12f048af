// What hands do on a page, and a look at what is there: commands of driver.mjs for tests of a view's own gestures.

/** @param page of Playwright */
export function byHand(page) {
  return {
    // The value of an expression in the page; a promise is waited for.
    evaluate: ({ expression }) => page.evaluate(expression),

    // Where an element is on the screen, once it is there.
    async boxOf({ selector }) {
      const place = page.locator(selector).first()
      await place.waitFor()
      return await place.boundingBox()
    },

    // The mouse does one thing after the other: ["move", x, y], ["down"], ["up"], ["wheel", 0, 100], ["dblclick", x, y], ["click", x, y, options].
    async mouse({ steps }) {
      for (const [action, ...values] of steps) await page.mouse[action](...values)
      await page.waitForTimeout(200)
    },

    // Keys pressed, by their names.
    async keys({ names }) {
      for (const name of names) await page.keyboard.press(name)
      await page.waitForTimeout(200)
    },
  }
}
