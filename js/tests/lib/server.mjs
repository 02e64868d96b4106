// The server under test, as a process of its own.

import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

let built;

/** The program: the one that PITAYA_JS_SERVER names, or one that is built and lives as long as this process. */
function program() {
  if (process.env.PITAYA_JS_SERVER) return process.env.PITAYA_JS_SERVER;
  if (!built) {
    const temp = mkdtempSync(join(tmpdir(), "pitaya-js-"));
    process.on("exit", () => rmSync(temp, { recursive: true, force: true }));
    built = join(temp, process.platform === "win32" ? "server.exe" : "server");
    const root = fileURLToPath(new URL("../../..", import.meta.url));
    execFileSync("go", ["build", "-o", built, "./js/tests/server"], { cwd: root, stdio: "inherit" });
  }
  return built;
}

export class Server {
  #child;

  /** @param {...string} flags of the program */
  static async start(...flags) {
    const server = new Server();
    server.#child = spawn(program(), flags, { stdio: ["pipe", "pipe", "inherit"] });
    const lines = createInterface({ input: server.#child.stdout });
    const ended = once(server.#child, "exit").then(([code]) => {
      throw new Error(`the server has ended with status ${code}`);
    });
    const [line] = await Promise.race([once(lines, "line"), ended]);
    ended.catch(() => {});
    Object.assign(server, JSON.parse(line)); // json, plain, protobuf, page
    return server;
  }

  /** Ends it as it ends in production: what is being handled is answered. */
  async stop() {
    if (this.#child.exitCode !== null) return;
    const exit = once(this.#child, "exit");
    this.#child.stdin.end();
    const [code, signal] = await exit;
    if (code !== 0) throw new Error(`the server ended with status ${code ?? signal}`);
  }

  /** Ends it as a crash does. */
  async kill() {
    const exit = once(this.#child, "exit");
    this.#child.kill("SIGKILL");
    await exit;
  }
}
