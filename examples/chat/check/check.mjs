// Tries the chat example as people do: it builds and starts the server, opens two pages in a headless Chromium, and
// lets them join, talk, leave, come back, and live through a restart of the server.
//
//	node examples/chat/check/check.mjs [folder for the screenshots]
//
// It needs Go, Node 20 or later and Chromium (or Chrome; CHROMIUM names the program). It ends with status 0 if each
// step went as expected and no page has reported an error, and prints where the screenshots are.

import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";

import { Browser } from "./devtools.mjs";

const TIMEOUT = 10_000; // of each step
const DESKTOP = { width: 1280, height: 800, deviceScaleFactor: 1, mobile: false };
const PHONE = { width: 390, height: 844, deviceScaleFactor: 2, mobile: true };

/** The chat server, as a process. */
class Server {
  #child;
  /** @param {string} program @param {string} http address of the page */
  static async start(program, http = "localhost:0") {
    const server = new Server();
    const child = spawn(program, ["-http", http, "-ws", "localhost:0", "-tcp", "localhost:0"], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    server.#child = child;
    const deadline = setTimeout(() => child.kill(), TIMEOUT);
    let out = "";
    for await (const chunk of child.stdout.iterator({ destroyOnReturn: false })) {
      out += chunk;
      const page = out.match(/^page\s+(http:\S+)$/m);
      if (page) server.url = page[1];
      if (/^tcp\s+\S+$/m.test(out)) break; // the last line
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

/** One person's page. */
class Page {
  /** Whether the server is down, and failing connections are no fault of the page. */
  static outage = false;
  errors = [];
  compressed = 0; // messages that came compressed

  static async open(browser, url, who) {
    const page = new Page();
    page.who = who;
    page.origin = new URL(url).host;
    page.send = await browser.newPage((method, params) => page.#event(method, params));
    for (const domain of ["Page", "Runtime", "Log", "Network", "Accessibility"]) await page.send(`${domain}.enable`);
    await page.look(DESKTOP, "light");
    await page.send("Page.navigate", { url });
    await page.until("is connected", `document.body?.dataset.state === "connected"`);
    return page;
  }

  #event(method, params) {
    const error = (text) => this.errors.push(text);
    if (method === "Runtime.exceptionThrown") {
      const { text, exception } = params.exceptionDetails;
      error(`${text} ${exception?.description ?? ""}`);
    } else if (method === "Runtime.consoleAPICalled" && ["error", "assert", "warning"].includes(params.type)) {
      error(`console.${params.type}: ${params.args.map((a) => a.value ?? a.description).join(" ")}`);
    } else if (method === "Log.entryAdded" && ["error", "warning"].includes(params.entry.level)) {
      if (!(Page.outage && params.entry.text.startsWith("WebSocket connection to"))) error(params.entry.text);
    } else if (method === "Network.requestWillBeSent" || method === "Network.webSocketCreated") {
      const url = new URL(params.url ?? params.request.url);
      if (url.host !== this.origin) error(`request to ${url}`);
    } else if (method === "Network.webSocketFrameReceived" && params.response.opcode === 2) {
      const packet = Buffer.from(params.response.payloadData, "base64");
      if (packet[0] === 4 && packet[4] & 0x10) this.compressed++;
    }
  }

  /** The value of an expression in the page. */
  async get(expression) {
    const { result, exceptionDetails } = await this.send("Runtime.evaluate", {
      expression, returnByValue: true, awaitPromise: true,
    });
    if (exceptionDetails) throw new Error(`${expression}: ${exceptionDetails.exception?.description}`);
    return result.value;
  }

  /** Waits until an expression is true. */
  async until(what, expression) {
    for (const end = Date.now() + TIMEOUT; !(await this.get(expression)); await sleep(20)) {
      if (Date.now() < end) continue;
      const state = await this.get(`document.body.innerText`);
      throw new Error(`${this.who}'s page: not seen within ${TIMEOUT} ms: ${what}\n${expression}\n--- the page:\n${state}`);
    }
    console.log(`  ${this.who}: ${what}`);
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
    await this.send("Input.insertText", { text });
  }

  async press(key, { shift = false } = {}) {
    const code = { Enter: 13, Escape: 27, Tab: 9 }[key];
    const event = { key, code: key, windowsVirtualKeyCode: code, modifiers: shift ? 8 : 0 };
    await this.send("Input.dispatchKeyEvent", { type: "keyDown", text: key === "Enter" ? "\r" : undefined, ...event });
    await this.send("Input.dispatchKeyEvent", { type: "keyUp", ...event });
  }

  async join(name, room) {
    await this.write("#name", name);
    await this.write("#room", room);
    await this.press("Enter");
  }

  async say(text) {
    await this.write("#text", text);
    await this.press("Enter");
  }

  /** Waits for a line as the last one in the log. */
  sees(text, by) {
    return this.until(`sees ${by === this.who ? "the own" : `${by}'s`} line ${JSON.stringify(text.slice(0, 40))}`, `(() => {
      const line = [...document.querySelectorAll("#log .line")].at(-1);
      return line?.querySelector(".bubble").firstChild.data === ${JSON.stringify(text)}
        && line.classList.contains("own") === ${by === this.who};
    })()`);
  }

  /** All texts in the log, oldest first. */
  texts() {
    return this.get(`[...document.querySelectorAll("#log .bubble")].map((b) => b.firstChild.data)`);
  }

  seesOnline(...names) {
    return this.until(`sees online: ${names.join(", ")}`,
      `document.querySelector("#people").checkVisibility() &&
        [...document.querySelectorAll("#people li")].map((li) => li.children[1].textContent).join() === ${JSON.stringify(names.join())}`);
  }

  async look(metrics, scheme) {
    await this.send("Emulation.setDeviceMetricsOverride", metrics);
    await this.send("Emulation.setEmulatedMedia", { features: [{ name: "prefers-color-scheme", value: scheme }] });
  }

  /** Every control that can be reached has a name that a screen reader can say. */
  async checkNames() {
    const { nodes } = await this.send("Accessibility.getFullAXTree");
    for (const { ignored, role, name } of nodes) {
      if (ignored || !["button", "textbox", "log", "navigation", "complementary"].includes(role?.value)) continue;
      assert.ok(name?.value, `${this.who}: a ${role.value} without a name`);
    }
  }
}

const root = fileURLToPath(new URL("../../..", import.meta.url));
const temp = await mkdtemp(join(tmpdir(), "chat-check-"));
const shots = process.argv[2] ?? join(temp, "screenshots");
await mkdir(shots, { recursive: true });

/** Takes a picture of a page for each size and scheme. */
async function picture(page, name, sizes = { desktop: DESKTOP, phone: PHONE }) {
  for (const [size, metrics] of Object.entries(sizes)) {
    for (const scheme of ["light", "dark"]) {
      await page.look(metrics, scheme);
      await sleep(300); // transitions
      const beyond = await page.get(`(({ scrollWidth, scrollHeight }) =>
        [scrollWidth - innerWidth, scrollHeight - innerHeight])(document.documentElement)`);
      assert.deepEqual(beyond, [0, 0], `pixels by which ${name} at ${size} size is wider and higher than the window`);
      const { data } = await page.send("Page.captureScreenshot", { format: "png" });
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
  const program = join(temp, "chat");
  execFileSync("go", ["build", "-o", program, "./examples/chat"], { cwd: root, stdio: "inherit" });
  let server = await Server.start(program);
  running.push({ stop: () => server.stop() });
  console.log(`  ${server.url}`);
  const browser = await Browser.start();
  running.push(browser);

  step("Open two pages");
  const ada = await Page.open(browser, server.url, "Ada");
  const grace = await Page.open(browser, server.url, "Grace");
  const pages = [ada, grace];

  step("Join the same room");
  await ada.join("Ada", "lobby");
  await ada.seesOnline("Ada");
  await grace.until("sees the room in the form", `document.querySelector(".chips")?.innerText.includes("lobby")`);
  await picture(grace, "1-join");
  await grace.checkNames();
  await grace.join("ada", "lobby");
  await grace.until("is told that the name is taken", `document.querySelector("#join-error").textContent.includes("Ada already")`);
  await grace.join("  Grace ", "LOBBY");
  for (const page of pages) await page.seesOnline("Ada", "Grace");
  await ada.until("is told that Grace joined", `document.querySelector("#log").innerText.includes("Grace joined")`);

  step("Chat both ways");
  const said = [];
  const chat = async (from, text) => {
    await from.say(text);
    said.push(text);
    for (const page of pages) await page.sees(text, from.who);
  };
  await chat(ada, "Hello Grace! Is the compiler warm?");
  await chat(grace, "Good morning Ada. Warm and humming. 🐛➡️🦋");
  await chat(ada, "<img src=x onerror=alert(1)> is just text here");
  assert.equal(await grace.get(`document.querySelectorAll("#log img").length`), 0, "markup of a user became markup");
  await grace.write("#text", "It has");
  await grace.press("Enter", { shift: true });
  await grace.send("Input.insertText", { text: "two lines" });
  await grace.press("Enter");
  said.push("It has\ntwo lines");
  for (const page of pages) await page.sees(said.at(-1), "Grace");
  await chat(ada, "Grüße, γειά σου, שלום, 你好: every alphabet gets through.");
  // Long enough for the server to compress it, with a short one behind it that must not overtake it.
  const long = "The Analytical Engine weaves algebraical patterns just as the Jacquard loom weaves flowers and leaves. ".repeat(5).trim();
  await ada.say(long);
  await chat(ada, "Short and sweet.");
  said.splice(-1, 0, long);
  for (const page of pages) {
    assert.deepEqual(await page.texts(), said, `${page.who}'s log`);
    assert.ok(page.compressed > 0, `no message to ${page.who} was compressed`);
  }
  const [own, other] = await ada.get(`["own", "first:not(.own)"].map((c) =>
    document.querySelector("#log .line." + c + " .bubble").getBoundingClientRect()).map(({ left, right }) => ({ left, right }))`);
  assert.ok(own.right > other.right && own.left > other.left, "own messages stand on the right");
  await ada.checkNames();
  await picture(ada, "2-chat");

  step("Rooms and people on a phone");
  await ada.look(PHONE, "light");
  await ada.click("#side-button");
  await ada.until("sees the drawer", `document.querySelector("#side").contains(document.activeElement)`);
  await picture(ada, "3-drawer", { phone: PHONE });
  await ada.look(PHONE, "light");
  await ada.press("Escape");
  await ada.until("has closed the drawer", `document.activeElement.id === "side-button"`);
  await ada.look(DESKTOP, "light");

  step("Unread messages in the title");
  const hide = (hidden) => `Object.defineProperty(document, "hidden", { configurable: true, value: ${hidden} });
    document.dispatchEvent(new Event("visibilitychange"))`;
  await grace.get(hide(true));
  await chat(ada, "Are you there?");
  await chat(ada, "Grace?");
  await grace.until("has a title with the count", `document.title === "(2) lobby – Pitaya chat"`);
  await grace.get(hide(false));
  await grace.until("has a title without it", `document.title === "lobby – Pitaya chat"`);

  step("Another room and back");
  await grace.write("#other-room", "Garden");
  await grace.press("Enter");
  await grace.seesOnline("Grace");
  await ada.seesOnline("Ada");
  await ada.until("sees both rooms", `document.querySelectorAll("#rooms li").length === 2`);
  assert.deepEqual(await grace.texts(), [], "the new room's log");
  await grace.click("#rooms button:not([aria-current])");
  for (const page of pages) await page.seesOnline("Ada", "Grace");
  assert.deepEqual(await grace.texts(), said, "Grace's log, back in the first room");

  step("Leave and come back");
  await grace.click("#leave-button");
  await ada.seesOnline("Ada");
  await ada.until("is told that Grace left", `document.querySelector("#log").innerText.includes("Grace left")`);
  await grace.until("sees the form, with name and room remembered",
    `document.querySelector("#name").checkVisibility() && document.querySelector("#room").value === "lobby" && document.querySelector("#name").value === "Grace"`);
  await ada.say("She has left.");
  await ada.sees("She has left.", "Ada");
  said.push("She has left.");
  await grace.press("Enter");
  for (const page of pages) await page.seesOnline("Ada", "Grace");
  assert.deepEqual(await grace.texts(), said, "Grace's log after coming back");
  await chat(grace, "Back again, and I have read it.");

  step("Go to another page, and close one");
  const third = await Page.open(browser, server.url, "Linus");
  await third.join("Linus", "lobby");
  await ada.seesOnline("Ada", "Grace", "Linus");
  await third.send("Page.navigate", { url: "about:blank" });
  await ada.seesOnline("Ada", "Grace");
  const fourth = await Page.open(browser, server.url, "Edsger");
  await fourth.join("Edsger", "lobby");
  await ada.seesOnline("Ada", "Edsger", "Grace");
  await fourth.send("Page.close");
  await ada.seesOnline("Ada", "Grace");

  step("Stop the server");
  Page.outage = true;
  await server.stop();
  for (const page of pages) {
    await page.until("sees that the connection is lost", `/Reconnecting in \\d+ s/.test(document.querySelector("#trouble").innerText)`);
  }
  await picture(ada, "4-offline");
  step("Start it again");
  server = await Server.start(program, new URL(server.url).host);
  for (const page of pages) {
    await page.until("is connected again", `document.body.dataset.state === "connected" && document.querySelector("#trouble").hidden`);
  }
  Page.outage = false;
  for (const page of pages) await page.seesOnline("Ada", "Grace");
  await chat(grace, "That was a short night.");
  await chat(ada, "And a good morning again.");
  for (const page of pages) assert.deepEqual(await page.texts(), said, `${page.who}'s log after the restart`);
  await picture(grace, "5-restarted");

  for (const page of [...pages, third, fourth]) assert.deepEqual(page.errors, [], `errors in ${page.who}'s page`);
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
  await rm(process.argv[2] ? temp : join(temp, "chat"), { force: true, recursive: true });
}
console.log(`screenshots: ${shots}`);
console.log(failed ? "FAILED" : "ok");
process.exitCode = failed ? 1 : 0;
