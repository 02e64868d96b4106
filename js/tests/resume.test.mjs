// Sessions that outlive their connections: pitaya.js against a real server, through a proxy that cuts.

import assert from "node:assert/strict";
import { after, afterEach, before, describe, test } from "node:test";
import { randomInt } from "node:crypto";

import { Client, Code, DisconnectedError } from "../pitaya.js";
import { Storage, dial, next, pushed, random, soon, watched, withResolvers } from "./lib/client.mjs";
import { Proxy } from "./lib/proxy.mjs";
import { Server } from "./lib/server.mjs";
import { WebSocket } from "./lib/websocket.mjs";

/** @type {Server} */ let server;
/** @type {Proxy} */ let proxy;
let key = 0; // for Tick and Hold

before(async () => {
  server = await Server.start();
  proxy = await Proxy.start(server.json);
});
after(async () => {
  await proxy?.stop();
  await server?.stop();
});
afterEach(() => {
  proxy.plan = () => ({});
});

const options = { resume: true };

/** Whether the server has ended that session. */
async function ended(t, id) {
  const other = await dial(t, server.json);
  await other.request("test.ended", { ID: id });
}

describe("100 disconnects", () => {
  // Where the connection is cut is random: in handshakes, in frames, between them, in either direction. What the server
  // has written by then arrives, or does not.
  for (const storage of [undefined, new Storage()]) {
    test(`no push is lost, doubled or out of order${storage ? ", also over reloads of the page" : ""}`, async (t) => {
      const seed = Number(process.env.PITAYA_JS_SEED ?? randomInt(2 ** 31));
      t.diagnostic(`PITAYA_JS_SEED=${seed}`);
      const dice = random(seed);
      const resume = storage ? { storage } : true;
      const got = [];
      const stop = `tick ${++key}`;
      const last = withResolvers();
      let resumed = 0;
      let enough = 0; // pushes, after which the connection is cut if it still is there
      let client;
      const load = async () => {
        client = watched(t);
        client.on("onTick", ({ n }) => {
          got.push(n);
          if (got.length === enough) proxy.cut();
        });
        client.once("onTicked", ({ n }) => last.resolve(n));
        client.addEventListener("connected", ({ detail }) => {
          if (detail.resumed) resumed++;
        });
        await client.connect(proxy.url, { WebSocket, resume, reconnect: { first: true, minDelay: 2, maxDelay: 10 } });
      };
      await load();
      const { ID } = await client.request("test.session");
      await client.request("test.tick", { Key: stop });
      const cuts = proxy.count;
      while (proxy.count < cuts + 100) {
        proxy.plan = () => {
          const how = dice();
          if (how < 0.1) return false;
          if (how < 0.3) return { up: Math.floor(dice() * 600) };
          return { down: Math.floor(dice() * (how < 0.6 ? 600 : 12_000)) };
        };
        if (client.state !== "connected") await next(client, "connected");
        enough = got.length + Math.ceil(dice() * 60);
        if (storage && dice() < 0.2) {
          // The page goes in the middle of it all, and its sockets with it. Another one comes.
          await pushed(client, "onTick");
          client.close({ keepSession: true });
          await load();
        } else {
          await next(client, "reconnecting");
        }
      }
      enough = 0;
      proxy.plan = () => ({});
      proxy.cut();
      if (client.state !== "connected") await next(client, "connected");
      const other = await dial(t, server.json);
      await other.request("test.release", { Key: stop });
      const n = await soon(last.promise, "the last push");
      t.diagnostic(`${proxy.count - cuts} connections, resumed ${resumed} times, ${n} pushes`);
      assert.deepEqual(got, Array.from({ length: n }, (_, i) => i + 1));
      assert.equal((await client.request("test.session")).ID, ID);
      assert.ok(client.states.every(({ state, resumed }, i) => state !== "connected" || resumed || (!storage && i === 1)), "each connection but the first resumes");
      assert.ok(resumed > 20, `resumed ${resumed} times`);
    });
  }
});

