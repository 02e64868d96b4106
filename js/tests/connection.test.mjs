// Connections, from the handshake to the end: the client and a server made of bytes.

import assert from "node:assert/strict";
import { afterEach, beforeEach, describe, mock, test } from "node:test";
import { deflateSync } from "node:zlib";

import { Client, Code, DisconnectedError, Packet, PitayaError, ProtocolError, encodePacket } from "../pitaya.js";
import {
  FakeSocket, advance, bytes, concat, connected, connecting, data, freeze, handshakeOf, hex, json, last, push, response, setUp,
  sockets, tearDown, utf8,
} from "./lib/fake.mjs";

beforeEach(setUp);
afterEach(tearDown);

describe("handshake", () => {
  test("says what the client can do", async () => {
    const { done } = connecting({ user: { name: "ada" }, sys: { clientVersion: "2.1" } });
    last().welcome();
    await done;
    const { sys, user } = handshakeOf(last());
    assert.equal(sys.type, "js-websocket");
    assert.equal(sys.clientVersion, "2.1");
    assert.deepEqual(sys.features, ["inflate", "pushcodes", "drain"]);
    assert.deepEqual(user, { name: "ada" });
    assert.equal(last().sent[1], "02000000");
  });

  test("tolerates a heartbeat before the answer", async () => {
    const { client, done } = connecting();
    last().accept();
    last().receive(bytes("03000000"));
    last().welcome();
    await done;
    assert.equal(client.state, "connected");
  });

  test("compressed answer", async () => {
    const { client, done } = connecting();
    last().accept();
    const dict = Object.fromEntries(Array.from({ length: 50 }, (_, i) => [`game.room.method${i}`, i + 1]));
    const answer = deflateSync(json({ code: 200, sys: { dict, heartbeat: 30, serializer: "json" } }));
    last().receive(encodePacket(Packet.HANDSHAKE, answer));
    await done;
    client.notify("game.room.method7", 1);
    assert.equal(last().sent.at(-1), "04000004" + "03000831");
  });

  const refusals = [
    ["refused", { code: 400, msg: "too old", sys: {} }, "PIT-400", /too old/],
    ["refused without a reason", { code: 501, sys: {} }, "PIT-501", /refused/],
    ["another serializer", { code: 200, sys: { serializer: "protobuf" } }, "PIT-400", /protobuf.*raw/],
  ];
  for (const [name, answer, code, message] of refusals) {
    test(`${name}: no second attempt`, async () => {
      const { client, states, done } = connecting({ reconnect: { first: true } });
      last().accept();
      last().receive(encodePacket(Packet.HANDSHAKE, json(answer)));
      await assert.rejects(done, { code, message });
      assert.deepEqual(states.map((s) => s.state), ["connecting", "closed"]);
      advance(60_000);
      assert.equal(sockets.length, 1);
      assert.equal(client.state, "closed");
    });
  }

  test("too many at once: later", async () => {
    const { client, states, done } = connecting({ reconnect: { first: true } });
    last().accept();
    last().receive(encodePacket(Packet.HANDSHAKE, json({ code: 429, msg: "too many handshakes", sys: {} })));
    assert.deepEqual([states.at(-1).state, states.at(-1).error.code], ["reconnecting", "PIT-429"]);
    advance(500);
    last().welcome();
    await done;
    assert.equal(client.state, "connected");
  });

  for (const [name, answer] of [
    ["not JSON", utf8("{")],
    ["null", utf8("null")],
    ["a list", utf8("[]")],
    ["a dictionary with a code that is none", json({ code: 200, sys: { dict: { "a.b": 65536 } } })],
    ["a dictionary that is a text", json({ code: 200, sys: { dict: "abc" } })],
    ["zlib that is broken", bytes("789cffff")],
  ]) {
    test(`an answer that is ${name}`, async () => {
      const { client, done } = connecting();
      last().accept();
      last().receive(encodePacket(Packet.HANDSHAKE, answer));
      await assert.rejects(done, (err) => err instanceof PitayaError);
      assert.equal(client.state, "closed");
    });
  }

  test("no answer in time", async () => {
    const { done } = connecting({ connectTimeout: 3000 });
    last().accept();
    advance(2995);
    assert.equal(last().closedWith, undefined);
    advance(5);
    await assert.rejects(done, { code: Code.TIMEOUT });
    assert.equal(last().closedWith, 4000);
  });

  test("a first connection that fails rejects connect", async () => {
    const { done, states } = connecting();
    last().hangUp();
    await assert.rejects(done, { code: Code.CLOSED });
    assert.deepEqual(states.map((s) => s.state), ["connecting", "closed"]);
  });

  test("a first connection that fails is retried if asked for", async () => {
    const { done, states } = connecting({ reconnect: { first: true } });
    last().hangUp();
    assert.equal(states.at(-1).state, "reconnecting");
    advance(500);
    last().welcome();
    await done;
  });

  test("malformed address", async () => {
    FakeSocket.refuse = true;
    const { done, client } = connecting({ reconnect: { first: true } });
    await assert.rejects(done, { code: Code.CLOSED });
    assert.equal(client.state, "closed");
  });

  test("connect while connected", async () => {
    const { client } = await connected();
    await assert.rejects(client.connect("ws://other.example"), /connect while connected/);
  });
});

