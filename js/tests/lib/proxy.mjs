// A TCP proxy that can do to a connection what networks do.

import { once } from "node:events";
import net from "node:net";

export class Proxy {
  #server;
  #links = new Set();
  #target;
  /** How many connections were made through it. */
  count = 0;
  /** For each new connection: how many bytes pass, {down, up}, before it is cut; or false, to refuse it. */
  plan = () => ({});

  /** @param {string} url of the game server */
  static async start(url) {
    const proxy = new Proxy();
    proxy.#target = new URL(url);
    proxy.#server = net.createServer({ pauseOnConnect: true }, (client) => proxy.#connect(client));
    proxy.#server.listen(0, "127.0.0.1");
    await once(proxy.#server, "listening");
    proxy.url = `ws://127.0.0.1:${proxy.#server.address().port}`;
    return proxy;
  }

  #connect(client) {
    this.count++;
    client.on("error", () => {});
    const plan = this.plan(this.count);
    if (!plan) {
      client.resetAndDestroy();
      return;
    }
    const server = net.connect(Number(this.#target.port), this.#target.hostname);
    server.on("error", () => {});
    client.setNoDelay(true);
    server.setNoDelay(true);
    const link = { client, server, held: false, frozen: false };
    this.#links.add(link);
    const end = () => {
      this.#links.delete(link);
      client.destroy();
      server.destroy();
    };
    client.on("close", end);
    server.on("close", end);
    this.#pipe(client, server, plan.up ?? Infinity, () => link.frozen, link);
    this.#pipe(server, client, plan.down ?? Infinity, () => link.frozen || link.held, link);
  }

  #pipe(from, to, left, stopped, link) {
    from.on("data", (chunk) => {
      if (stopped()) return; // as in a network that has lost its way: nothing comes, and nobody is told
      to.write(chunk.subarray(0, left));
      left -= chunk.length;
      if (left < 0) this.#cut(link);
    });
    from.on("end", () => to.end());
    from.resume();
  }

  #cut(link) {
    this.#links.delete(link);
    // The client gets what was sent to it, and then the end; the server a reset.
    link.client.destroySoon();
    // Node does not close a socket that is reset while it is being shut down.
    if (link.server.writableEnded) link.server.destroy();
    else link.server.resetAndDestroy();
  }

  /** Ends all connections. */
  cut() {
    for (const link of [...this.#links]) this.#cut(link);
  }

  /** Lets nothing pass from here on, on the connections that there are. */
  freeze() {
    for (const link of this.#links) link.frozen = true;
  }

  /** Lets nothing pass to the clients. */
  hold() {
    for (const link of this.#links) link.held = true;
  }

  async stop() {
    this.cut();
    this.#server.close();
    await once(this.#server, "close");
  }
}