describe("a session", () => {
  test("is kept where the client asks for it, and the server does it", async (t) => {
    const client = await dial(t, server.json, options);
    assert.equal(client.resumable, true);
    assert.deepEqual([client.states.at(-1).resumed, client.states.at(-1).window], [false, 30]);
    const user = await client.request("test.user");
    assert.deepEqual(user ?? {}, {}, "the application does not see what the client and the library agree on");
    const other = await dial(t, server.json);
    assert.equal(other.resumable, false);
    const elsewhere = await dial(t, server.plain, options);
    assert.equal(elsewhere.resumable, false);
  });

  test("of an end of the connection, of a reset, and of silence", async (t) => {
    const client = await dial(t, proxy.url, options);
    const { ID } = await client.request("test.session");
    for (const lose of [() => proxy.cut(), () => proxy.freeze()]) {
      const back = next(client, "connected");
      lose();
      assert.equal((await back).resumed, true);
      assert.equal((await client.request("test.session")).ID, ID);
    }
    assert.match(client.states.findLast((s) => s.error).error.message, /silent/);
  });

  test("ends at once with close", async (t) => {
    const storage = new Storage();
    const client = await dial(t, server.json, { resume: { storage } });
    const { ID } = await client.request("test.session");
    assert.equal(storage.items.size, 1);
    client.close();
    assert.equal(storage.items.size, 0);
    await ended(t, ID);
  });

  test("does not end with a page, or a close that keeps it", async (t) => {
    const storage = new Storage();
    const page = await dial(t, server.json, { resume: { storage } });
    const { ID } = await page.request("test.session");
    await page.request("test.push", { Route: "onTick", Count: 3 });
    const hold = `hold ${++key}`;
    const asked = page.request("test.hold", { Key: hold });
    page.close({ keepSession: true });
    await assert.rejects(asked, (err) => err instanceof DisconnectedError && !err.unsent);
    const other = await dial(t, server.json, { resume: { storage } });
    assert.equal(other.states.at(-1).resumed, true);
    const same = other.request("test.session"); // in its turn
    const witness = await dial(t, server.json);
    await witness.request("test.release", { Key: hold });
    assert.equal((await same).ID, ID);
  });

  test("is taken off the connection that the server still has", async (t) => {
    const storage = new Storage();
    const first = await dial(t, server.json, { resume: { storage }, reconnect: false });
    const { ID } = await first.request("test.session");
    const closed = next(first, "closed");
    const second = await dial(t, server.json, { resume: { storage } });
    assert.equal(second.states.at(-1).resumed, true);
    assert.equal((await second.request("test.session")).ID, ID);
    await closed;
  });

  test("goes with a kick, and the client stays away", async (t) => {
    const client = await dial(t, server.json, options);
    const { ID } = await client.request("test.session");
    const kicked = next(client, "kicked");
    await assert.rejects(client.request("test.kick", { Reason: "enough" }), { code: Code.CLOSED, message: /enough/ });
    assert.equal((await kicked).reason, "enough");
    assert.equal(client.resumable, false);
    await ended(t, ID);
    await client.connect(server.json, { WebSocket, resume: true });
    assert.notEqual((await client.request("test.session")).ID, ID);
  });

  test("whose pushes are not kept any more is another one", async (t) => {
    const small = await Server.start("-kept", "5");
    t.after(() => small.stop());
    const through = await Proxy.start(small.json);
    t.after(() => through.stop());
    const client = await dial(t, through.url, options);
    const got = [];
    client.on("onTick", ({ n }) => got.push(n));
    const { ID } = await client.request("test.session");
    // The answer to this shows that the server has sent the pushes. They do not arrive.
    const witness = await dial(t, small.json);
    const stop = `tick ${++key}`;
    through.hold();
    client.request("test.push", { Route: "onTick", Count: 50 }).catch(() => {});
    client.request("test.hold", { Key: stop }, { timeout: 0 }).catch(() => {});
    await witness.request("test.holding", { Key: stop });
    const back = next(client, "connected");
    through.cut();
    const { resumed, reason } = await back;
    assert.deepEqual([resumed, reason], [false, "gap"]);
    assert.notEqual((await client.request("test.session")).ID, ID);
    assert.deepEqual(got, []);
    // Counting has begun again.
    await client.request("test.push", { Route: "onTick", Count: 2 });
    const again = next(client, "connected");
    through.cut();
    assert.equal((await again).resumed, true);
    assert.deepEqual(got, [1, 2]);
  });

  test("is another one for a client that can do other things than before", async (t) => {
    const storage = new Storage();
    const page = await dial(t, server.json, { resume: { storage } });
    await page.request("test.echo"); // a session begins with the client's acknowledgement, and that has arrived now
    page.close({ keepSession: true });
    const inflater = globalThis.DecompressionStream;
    t.after(() => (globalThis.DecompressionStream = inflater));
    delete globalThis.DecompressionStream;
    const { Client: Plain, canInflate } = await import("../pitaya.js?without-inflate");
    assert.equal(canInflate, false);
    const client = new Plain();
    t.after(() => client.close());
    const connected = next(client, "connected");
    await client.connect(server.json, { WebSocket, resume: { storage } });
    assert.equal((await connected).reason, "changed");
    assert.equal((await client.request("test.big", { Size: 10_000 })).length, 10_000);
  });

  test("of a server that crashed is unknown to the next one", async (t) => {
    let crashing = await Server.start();
    const client = await dial(t, crashing.json, { ...options, reconnect: { minDelay: 5, maxDelay: 20 } });
    await client.request("test.push", { Route: "onTick", Count: 3 });
    const waiting = next(client, "reconnecting").then(() => client.request("test.echo", 1, { whileAway: "wait" }));
    // At once: the request may fail before Server.start has returned.
    const refused = assert.rejects(waiting, { unsent: true, message: /could not be resumed/ });
    const back = next(client, "connected");
    await crashing.kill();
    crashing = await Server.start("-json", new URL(crashing.json).host);
    t.after(() => crashing.stop());
    await refused;
    const { resumed, reason } = await back;
    assert.deepEqual([resumed, reason], [false, "unknown"]);
    assert.equal(client.resumable, true);
  });

  test("of a server that ended is not asked for", async (t) => {
    let ending = await Server.start();
    const storage = new Storage();
    const client = await dial(t, ending.json, { resume: { storage } });
    const back = next(client, "connected");
    await ending.stop();
    assert.equal(storage.items.size, 0);
    ending = await Server.start("-json", new URL(ending.json).host);
    t.after(() => ending.stop());
    const { resumed, reason } = await back;
    assert.deepEqual([resumed, reason], [false, undefined]);
  });
});

