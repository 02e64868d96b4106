// Resumption on the wire: the client and a server made of bytes.

import assert from "node:assert/strict";
import { afterEach, beforeEach, describe, test } from "node:test";

import { Code, Packet, ProtocolError, encodePacket } from "../pitaya.js";
import { Storage } from "./lib/client.mjs";
import {
  FakeSocket, advance, bytes, connected, connecting, handshakeOf, json, last, push, response, setUp, sockets, tearDown,
} from "./lib/fake.mjs";

beforeEach(setUp);
afterEach(tearDown);

const offer = (token, more) => ({ resume: { token, window: 30, resumed: false, ...more } });
const open = (options) => connected({ resume: true, sys: offer("one"), ...options });
const asked = (socket) => handshakeOf(socket).user.resume;

/** Loses the connection, and accepts the next one with this answer. */
function again(sys) {
  last().hangUp();
  advance(5000);
  last().welcome(sys);
}

describe("handshake", () => {
  test("nothing is asked for unless the application does", async () => {
    const { client } = await connected({ sys: offer("one"), user: { name: "ada" } });
    assert.deepEqual(handshakeOf(last()).user, { name: "ada" });
    assert.equal(client.resumable, false);
  });

  test("asks, and presents the token it got last with what it has received", async () => {
    const { client, states } = await open({ user: { name: "ada" } });
    assert.deepEqual(handshakeOf(last()).user, { name: "ada", resume: {} });
    assert.equal(client.resumable, true);
    client.on("p", () => {});
    last().receive(push("p", json(1)), push("nobody listens", json(1)), response(9, json(1)));
    again(offer("two", { resumed: true }));
    assert.deepEqual(asked(last()), { token: "one", received: 2 });
    assert.deepEqual([states.at(-1).state, states.at(-1).resumed, states.at(-1).window], ["connected", true, 30]);
    last().receive(push("p", json(1)));
    again(offer("three", { resumed: true }));
    assert.deepEqual(asked(last()), { token: "two", received: 3 });
  });

  test("a token counts from the answer on, whether the acknowledgement arrives or not", async () => {
    await open();
    again(offer("two", { resumed: true }));
    last().hangUp();
    advance(10_000);
    last().accept();
    assert.deepEqual(asked(last()), { token: "two", received: 0 });
    last().hangUp(); // no answer came
    advance(10_000);
    last().accept();
    assert.deepEqual(asked(last()), { token: "two", received: 0 });
  });

  test("a new session is counted from 0, and the application is told", async () => {
    const { client, states } = await open();
    last().receive(push("p", json(1)));
    again(offer("two", { reason: "gap" }));
    assert.deepEqual([states.at(-1).resumed, states.at(-1).reason], [false, "gap"]);
    last().receive(push("p", json(1)));
    again(offer("three", { resumed: true }));
    assert.deepEqual(asked(last()), { token: "two", received: 1 });
    assert.equal(client.resumable, true);
  });

  test("a server that keeps no sessions", async () => {
    const { client, states } = await open({ sys: {} });
    assert.equal(client.resumable, false);
    again({});
    assert.deepEqual(asked(last()), {});
    assert.equal(states.at(-1).resumed, false);
  });

  for (const [name, resume] of [
    ["no token", { resumed: false, window: 30 }],
    ["an empty token", { token: "", window: 30 }],
    ["a token of megabytes", { token: "x".repeat(1025), window: 30 }],
    ["a session that nobody asked for", { token: "one", resumed: true, window: 30 }],
  ]) {
    test(`${name} is a violation`, async () => {
      const { done } = connecting({ resume: true });
      last().welcome({ resume });
      await assert.rejects(done, (err) => err instanceof ProtocolError);
    });
  }

  test("a window that is none is 0", async () => {
    const { states, done } = connecting({ resume: true });
    last().welcome(offer("one", { window: "soon" }));
    await done;
    assert.equal(states.at(-1).window, 0);
  });
});

