// As much of the Chrome DevTools protocol as checks of pages need, over the browser's pipe (file descriptors 3 and 4), so
// without any package.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

const PROGRAMS = ["chromium", "chromium-browser", "google-chrome-stable", "google-chrome", "chrome"];

const FLAGS = [
  "--headless", "--remote-debugging-pipe", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
  "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
  "--lang=en-GB",
];

/** A headless browser of its own, with a fresh profile. */
export class Browser {
  #child;
  #profile;
  #nextID = 1;
  #waiting = new Map(); // id of a command: its promise
  #sessions = new Map(); // session id: handler of its events

  static async start() {
    const browser = new Browser();
    browser.#profile = await mkdtemp(join(tmpdir(), "browser-check-"));
    const args = [...FLAGS, `--user-data-dir=${browser.#profile}`, "about:blank"];
    const programs = process.env.CHROMIUM ? [process.env.CHROMIUM] : PROGRAMS;
    for (const program of programs) {
      const child = spawn(program, args, { stdio: ["ignore", "ignore", "ignore", "pipe", "pipe"] });
      try {
        await once(child, "spawn");
      } catch (err) {
        if (err.code === "ENOENT") continue;
        throw err;
      }
      browser.#attach(child);
      return browser;
    }
    await rm(browser.#profile, { recursive: true });
    throw new Error(`no browser: install one of ${programs.join(", ")}, or name it in CHROMIUM`);
  }

  #attach(child) {
    this.#child = child;
    let rest = Buffer.alloc(0);
    child.stdio[4].on("data", (chunk) => {
      // Messages are JSON, each followed by a zero byte.
      rest = Buffer.concat([rest, chunk]);
      for (let end; (end = rest.indexOf(0)) >= 0; rest = rest.subarray(end + 1)) {
        this.#receive(JSON.parse(rest.subarray(0, end).toString()));
      }
    });
    const gone = () => {
      for (const { reject } of this.#waiting.values()) reject(new Error("the browser has ended"));
      this.#waiting.clear();
    };
    child.on("exit", gone);
    child.stdio[3].on("error", gone);
  }

  #receive({ id, result, error, method, params, sessionId }) {
    if (id === undefined) {
      this.#sessions.get(sessionId)?.(method, params);
      return;
    }
    const { resolve, reject, name } = this.#waiting.get(id);
    this.#waiting.delete(id);
    if (error) reject(new Error(`${name}: ${error.message}`));
    else resolve(result);
  }

  /** Sends a command and returns its result. */
  send(method, params = {}, sessionId = undefined) {
    const id = this.#nextID++;
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, { resolve, reject, name: method });
      this.#child.stdio[3].write(JSON.stringify({ id, method, params, sessionId }) + "\0");
    });
  }

  /** Opens an empty page in a profile of its own. onEvent gets the events of the domains that are enabled. */
  async newPage(onEvent) {
    const { browserContextId } = await this.send("Target.createBrowserContext");
    const { targetId } = await this.send("Target.createTarget", { url: "about:blank", browserContextId });
    const { sessionId } = await this.send("Target.attachToTarget", { targetId, flatten: true });
    this.#sessions.set(sessionId, onEvent);
    return (method, params) => this.send(method, params, sessionId);
  }

  async stop() {
    const ended = this.#child.exitCode === null ? once(this.#child, "exit") : null;
    this.send("Browser.close").catch(() => {});
    const timer = setTimeout(() => this.#child.kill("SIGKILL"), 10_000);
    await ended;
    clearTimeout(timer);
    await rm(this.#profile, { recursive: true, force: true, maxRetries: 10 });
  }
}
