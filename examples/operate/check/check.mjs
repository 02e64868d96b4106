// Tries the debug page as people on call do: it builds and starts the operate example with bots, opens the page in a
// headless Chromium, searches, sorts and kicks, and takes pictures of it on a desk and on a phone, light and dark.
//
//	node examples/operate/check/check.mjs [folder for the screenshots [seconds of load before them]]
//
// It needs Go, Node 20 or later and Chromium (or Chrome; CHROMIUM names the program). It ends with status 0 if each step
// went as expected, no page has reported an error or asked for anything in vain, and prints where the screenshots are.

import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";

import { Browser } from "../../chat/check/devtools.mjs";

const TIMEOUT = 20_000; // of each step
const DESKTOP = { width: 1280, height: 900, deviceScaleFactor: 1, mobile: false };
const PHONE = { width: 390, height: 844, deviceScaleFactor: 2, mobile: true };
const BOTS = 60;

/** The example, as a process. */
class Server {
  #child;
  static async start(program, ...flags) {
    const server = new Server();
    const child = spawn(program, ["-listen", "localhost:0", "-private", "localhost:0", ...flags], { stdio: ["ignore", "pipe", "inherit"] });
    server.#child = child;
    const deadline = setTimeout(() => child.kill(), TIMEOUT);
    let out = "";
    for await (const chunk of child.stdout.iterator({ destroyOnReturn: false })) {
      out += chunk;
      server.url = out.match(/^private\s+(http:\S+)\/$/m)?.[1];
      if (server.url && /^ready$/m.test(out)) break;
    }
    clearTimeout(deadline);
    assert.ok(server.url, `the server printed no address: ${out}`);
    child.stdout.resume();
    return server;
  }

