// What servers and networks do: pitaya.js against a real server. What concerns resumption is in resume.test.mjs.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";

import { Code, DisconnectedError, Packet, PacketReader, PitayaError } from "../pitaya.js";
import { dial, next, pushed, soon, watched, withResolvers } from "./lib/client.mjs";
import { Proxy } from "./lib/proxy.mjs";
import { Server } from "./lib/server.mjs";
import { WebSocket } from "./lib/websocket.mjs";

/** @type {Server} */ let server;
before(async () => {
  server = await Server.start();
});
after(() => server?.stop());

/** A WebSocket class that keeps the packets in either direction. */
function recorder() {
  const got = { sent: [], received: [], onSent: () => {}, onReceived: () => {} };
  class Recorder extends WebSocket {
    constructor(url) {
      super(url);
      const reader = new PacketReader();
      let handler = null;
      Object.defineProperty(this, "onmessage", {
        set: (fn) => (handler = fn),
        get: () => (event) => {
          const packets = reader.push(new Uint8Array(event.data));
          got.received.push(...packets);
          handler?.(event);
          packets.forEach((packet) => got.onReceived(packet));
        },
      });
    }
    send(data) {
      const [packet] = new PacketReader().push(data);
      got.sent.push(packet);
      super.send(data);
      got.onSent(packet);
    }
  }
  return { Recorder, got };
}

describe("messages", () => {
  test("requests, notifies and pushes, as JSON", async (t) => {
    const client = await dial(t, server.json);
    assert.equal(client.serializer, "json");
    for (const value of [{ a: [1, "ä", null] }, "text", 7, null, []]) assert.deepEqual(await client.request("test.echo", value), value);
    const note = pushed(client, "onNote");
    client.notify("test.note", { n: 1 });
    assert.deepEqual(await note, { n: 1 });
    assert.deepEqual(await client.request("test.größe", "über"), "über");
  });

  test("the server sees the handshake", async (t) => {
    const client = await dial(t, server.json, { user: { name: "Ada", age: 36 } });
    assert.deepEqual(await client.request("test.user"), { name: "Ada", age: 36 });
  });

  for (const kind of ["json", "plain"]) {
    test(`${kind}: routes, ${kind === "json" ? "as codes" : "in full"}`, async (t) => {
      const { Recorder, got } = recorder();
      const client = await dial(t, server[kind], { WebSocket: Recorder });
      await client.request("test.echo", 1);
      const tick = pushed(client, "onTick");
      await client.request("test.push", { Route: "onTick", Count: 1 });
      assert.deepEqual(await tick, { n: 1 });
      const flags = (list, type) => list.filter((p) => p.type === Packet.DATA && ((p.body[0] >> 1) & 7) === type).map((p) => p.body[0] & 1);
      assert.deepEqual(flags(got.sent, 0), kind === "json" ? [1, 0] : [0, 0]);
      assert.deepEqual(flags(got.received, 3), kind === "json" ? [1] : [0]);
    });
  }

  test("compressed ones, in their order among the others", async (t) => {
    const { Recorder, got } = recorder();
    const client = await dial(t, server.json, { WebSocket: Recorder });
    const ticks = [];
    client.on("onTick", ({ n, text = "" }) => ticks.push([n, text.length]));
    await client.request("test.push", { Route: "onTick", Count: 30, Big: 50_000 });
    assert.deepEqual(ticks, Array.from({ length: 30 }, (_, i) => [i + 1, (i + 1) % 3 ? 0 : 50_000]));
    assert.equal((await client.request("test.big", { Size: 20_000 })).length, 20_000);
    assert.equal(got.received.filter((p) => p.type === Packet.DATA && p.body[0] & 0x10).length, 11);
  });

  test("payloads as bytes, for protobuf", async (t) => {
    const wrong = watched(t);
    await assert.rejects(wrong.connect(server.protobuf, { WebSocket }), { message: /protobuf.*raw/ });
    const client = await dial(t, server.protobuf, { raw: true });
    assert.equal(client.serializer, "protobuf");
    const bytes = Uint8Array.of(8, 1, 18, 0);
    assert.deepEqual(await client.request("test.echo", bytes), bytes);
    const note = pushed(client, "onNote");
    client.notify("test.note", bytes);
    assert.deepEqual(await note, bytes);
    await assert.rejects(client.request("test.fail", bytes), { code: "TEST-1", message: "on purpose", metadata: { why: "asked for" } });
  });
});