describe("requests", () => {
  test("that were on their way are not made again", async (t) => {
    const client = await dial(t, proxy.url, options);
    const hold = `hold ${++key}`;
    const holding = pushed(client, "onHold");
    const asked = client.request("test.hold", { Key: hold });
    await holding;
    const lost = next(client, "reconnecting");
    proxy.cut();
    await assert.rejects(asked, (err) => err instanceof DisconnectedError && err.code === Code.CLOSED && !err.unsent);
    await lost;
    // They are answered in order, so this one waits for the handler of the one that is lost, and gets its own answer.
    const after = client.request("test.echo", "after", { whileAway: "wait" });
    if (client.state !== "connected") await next(client, "connected");
    const other = await dial(t, server.json);
    await other.request("test.release", { Key: hold });
    assert.equal(await after, "after");
  });

  test("that wait are made when the session is back, in order", async (t) => {
    const client = await dial(t, proxy.url, { ...options, whileAway: "wait" });
    await client.request("test.echo");
    const lost = next(client, "reconnecting");
    proxy.cut();
    await lost;
    const answers = Array.from({ length: 20 }, (_, i) => client.request("test.echo", i));
    const done = [];
    answers.forEach((answer) => answer.then((n) => done.push(n)));
    await Promise.all(answers);
    assert.deepEqual(done, Array.from({ length: 20 }, (_, i) => i));
    assert.equal(client.states.at(-1).resumed, true);
  });
});