describe("what the server can forget", () => {
  test("heartbeats say how many pushes have come", async () => {
    const { socket } = await open({ sys: { ...offer("one"), heartbeat: 10 } });
    socket.receive(push("p", json(1)), push("p", json(1)), push("q", json(1)));
    advance(10_000);
    assert.equal(socket.sent.at(-1), "03000004" + "00000003");
  });

  test("modulo 2^32", async () => {
    const storage = new Storage();
    storage.setItem("pitaya.resume", JSON.stringify({ url: "ws://game.example/ws", token: "one", received: 2 ** 32 + 4 }));
    const { done } = connecting({ resume: { storage } });
    last().welcome({ ...offer("two", { resumed: true }), heartbeat: 10 });
    await done;
    assert.deepEqual(asked(last()), { token: "one", received: 2 ** 32 + 4 });
    last().receive(push("p", json(1)));
    advance(10_000);
    assert.equal(last().sent.at(-1), "03000004" + "00000005");
  });

  test("and earlier where many or large ones come, but not more than once in a second", async () => {
    const { socket } = await open({ sys: { ...offer("one"), heartbeat: 30 } });
    const some = (n, value = 1) => {
      for (let i = 0; i < n; i++) socket.receive(push("p", json(value)));
    };
    advance(1000);
    some(99);
    assert.equal(socket.sent.length, 0);
    some(1);
    assert.deepEqual(socket.sent.splice(0), ["03000004" + "00000064"]);
    some(300);
    advance(995);
    some(1);
    assert.deepEqual(socket.sent, []);
    advance(5);
    some(1);
    assert.deepEqual(socket.sent.splice(0), ["03000004" + "00000192"]);
    advance(1000);
    some(1, "x".repeat(70_000));
    assert.deepEqual(socket.sent, ["03000004" + "00000193"]);
  });

  test("heartbeats of other sessions have no body", async () => {
    const { socket } = await connected({ sys: { heartbeat: 10 } });
    socket.receive(push("p", json("x".repeat(70_000))));
    advance(10_000);
    assert.deepEqual(socket.sent, ["03000000"]);
  });
});

describe("the end", () => {
  const kick = "05000000";

  test("close says goodbye", async () => {
    const { client, socket } = await open();
    client.close();
    assert.equal(socket.sent.at(-1), kick);
    assert.equal(socket.closedWith, 1000);
    assert.equal(client.resumable, false);
    client.connect("ws://game.example/ws", { WebSocket: FakeSocket, resume: true }).catch(() => {});
    last().accept();
    assert.deepEqual(asked(last()), {});
  });

  test("close without it keeps the session for the next connect", async () => {
    const { client, socket } = await open();
    client.close({ keepSession: true });
    assert.deepEqual([socket.sent, socket.closedWith], [[], 4001]);
    client.connect("ws://game.example/ws", { WebSocket: FakeSocket, resume: true }).catch(() => {});
    last().accept();
    assert.deepEqual(asked(last()), { token: "one", received: 0 });
    client.close();
  });

  test("a session is of one address", async () => {
    const { client } = await open();
    client.close({ keepSession: true });
    client.connect("ws://other.example/ws", { WebSocket: FakeSocket, resume: true }).catch(() => {});
    last().accept();
    assert.deepEqual(asked(last()), {});
  });

  test("a close after a close that kept it, forgets it", async () => {
    const { client } = await open();
    client.close({ keepSession: true });
    client.close();
    assert.equal(client.resumable, false);
  });

  test("a client whose session is not kept says nothing", async () => {
    const { client, socket } = await connected();
    client.close();
    assert.deepEqual([socket.sent, socket.closedWith], [[], 1000]);
  });

  test("nothing goes out behind the ack of a server that ends, and the session is gone", async () => {
    const { client, socket } = await open();
    socket.receive(encodePacket(Packet.ACK));
    assert.equal(client.resumable, false);
    client.close();
    assert.deepEqual(socket.sent, ["02000000"]);
  });

  test("a server that ends gets no token from those that come back", async () => {
    const { states, socket } = await open();
    socket.receive(encodePacket(Packet.ACK));
    again(offer("two"));
    assert.deepEqual(asked(last()), {});
    assert.equal(states.at(-1).resumed, false);
  });

  test("a kick ends it", async () => {
    const { client, socket } = await open();
    socket.receive(encodePacket(Packet.KICK));
    assert.equal(client.resumable, false);
    advance(60_000);
    assert.equal(sockets.length, 1);
  });

  test("so does a violation, which would come again", async () => {
    const { client, socket } = await open();
    socket.receive(bytes("09000000"));
    assert.equal(socket.sent.at(-1), kick);
    assert.equal(socket.closedWith, 1000);
    advance(500);
    last().accept();
    assert.deepEqual(asked(last()), {});
    client.close();
  });

  test("silence does not", async () => {
    const { socket } = await open({ sys: { ...offer("one"), heartbeat: 10 } });
    advance(20_000);
    assert.equal(socket.closedWith, 4000);
    advance(500);
    last().accept();
    assert.deepEqual(asked(last()), { token: "one", received: 0 });
  });

  test("nor does a refused handshake", async () => {
    const { client } = await open();
    last().hangUp();
    advance(500);
    last().accept();
    last().receive(encodePacket(Packet.HANDSHAKE, json({ code: 400, msg: "not now" })));
    assert.equal(client.state, "closed");
    client.connect("ws://game.example/ws", { WebSocket: FakeSocket, resume: true }).catch(() => {});
    last().accept();
    assert.deepEqual(asked(last()), { token: "one", received: 0 });
    client.close();
  });

  test("a listener or handler that closes is the last one", async () => {
    const storage = new Storage();
    const { client, socket } = await open({ resume: { storage } });
    client.on("p", () => client.close());
    socket.receive(push("p", json(1)));
    assert.equal(storage.items.size, 0);
    assert.equal(socket.sent.at(-1), kick);
  });
});