describe("errors", () => {
  test("of handlers and of the library", async (t) => {
    const client = await dial(t, server.json);
    await assert.rejects(client.request("test.fail"), (err) => {
      assert.ok(err instanceof PitayaError && !(err instanceof DisconnectedError));
      assert.deepEqual([err.code, err.message, err.metadata], ["TEST-1", "on purpose", { why: "asked for" }]);
      return true;
    });
    await assert.rejects(client.request("test.nothing"), { code: "PIT-404" });
    await assert.rejects(client.request("test.big", "no object"), { code: Code.BAD_REQUEST });
    assert.equal(client.state, "connected");
  });

  test("of time, and of signals", async (t) => {
    const client = await dial(t, server.json);
    const other = await dial(t, server.json);
    await assert.rejects(client.request("test.hold", { Key: "a" }, { timeout: 20 }), { code: Code.TIMEOUT, unsent: false });
    const aborter = new AbortController();
    const aborted = client.request("test.echo", 1, { signal: aborter.signal });
    aborter.abort();
    await assert.rejects(aborted, { name: "AbortError" });
    await other.request("test.release", { Key: "a" });
    assert.equal(await client.request("test.echo", 2), 2, "the answers that nobody waits for find nobody");
  });

  test("of addresses where nobody is", async (t) => {
    const gone = await Server.start();
    await gone.stop();
    const client = watched(t);
    await assert.rejects(client.connect(gone.json, { WebSocket }), { code: Code.CLOSED });
    await assert.rejects(client.connect("http://127.0.0.1", { WebSocket }), { code: Code.CLOSED, message: /cannot connect/ });
    assert.equal(client.state, "closed");
  });
});

describe("connections", () => {
  test("live as long as there are heartbeats", async (t) => {
    const { Recorder, got } = recorder();
    const client = await dial(t, server.json, { WebSocket: Recorder });
    // The interval is 1 s: after three of the server's it would long have closed a silent client.
    const third = withResolvers();
    let beats = 0;
    got.onReceived = ({ type }) => type === Packet.HEARTBEAT && ++beats === 3 && third.resolve();
    await soon(third.promise, "three heartbeats");
    assert.equal(client.state, "connected");
    assert.ok(got.sent.filter((p) => p.type === Packet.HEARTBEAT).length >= 2);
  });

  test("that fall silent are given up, and made again", async (t) => {
    const proxy = await Proxy.start(server.plain);
    t.after(() => proxy.stop());
    const client = await dial(t, proxy.url);
    proxy.freeze();
    const asked = client.request("test.echo", 1);
    asked.catch(() => {});
    const back = next(client, "connected");
    assert.match((await next(client, "reconnecting")).error.message, /silent/);
    await assert.rejects(asked, (err) => err instanceof DisconnectedError && !err.unsent);
    assert.equal((await back).resumed, false);
    assert.equal(await client.request("test.echo", 2), 2);
  });

  test("are tried again until there is a server", async (t) => {
    const proxy = await Proxy.start(server.plain);
    t.after(() => proxy.stop());
    proxy.plan = (n) => n > 5 && {};
    const client = await dial(t, proxy.url, { reconnect: { first: true, minDelay: 2, maxDelay: 5 }, whileAway: "wait" });
    assert.equal(proxy.count, 6);
    assert.deepEqual([...new Set(client.states.map((s) => s.state))], ["connecting", "reconnecting", "connected"]);
    assert.equal(await client.request("test.echo", 1), 1);
  });

  test("are not made again after a kick", async (t) => {
    const proxy = await Proxy.start(server.json);
    t.after(() => proxy.stop());
    const client = await dial(t, proxy.url);
    const kicked = next(client, "kicked");
    await assert.rejects(client.request("test.kick", { Reason: "cheating" }), { code: Code.CLOSED, message: "kicked: cheating" });
    assert.equal((await kicked).reason, "cheating");
    await assert.rejects(client.request("test.echo", 1, { whileAway: "wait" }), { unsent: true });
    assert.equal(proxy.count, 1);
  });

  test("to a server that ends lose no request", async (t) => {
    let ending = await Server.start();
    const { Recorder, got } = recorder();
    const client = await dial(t, ending.json, { WebSocket: Recorder });
    const holding = pushed(client, "onHold");
    const asked = client.request("test.last"); // is answered when the server has been told to end
    await holding;
    const parted = withResolvers();
    let unsent, waiting;
    got.onSent = ({ type }) => {
      if (type !== Packet.ACK) return;
      got.onSent = () => {};
      // Behind this ack nothing is handled any more.
      queueMicrotask(() => {
        unsent = client.request("test.echo", "late");
        waiting = client.request("test.echo", "later", { whileAway: "wait" });
        unsent.catch(() => {});
        parted.resolve();
      });
    };
    const stopped = ending.stop();
    assert.equal(await soon(asked, "the last answer"), "last");
    await soon(parted.promise, "being asked for the last message");
    await assert.rejects(unsent, (err) => err instanceof DisconnectedError && err.unsent && /the server ends/.test(err.message));
    await stopped;
    ending = await Server.start("-json", new URL(ending.json).host);
    t.after(() => ending.stop());
    assert.equal(await soon(waiting, "the answer of the next server"), "later");
  });
});