describe("heartbeats", () => {
  test("go out every interval", async () => {
    const { socket } = await connected({ sys: { heartbeat: 10 } });
    for (let i = 1; i <= 3; i++) {
      advance(9995);
      assert.equal(socket.sent.length, i - 1);
      advance(5);
      assert.equal(socket.sent.length, i);
      assert.equal(socket.sent.at(-1), "03000000");
      socket.receive(bytes("03000000"));
      assert.equal(socket.sent.length, i, "a heartbeat is not answered where one has just gone out");
    }
  });

  test("are answered when the own timer lags", async () => {
    const { socket } = await connected({ sys: { heartbeat: 10 } });
    freeze(9000); // a hidden page
    socket.receive(bytes("03000000"));
    assert.deepEqual(socket.sent, ["03000000"]);
  });

  test("silence of two intervals ends the connection", async () => {
    const { client, states, socket } = await connected({ sys: { heartbeat: 10 } });
    advance(15_000);
    socket.receive(push("p", json(1)));
    advance(19_995);
    assert.equal(client.state, "connected");
    advance(5);
    assert.equal(client.state, "reconnecting");
    assert.match(states.at(-1).error.message, /silent/);
    assert.ok(states.at(-1).error instanceof DisconnectedError);
    assert.equal(socket.closedWith, 4000);
  });

  test("what came while nothing ran is looked at first", async () => {
    const { client, states, socket } = await connected({ sys: { heartbeat: 10 } });
    freeze(60_000); // a laptop was asleep
    advance(20_000);
    assert.equal(client.state, "connected", "the timer is late, and what has come is not handed over yet");
    socket.receive(bytes("03000000"));
    advance(19_995);
    assert.equal(client.state, "connected");
    freeze(60_000);
    advance(1000);
    assert.equal(client.state, "connected");
    advance(5);
    assert.match(states.at(-1).error.message, /silent/);
  });

  test("an interval that no timer can have", async () => {
    const { client, socket } = await connected({ sys: { heartbeat: 1e12 } });
    advance(300_000);
    assert.equal(client.state, "connected");
    assert.deepEqual(socket.sent, []);
  });

  for (const heartbeat of [0, -1, undefined, "x"]) {
    test(`interval ${heartbeat}: none`, async () => {
      const { client, socket } = await connected({ sys: { heartbeat } });
      advance(300_000);
      assert.equal(client.state, "connected");
      assert.deepEqual(socket.sent, []);
    });
  }
});