describe("requests that wait for a session", () => {
  const options = { whileAway: "wait" };

  test("are made when it is back", async () => {
    const { client } = await open(options);
    last().hangUp();
    const got = client.request("a.b", 1);
    advance(500);
    last().welcome(offer("two", { resumed: true }));
    last().receive(response(1, json("x")));
    assert.equal(await got, "x");
  });

  for (const [name, sys] of [["by another", offer("two", { reason: "unknown" })], ["by none", {}]]) {
    test(`are rejected when it is replaced ${name}`, async () => {
      const { client } = await open(options);
      last().hangUp();
      const got = client.request("a.b", 1);
      last().hangUp();
      advance(500);
      last().welcome(sys);
      await assert.rejects(got, { code: Code.CLOSED, unsent: true, message: /could not be resumed/ });
      assert.equal(client.state, "connected");
    });
  }

  test("and of a session that a server took with it", async () => {
    const { client, socket } = await open(options);
    socket.receive(encodePacket(Packet.ACK));
    const got = client.request("a.b", 1);
    again(offer("two"));
    await assert.rejects(got, { unsent: true, message: /could not be resumed/ });
  });
});

describe("storage", () => {
  const url = "ws://game.example/ws";

  test("has what the next page needs", async () => {
    const storage = new Storage();
    const { socket } = await open({ resume: { storage, key: "game" } });
    socket.receive(push("p", json(1)));
    assert.deepEqual([...storage.items.keys()], ["game"]);
    const { client } = await connected({ resume: { storage, key: "game" }, sys: offer("two", { resumed: true }) });
    assert.deepEqual(asked(last()), { token: "one", received: 1 });
    client.close();
    assert.equal(storage.items.size, 0);
  });

  for (const [name, value] of [
    ["no JSON", "{"],
    ["null", "null"],
    ["another address", JSON.stringify({ url: "ws://evil.example", token: "one", received: 1 })],
    ["no count", JSON.stringify({ url, token: "one" })],
    ["a count below 0", JSON.stringify({ url, token: "one", received: -1 })],
    ["half a push", JSON.stringify({ url, token: "one", received: 0.5 })],
    ["a token that is none", JSON.stringify({ url, token: {}, received: 1 })],
  ]) {
    test(`that has ${name} has nothing`, async () => {
      const storage = new Storage();
      storage.setItem("pitaya.resume", value);
      const { done } = connecting({ resume: { storage } });
      last().welcome(offer("one"));
      await done;
      assert.deepEqual(asked(last()), {});
    });
  }

  test("that throws is none", async () => {
    const broken = () => {
      throw new Error("quota exceeded");
    };
    const storage = { getItem: broken, setItem: broken, removeItem: broken };
    const { client, socket } = await open({ resume: { storage } });
    socket.receive(push("p", json(1)));
    again(offer("two", { resumed: true }));
    assert.deepEqual(asked(last()), { token: "one", received: 1 });
    client.close();
  });
});
