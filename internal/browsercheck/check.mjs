// What checks of pages in a real browser share: a folder for the time of the check, screenshots, and an orderly end.
//
//	node some/check.mjs [folder for the screenshots]

import assert from "node:assert/strict";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";

import { DESKTOP, PHONE } from "./page.mjs";

export { Browser } from "./browser.mjs";
export { DESKTOP, PHONE, Page, TIMEOUT } from "./page.mjs";
export { Program, build } from "./program.mjs";

export function step(text) {
  console.log(text);
}

/** One run. */
export class Check {
  #running = [];

  /**
   * Does what steps does, ends what it has started, and says how it went, also by the status of this process.
   *
   * @param {string} name
   * @param {(check: Check) => Promise<void>} steps
   */
  static async run(name, steps) {
    const check = new Check();
    check.temp = await mkdtemp(join(tmpdir(), `${name}-check-`));
    /** Where programs go. */
    check.bin = join(check.temp, "bin");
    check.shots = process.argv[2] ?? join(check.temp, "screenshots");
    await mkdir(check.shots, { recursive: true });
    let failed = true;
    try {
      await steps(check);
      failed = false;
    } catch (err) {
      console.error(err);
    }
    for (const what of check.#running.reverse()) {
      try {
        await what.stop();
      } catch (err) {
        console.error(err);
        failed = true;
      }
    }
    // What remains is the screenshots.
    await rm(process.argv[2] ? check.temp : check.bin, { force: true, recursive: true });
    console.log(`screenshots: ${check.shots}`);
    console.log(failed ? "FAILED" : "ok");
    process.exitCode = failed ? 1 : 0;
  }

  /** Takes note of something that has to be stopped, whatever happens: the last one first. */
  uses(what) {
    this.#running.push(what);
    return what;
  }

  /**
   * Takes a picture of a page at each size and in each scheme. It must not be wider than the window.
   *
   * @param {import("./page.mjs").Page} page
   * @param {string} name
   * @param {object} [options]
   * @param {Record<string, object>} [options.sizes]
   * @param {boolean} [options.whole] of all of the page rather than the window, which it must fit otherwise if fits is set
   * @param {boolean} [options.fits]
   * @param {number} [options.wait] ms, until what moves has come to rest
   */
  async picture(page, name, { sizes = { desktop: DESKTOP, phone: PHONE }, whole = false, fits = false, wait = 300 } = {}) {
    for (const [size, metrics] of Object.entries(sizes)) {
      for (const scheme of ["light", "dark"]) {
        await page.look(metrics, scheme);
        await sleep(wait);
        const [wider, higher] = await page.get(`(({ scrollWidth, scrollHeight, clientWidth, clientHeight }) =>
          [scrollWidth - clientWidth, scrollHeight - clientHeight])(document.documentElement)`);
        assert.equal(wider, 0, `pixels by which ${name} at ${size} size is wider than the window`);
        if (fits) assert.equal(higher, 0, `pixels by which ${name} at ${size} size is higher than the window`);
        const { data } = await page.send("Page.captureScreenshot", { format: "png", captureBeyondViewport: whole });
        await writeFile(join(this.shots, `${name}-${size}-${scheme}.png`), Buffer.from(data, "base64"));
      }
    }
    await page.look(DESKTOP, "light");
  }
}