describe("reconnect", () => {
  test("with growing delays, and from the start after a good connection", async () => {
    const { client, states } = await connected({ reconnect: { maxDelay: 3000 } });
    advance(10_000);
    last().hangUp();
    for (const delay of [500, 1000, 2000, 3000, 3000]) {
      assert.deepEqual([states.at(-1).state, states.at(-1).delay], ["reconnecting", delay]);
      advance(delay - 5);
      assert.equal(client.state, "reconnecting");
      advance(5);
      assert.equal(client.state, "connecting");
      last().hangUp();
    }
    advance(3000);
    last().welcome();
    assert.equal(client.state, "connected");
    advance(4000);
    last().hangUp();
    assert.equal(states.at(-1).delay, 500);
    client.close();
  });

  test("a connection that does not hold counts as a failed attempt", async () => {
    const { states } = await connected();
    const delays = [];
    advance(10);
    for (let i = 0; i < 3; i++) {
      last().hangUp();
      delays.push(states.at(-1).delay);
      advance(delays.at(-1));
      last().welcome();
    }
    assert.deepEqual(delays, [500, 1000, 2000]);
  });

  test("with full jitter", async () => {
    const { states } = await connected();
    for (const [random, delay] of [[0, 0], [0.5, 500], [0.25, 500]]) {
      mock.method(Math, "random", () => random);
      last().hangUp();
      assert.equal(states.at(-1).delay, delay);
      advance(delay + 5);
    }
  });

  test("a connection that holds for less than the wait before it might have been is no good one, however short the wait was", async () => {
    mock.method(Math, "random", () => 0);
    const { states } = await connected();
    for (let i = 1; i <= 4; i++) {
      last().hangUp();
      assert.equal(states.at(-1).attempt, i);
      advance(5);
      last().welcome();
      advance(495);
    }
  });

  test("requests and pushes work again", async () => {
    const { client } = await connected({ sys: { dict: { p: 1 } } });
    const got = [];
    client.on("p", (v) => got.push(v));
    last().hangUp();
    advance(500);
    const second = last();
    const rejoined = new Promise((resolve) => {
      client.addEventListener("connected", () => resolve(client.request("a.b")), { once: true });
    });
    second.welcome(); // with no dictionary this time
    second.receive(push("p", json("again")), response(1, json("back")));
    assert.equal(await rejoined, "back");
    assert.deepEqual(got, ["again"]);
  });

  test("now", async () => {
    const { client } = await connected();
    last().hangUp();
    client.reconnectNow();
    assert.equal(client.state, "connecting");
    assert.equal(sockets.length, 2);
    last().welcome();
    advance(1000);
    assert.equal(sockets.length, 2, "the timer of the skipped wait is gone");
  });

  test("gives up after the set number of attempts", async () => {
    const { client, states } = await connected({ reconnect: { attempts: 2 } });
    for (let i = 0; i < 3; i++) {
      last().hangUp();
      advance(10_000);
    }
    assert.equal(sockets.length, 3);
    assert.equal(client.state, "closed");
    assert.equal(states.at(-1).error.code, Code.CLOSED);
  });

  test("not if switched off", async () => {
    const { client } = await connected({ reconnect: false });
    last().hangUp();
    advance(60_000);
    assert.equal(sockets.length, 1);
    assert.equal(client.state, "closed");
  });

  test("events of an earlier socket are ignored", async () => {
    const { client } = await connected();
    const old = last();
    const { onmessage, onclose } = old;
    old.hangUp();
    client.reconnectNow();
    last().welcome();
    onmessage({ data: concat(encodePacket(Packet.KICK)).buffer });
    onclose({ code: 1006, reason: "" });
    assert.equal(client.state, "connected");
  });
});

describe("a server that ends", () => {
  const ack = encodePacket(Packet.ACK);

  test("gets an ack as the last packet, and answers what was sent before", async () => {
    const { client, states, socket } = await connected();
    const before = client.request("a.b");
    socket.sent.length = 0;
    socket.receive(ack, ack);
    assert.deepEqual(socket.sent, ["02000000"], "one ack, however often it is asked for");
    await assert.rejects(client.request("a.b"), { code: Code.CLOSED, unsent: true, message: /the server ends/ });
    assert.throws(() => client.notify("a.b"), { code: Code.CLOSED, unsent: true });
    assert.deepEqual(socket.sent, ["02000000"], "no message behind it");
    assert.equal(client.state, "connected");
    const got = [];
    client.on("p", (v) => got.push(v));
    socket.receive(push("p", json("bye")), response(1, json("answer")));
    assert.equal(await before, "answer");
    assert.deepEqual(got, ["bye"]);
    socket.hangUp(1001);
    assert.deepEqual(states.map((s) => s.state), ["reconnecting"]);
    advance(500);
    last().welcome();
    const again = client.request("a.b");
    last().receive(response(2, json("elsewhere")));
    assert.equal(await again, "elsewhere");
  });

  test("is answered in its turn, behind what is being inflated", async () => {
    const { client, socket } = await connected();
    const got = [];
    client.on("p", (v) => got.push(v));
    socket.receive(push("p", deflateSync(json(1)), 0x10), ack);
    client.notify("a.b", 7);
    assert.equal(socket.sent.length, 1);
    while (socket.sent.length < 2) await new Promise((resolve) => setImmediate(resolve));
    assert.deepEqual(got, [1]);
    assert.equal(socket.sent[1], "02000000");
    client.close();
  });

  test("requests that wait when it closes early may have been handled", async () => {
    const { client, socket } = await connected();
    const got = client.request("a.b");
    socket.receive(ack);
    socket.hangUp(1001);
    await assert.rejects(got, { code: Code.CLOSED, unsent: false });
  });

  test("does not ask before the handshake's answer", async () => {
    const { done } = connecting();
    last().accept();
    last().receive(ack);
    await assert.rejects(done, { code: Code.BAD_REQUEST });
  });
});

