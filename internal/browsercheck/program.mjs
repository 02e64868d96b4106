// A program of this repository, as a process.

import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";

import { TIMEOUT } from "./page.mjs";

const root = fileURLToPath(new URL("../..", import.meta.url));

/** Builds the program of a folder, as "./examples/chat", into a file. */
export function build(folder, file) {
  execFileSync("go", ["build", "-o", file, folder], { cwd: root, stdio: "inherit" });
}

export class Program {
  #child;

  /**
   * Starts it, and waits until it has printed what is asked for.
   *
   * @param {string} file
   * @param {string[]} flags
   * @param {Record<string, RegExp>} wanted what becomes a property each: the first group of the match
   */
  static async start(file, flags, wanted) {
    const program = new Program();
    const child = spawn(file, flags, { stdio: ["ignore", "pipe", "inherit"] });
    program.#child = child;
    const deadline = setTimeout(() => child.kill(), TIMEOUT);
    let out = "";
    for await (const chunk of child.stdout.iterator({ destroyOnReturn: false })) {
      out += chunk;
      for (const [name, pattern] of Object.entries(wanted)) program[name] = out.match(pattern)?.[1];
      if (Object.keys(wanted).every((name) => program[name] !== undefined)) break;
    }
    clearTimeout(deadline);
    for (const name in wanted) assert.ok(program[name] !== undefined, `the program printed no ${name}: ${out}`);
    child.stdout.resume();
    return program;
  }

  /** Ends it as an operator would, and checks that it ends well. */
  async stop() {
    if (this.#child.exitCode !== null) return;
    const exit = once(this.#child, "exit");
    this.#child.kill("SIGTERM");
    const deadline = setTimeout(() => this.#child.kill("SIGKILL"), TIMEOUT);
    const ended = await exit;
    clearTimeout(deadline);
    assert.deepEqual(ended, [0, null], "how the program ended");
  }
}
