// A page in the browser, and what people do with it.

import assert from "node:assert/strict";
import { setTimeout as sleep } from "node:timers/promises";

export const TIMEOUT = 20_000; // ms, of each step
export const DESKTOP = { width: 1280, height: 800, deviceScaleFactor: 1, mobile: false };
export const PHONE = { width: 390, height: 844, deviceScaleFactor: 2, mobile: true };

export class Page {
  /** What has gone wrong: uncaught exceptions, errors and warnings of the console and the network, requests to elsewhere. */
  errors = [];
  /** Parts of errors that a step causes on purpose. */
  expected = [];
  /** Whose page it is, for the output. */
  who = "";
  /** Of whom something may be asked. @type {string[]} */
  hosts = [];
  /** Called with the bytes of each binary WebSocket message from the server. */
  onMessage = () => {};

  /**
   * Opens a page in a profile of its own.
   *
   * @param {import("./browser.mjs").Browser} browser
   * @param {string} url nothing may be asked of any other host
   * @param {{who?: string, metrics?: object, hosts?: string[], ready: [string, string]}} options hosts: others that may be
   *   asked; ready: when the page is there, in words and as an expression
   */
  static async open(browser, url, { who = "", metrics = DESKTOP, hosts = [], ready }) {
    const page = new this();
    page.who = who;
    page.hosts = [new URL(url).host, ...hosts];
    page.send = await browser.newPage((method, params) => page.#event(method, params));
    for (const domain of ["Page", "Runtime", "Log", "Network", "Accessibility"]) await page.send(`${domain}.enable`);
    await page.look(metrics, "light");
    await page.send("Page.navigate", { url });
    await page.until(...ready);
    return page;
  }

  #event(method, params) {
    const error = (text) => {
      if (!this.expected.some((part) => text.includes(part))) this.errors.push(text);
    };
    if (method === "Runtime.exceptionThrown") {
      const { text, exception } = params.exceptionDetails;
      error(`${text} ${exception?.description ?? ""}`);
    } else if (method === "Runtime.consoleAPICalled" && ["error", "assert", "warning"].includes(params.type)) {
      error(`console.${params.type}: ${params.args.map((a) => a.value ?? a.description).join(" ")}`);
    } else if (method === "Log.entryAdded" && ["error", "warning"].includes(params.entry.level)) {
      error(params.entry.text);
    } else if (method === "Network.requestWillBeSent" || method === "Network.webSocketCreated") {
      const url = new URL(params.url ?? params.request.url);
      if (url.protocol !== "data:" && !this.hosts.includes(url.host)) error(`request to ${url}`);
    } else if (method === "Network.responseReceived" && params.response.status >= 400) {
      error(`${params.response.status} for ${params.response.url}`);
    } else if (method === "Network.loadingFailed" && !params.canceled) {
      error(`failed: ${params.errorText} ${params.blockedReason ?? ""}`);
    } else if (method === "Network.webSocketFrameReceived" && params.response.opcode === 2) {
      this.onMessage(Buffer.from(params.response.payloadData, "base64"));
    }
  }

  /** The value of an expression in the page; of a promise, what it is fulfilled with. */
  async get(expression) {
    const { result, exceptionDetails } = await this.send("Runtime.evaluate", { expression, returnByValue: true, awaitPromise: true });
    if (exceptionDetails) throw new Error(`${expression}: ${exceptionDetails.exception?.description}`);
    return result.value;
  }

  /** Waits until an expression is true. */
  async until(what, expression) {
    const says = this.who ? `${this.who}: ${what}` : what;
    for (const end = Date.now() + TIMEOUT; !(await this.get(expression)); await sleep(20)) {
      if (Date.now() < end) continue;
      throw new Error(`not seen within ${TIMEOUT} ms: ${says}\n${expression}\n--- the page:\n${await this.get("document.body.innerText")}`);
    }
    console.log(`  ${says}`);
  }

  async click(selector) {
    const middle = `(() => {
      const e = document.querySelector(${JSON.stringify(selector)});
      e.scrollIntoView({ block: "nearest" });
      const { x, y, width, height } = e.getBoundingClientRect();
      const at = { x: x + width / 2, y: y + height / 2 };
      return e.contains(document.elementFromPoint(at.x, at.y)) ? at : null;
    })()`;
    await this.until(`can click ${selector}`, `${middle} !== null`); // visible, and nothing is in front of it
    const { x, y } = await this.get(middle);
    for (const type of ["mousePressed", "mouseReleased"]) {
      await this.send("Input.dispatchMouseEvent", { type, x, y, button: "left", clickCount: 1 });
    }
  }

  /** Puts a text in the place of what a field has. */
  async write(selector, text) {
    await this.get(`{ const e = document.querySelector(${JSON.stringify(selector)}); e.focus(); e.select(); }`);
    if (text) await this.send("Input.insertText", { text });
    else await this.press("Delete");
  }

  async press(key, { shift = false } = {}) {
    const code = { Enter: 13, Escape: 27, Tab: 9, Delete: 46 }[key];
    const event = { key, code: key, windowsVirtualKeyCode: code, modifiers: shift ? 8 : 0 };
    await this.send("Input.dispatchKeyEvent", { type: "keyDown", text: key === "Enter" ? "\r" : undefined, ...event });
    await this.send("Input.dispatchKeyEvent", { type: "keyUp", ...event });
  }

  /** Changes the window, and whether it is light or dark. */
  async look(metrics, scheme) {
    await this.send("Emulation.setDeviceMetricsOverride", metrics);
    await this.send("Emulation.setEmulatedMedia", { features: [{ name: "prefers-color-scheme", value: scheme }] });
  }

  /** Every control that can be reached, and everything else of these roles, has a name that a screen reader can say. */
  async checkNames(...roles) {
    const { nodes } = await this.send("Accessibility.getFullAXTree");
    for (const { ignored, role, name } of nodes) {
      if (ignored || !["button", "textbox", "searchbox", "checkbox", ...roles].includes(role?.value)) continue;
      assert.ok(name?.value, `${this.who}: a ${role.value} without a name`);
    }
  }
}