describe("kick and close", () => {
  for (const [name, body, reason] of [
    ["with a reason", '{"reason":"bye"}', "bye"],
    ["without a body", "", ""],
    ["with a foreign body", "\xff{", ""],
  ]) {
    test(`kick ${name}`, async () => {
      const { client, states, socket } = await connected();
      const got = client.request("a.b");
      socket.receive(encodePacket(Packet.KICK, utf8(body)));
      await assert.rejects(got, { code: Code.CLOSED, message: /kicked/ });
      assert.deepEqual([client.state, states.at(-1).reason], ["kicked", reason]);
      advance(60_000);
      assert.equal(sockets.length, 1);
    });
  }

  test("connect again after a kick", async () => {
    const { client, socket } = await connected();
    socket.receive(encodePacket(Packet.KICK));
    const again = client.connect("ws://game.example", { WebSocket: FakeSocket });
    last().welcome();
    await again;
    assert.equal(client.state, "connected");
  });

  test("close", async () => {
    const { client, states, socket } = await connected();
    const got = client.request("a.b");
    client.close();
    client.close();
    await assert.rejects(got, { code: Code.CLOSED });
    assert.equal(socket.closedWith, 1000);
    assert.deepEqual(states.map((s) => [s.state, s.error]), [["closed", undefined]]);
    advance(60_000);
    assert.equal(sockets.length, 1);
  });

  test("a listener that is overtaken hears of what is", async () => {
    const { client, socket } = await connected();
    const heard = [];
    client.addEventListener("reconnecting", () => client.close());
    client.addEventListener("state", ({ detail }) => heard.push(detail.state));
    socket.hangUp();
    assert.deepEqual(heard, ["closed"]);
  });

  test("close while connecting", async () => {
    const { client, done } = connecting();
    client.close();
    await assert.rejects(done, { code: Code.CLOSED });
  });

  test("close from a listener", async () => {
    const { client, done } = connecting();
    client.addEventListener("connected", () => client.close());
    last().welcome();
    await assert.rejects(done, { code: Code.CLOSED });
    assert.equal(client.state, "closed");
    assert.equal(sockets.length, 1);
  });
});

describe("the browser", () => {
  let page;
  let globals;
  beforeEach(() => {
    page = { window: new EventTarget(), document: new EventTarget(), onLine: true };
    page.document.visibilityState = "visible";
    const made = {
      addEventListener: page.window.addEventListener.bind(page.window),
      removeEventListener: page.window.removeEventListener.bind(page.window),
      document: page.document,
      navigator: { get onLine() { return page.onLine; } },
    };
    globals = Object.keys(made).map((name) => [name, Object.getOwnPropertyDescriptor(globalThis, name)]);
    for (const name in made) Object.defineProperty(globalThis, name, { configurable: true, value: made[name] });
  });
  afterEach(() => {
    for (const [name, before] of globals) {
      if (before) Object.defineProperty(globalThis, name, before);
      else delete globalThis[name];
    }
  });
  const network = (on) => {
    page.onLine = on;
    page.window.dispatchEvent(new Event(on ? "online" : "offline"));
  };
  const show = (state) => {
    page.document.visibilityState = state;
    page.document.dispatchEvent(new Event("visibilitychange"));
  };

  test("going offline ends the connection, and coming back makes one at once", async () => {
    const { client, states, socket } = await connected();
    const got = client.request("a.b");
    network(false);
    await assert.rejects(got, { code: Code.CLOSED, unsent: false });
    assert.equal(socket.closedWith, 4000);
    assert.deepEqual([states.at(-1).state, states.at(-1).attempt], ["reconnecting", 0]);
    assert.match(states.at(-1).error.message, /offline/);
    advance(14_000);
    assert.equal(sockets.length, 1, "no attempts without a network");
    network(true);
    assert.equal(client.state, "connecting");
    last().welcome();
    assert.equal(client.state, "connected");
    client.close();
  });

  test("without a network it tries now and then: the server may be near", async () => {
    const { client } = await connected();
    network(false);
    advance(15_000);
    assert.equal(sockets.length, 2);
    last().welcome();
    assert.equal(client.state, "connected");
    client.close();
  });

  test("a page that is looked at does not wait", async () => {
    const { client } = await connected();
    last().hangUp();
    show("hidden");
    assert.equal(client.state, "reconnecting");
    show("visible");
    assert.equal(client.state, "connecting");
    last().hangUp();
    page.onLine = false;
    show("visible");
    assert.equal(client.state, "reconnecting", "nor does it try without a network");
    client.close();
  });

  test("is not listened to by a client that is closed, or was told not to", async () => {
    const listening = new Set();
    for (const target of [globalThis, page.document]) {
      const { addEventListener, removeEventListener } = target;
      Object.defineProperty(target, "addEventListener", { configurable: true, value: (...args) => (listening.add(args[1]), addEventListener.apply(target, args)) });
      Object.defineProperty(target, "removeEventListener", { configurable: true, value: (...args) => (listening.delete(args[1]), removeEventListener.apply(target, args)) });
    }
    const { client } = await connected();
    assert.equal(listening.size, 3);
    client.close();
    assert.equal(listening.size, 0);
    network(false);
    network(true);
    show("visible");
    assert.equal(sockets.length, 1);
    assert.equal(client.state, "closed");
    const other = await connected({ browserEvents: false });
    network(false);
    assert.equal(other.client.state, "connected");
    other.client.close();
  });
});