  /** Ends it as an operator would, and checks that it ends well. */
  async stop() {
    if (this.#child.exitCode !== null) return;
    const exit = once(this.#child, "exit");
    this.#child.kill("SIGTERM");
    const deadline = setTimeout(() => this.#child.kill("SIGKILL"), TIMEOUT);
    const [code, signal] = await exit;
    clearTimeout(deadline);
    assert.deepEqual([code, signal], [0, null], "how the server ended");
  }
}

class Page {
  errors = [];
  expected = []; // parts of errors that a step causes on purpose

  static async open(browser, url, metrics = DESKTOP) {
    const page = new Page();
    page.origin = new URL(url).host;
    page.send = await browser.newPage((method, params) => page.#event(method, params));
    for (const domain of ["Page", "Runtime", "Log", "Network", "Accessibility"]) await page.send(`${domain}.enable`);
    await page.look(metrics, "light");
    await page.send("Page.navigate", { url });
    await page.until("has drawn the charts", `document.querySelectorAll("#charts path").length > 0`);
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
    } else if (method === "Network.requestWillBeSent") {
      const url = new URL(params.request.url);
      if (url.protocol !== "data:" && url.host !== this.origin) error(`request to ${url}`);
    } else if (method === "Network.responseReceived" && params.response.status >= 400) {
      error(`${params.response.status} for ${params.response.url}`);
    } else if (method === "Network.loadingFailed" && !params.canceled) {
      error(`failed: ${params.errorText} ${params.blockedReason ?? ""}`);
    }
  }

  /** The value of an expression in the page. */
  async get(expression) {
    const { result, exceptionDetails } = await this.send("Runtime.evaluate", { expression, returnByValue: true, awaitPromise: true });
    if (exceptionDetails) throw new Error(`${expression}: ${exceptionDetails.exception?.description}`);
    return result.value;
  }

  /** Waits until an expression is true. */
  async until(what, expression) {
    for (const end = Date.now() + TIMEOUT; !(await this.get(expression)); await sleep(50)) {
      if (Date.now() < end) continue;
      throw new Error(`not seen within ${TIMEOUT} ms: ${what}\n${expression}\n--- the page:\n${await this.get("document.body.innerText")}`);
    }
    console.log(`  ${what}`);
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

  async write(selector, text) {
    await this.get(`{ const e = document.querySelector(${JSON.stringify(selector)}); e.focus(); e.select(); }`);
    if (text) await this.send("Input.insertText", { text });
    else await this.send("Input.dispatchKeyEvent", { type: "rawKeyDown", key: "Delete", code: "Delete", windowsVirtualKeyCode: 46 });
  }

  async look(metrics, scheme) {
    await this.send("Emulation.setDeviceMetricsOverride", metrics);
    await this.send("Emulation.setEmulatedMedia", { features: [{ name: "prefers-color-scheme", value: scheme }] });
  }

  /** The texts of a column of a table. */
  column(table, n) {
    return this.get(`[...document.querySelectorAll("#${table} tbody tr")].map((tr) => tr.cells[${n}]?.textContent ?? "")`);
  }

  /** Every control that can be reached has a name that a screen reader can say. */
  async checkNames() {
    const { nodes } = await this.send("Accessibility.getFullAXTree");
    for (const { ignored, role, name } of nodes) {
      if (ignored || !["button", "textbox", "searchbox", "checkbox", "dialog", "image"].includes(role?.value)) continue;
      assert.ok(name?.value, `a ${role.value} without a name`);
    }
  }
}

const root = fileURLToPath(new URL("../../..", import.meta.url));
const temp = await mkdtemp(join(tmpdir(), "operate-check-"));
const shots = process.argv[2] ?? join(temp, "screenshots");
const load = Number(process.argv[3] ?? 20);
await mkdir(shots, { recursive: true });

/** Takes a picture of a page at each size and in each scheme: of the whole page, or of the window. */
async function picture(page, name, { sizes = { desktop: DESKTOP, phone: PHONE }, whole = true } = {}) {
  for (const [size, metrics] of Object.entries(sizes)) {
    for (const scheme of ["light", "dark"]) {
      await page.look(metrics, scheme);
      await sleep(500); // the charts are drawn again
      const beyond = await page.get(`document.documentElement.scrollWidth - document.documentElement.clientWidth`);
      assert.equal(beyond, 0, `pixels by which ${name} at ${size} size is wider than the window`);
      const { data } = await page.send("Page.captureScreenshot", { format: "png", captureBeyondViewport: whole });
      await writeFile(join(shots, `${name}-${size}-${scheme}.png`), Buffer.from(data, "base64"));
    }
  }
  await page.look(DESKTOP, "light");
}

function step(text) {
  console.log(text);
}

const running = []; // what has to be stopped, whatever happens
let failed = true;
try {
  step("Build and start the server");
  const program = join(temp, "operate");
  execFileSync("go", ["build", "-o", program, "./examples/operate"], { cwd: root, stdio: "inherit" });
  const server = await Server.start(program, "-bots", String(BOTS), "-writable");
  running.push(server);
  console.log(`  ${server.url}`);
  for (const [path, status] of [["readyz", 200], ["livez", 200], ["metrics", 200], ["debug/vars", 200], ["debug/pprof/", 200], ["", 200], ["nothing", 404]]) {
    assert.equal((await fetch(`${server.url}/${path}`)).status, status, path);
  }

  step("Open the page");
  const browser = await Browser.start();
  running.push(browser);
  const page = await Page.open(browser, `${server.url}/debug/pitaya/`);
  await page.until("says that the server is ready", `document.querySelector("#state").textContent === "ready"`);
  await page.until("knows all servers", `document.querySelectorAll("#peers tbody tr").length === 3`);
  await page.until("knows all sessions", `document.querySelector("#sessions-count").textContent.startsWith("${BOTS}")`);
  await page.until("has rates", `[...document.querySelectorAll("#routes tbody tr")].some((tr) => Number(tr.cells[2].textContent) > 1)`);
  await page.until("shows the settings that are not defaults", `document.querySelectorAll("#settings tbody tr").length > 3`);
  await page.until("counts errors", `document.querySelector("#errors").innerText.includes("GAME-TURN")`);
  await page.until("has one row for routes that do not exist", `document.querySelector("#routes").innerText.includes("unknown")`);

  step("What clients write is text");
  await page.write("#search", "onerror");
  await page.until("finds the user", `document.querySelectorAll("#sessions tbody tr").length === 1`);
  assert.deepEqual(await page.column("sessions", 1), ["<img/src=x/onerror=alert(1)>"]);
  assert.equal(await page.get(`document.querySelectorAll("img").length`), 0, "markup of a user became markup");

  step("Search");
  await page.write("#search", "NOBODY");
  await page.until("finds nobody", `document.querySelector("#sessions .empty")?.textContent === "No session is like that."`);
  await page.write("#search", "grace-");
  await page.until("finds some", `document.querySelectorAll("#sessions tbody tr").length === 5`);
  await page.write("#search", "");
  await page.until("finds all", `document.querySelectorAll("#sessions tbody tr").length === 20`);

  step("Sort");
  const sorted = (list, compare) => assert.deepEqual(list, [...list].sort(compare));
  const headed = (table, n, how) => `document.querySelector("#${table} th:nth-child(${n})").getAttribute("aria-sort") === "${how}"`;
  await page.click("#sessions th:nth-child(2) button");
  await page.until("sorts sessions by user", headed("sessions", 2, "ascending"));
  await page.until("shows them so", `document.querySelector("#sessions tbody tr").cells[1].textContent.startsWith("<img")`);
  sorted(await page.column("sessions", 1), (a, b) => (a < b ? -1 : 1));
  await page.click("#sessions th:nth-child(2) button");
  await page.until("the other way round", headed("sessions", 2, "descending"));
  await page.until("shows them so", `document.querySelector("#sessions tbody tr").cells[1].textContent.startsWith("tony")`);
  sorted(await page.column("sessions", 1), (a, b) => (a > b ? -1 : 1));
  await page.click("#sessions th:nth-child(1) button");
  await page.until("by id again", `document.querySelector("#sessions tbody tr").cells[0].textContent === "1"`);
  await page.click("#routes th:nth-child(1) button");
  await page.until("sorts routes by name", headed("routes", 1, "ascending"));
  sorted(await page.column("routes", 0), (a, b) => a.localeCompare(b));
  await page.click("#routes th:nth-child(4) button");
  await page.until("and by count", headed("routes", 4, "descending"));
  await page.checkNames();

  step(`Wait for ${load} s of load`);
  await page.until("has seen a slow client", `document.querySelector("#errors").innerText.includes("slow client")`).catch((err) => {
    if (load >= 20) throw err;
  });
  for (const end = Date.now() + load * 1000; Date.now() < end; ) await sleep(200);
  await picture(page, "page");
  await page.get("scrollTo(0, 0)");
  await picture(page, "top", { sizes: { desktop: DESKTOP }, whole: false }); // the light one is docs/debug-page.png

  step("Point at a chart");
  const { x, y } = await page.get(`(({ x, y, width, height }) => ({ x: x + width * 0.97, y: y + height / 2 }))(document.querySelector("#charts svg").getBoundingClientRect())`);
  await page.send("Input.dispatchMouseEvent", { type: "mouseMoved", x, y });
  await page.until("tells of that moment", `/ ago$/.test(document.querySelector("#charts .value").innerText)`);
  await page.send("Input.dispatchMouseEvent", { type: "mouseMoved", x: 5, y: 5 });

  step("Pause");
  await page.click("#pause");
  const before = await page.get(`document.querySelector("#facts").textContent`);
  await sleep(2500);
  assert.equal(await page.get(`document.querySelector("#facts").textContent`), before, "it goes on while it is paused");
  await page.click("#pause");

  step("More sessions");
  await page.click("#more");
  await page.until("shows more of them", `document.querySelectorAll("#sessions tbody tr").length >= ${BOTS - 1}`);

  step("Settings");
  await page.click("#all-settings");
  await page.until("shows all settings", `document.querySelectorAll("#settings tbody tr").length > 100`);
  await page.click("#all-settings");

  step("Kick");
  await page.write("#search", "onerror");
  await page.until("finds the user", `document.querySelectorAll("#sessions tbody tr").length === 1`);
  const [id] = await page.column("sessions", 0);
  await page.click("#sessions td.act button");
  await page.until("asks", `document.querySelector("#kick").open && document.querySelector("#kick-what").textContent.includes("onerror")`);
  await page.checkNames();
  await picture(page, "kick", { whole: false });
  await page.click("#kick-no");
  await page.until("has kept it", `!document.querySelector("#kick").open`);
  assert.deepEqual(await page.column("sessions", 0), [id]);
  await page.click("#sessions td.act button");
  await page.click("#kick-yes");
  await page.until("has ended it", `!document.querySelector("#sessions tbody").innerText.includes("onerror")`);
  await page.until("sees it come back", `(() => {
    const first = document.querySelector("#sessions tbody tr").cells;
    return first.length > 1 && Number(first[0].textContent) > ${id};
  })()`);
  assert.deepEqual(page.errors, [], "errors in the page");

  step("Reached under another name, and by a page that only shows");
  const other = await Server.start(program, "-bots", "3");
  running.push(other);
  const plain = await Page.open(browser, `${other.url}/debug/pitaya`); // without the slash
  await plain.until("shows sessions", `document.querySelectorAll("#sessions tbody tr").length === 3`);
  assert.equal(await plain.get(`document.querySelectorAll("#sessions button.danger").length`), 0, "buttons on a page that only shows");
  assert.deepEqual(plain.errors, [], "errors in the page");

  step("The server ends");
  plain.expected = ["ERR_CONNECTION_REFUSED", "ERR_CONNECTION_RESET", "ERR_EMPTY_RESPONSE"];
  await other.stop();
  await plain.until("says that nobody answers", `document.querySelector("#trouble").innerText.includes("No answer from the server")`);
  assert.deepEqual(plain.errors, [], "errors in the page");
  failed = false;
} catch (err) {
  console.error(err);
} finally {
  for (const what of running.reverse()) {
    await what.stop().catch((err) => {
      console.error(err);
      failed = true;
    });
  }
  // What remains is the screenshots.
  await rm(process.argv[2] ? temp : join(temp, "operate"), { force: true, recursive: true });
}
console.log(`screenshots: ${shots}`);
console.log(failed ? "FAILED" : "ok");
process.exitCode = failed ? 1 : 0;
