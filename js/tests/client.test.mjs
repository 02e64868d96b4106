// Tests of pitaya.js: run by `node --test` in the folder above. They need no network: the client talks to a fake socket, whose
// bytes are those that a Pitaya server sends, and the clock is moved by hand.

import assert from "node:assert/strict";
import { beforeEach, afterEach, describe, mock, test } from "node:test";
import { deflateSync } from "node:zlib";

import {
  Client, Code, Dictionary, Message, Packet, PacketReader, PitayaError,
  decodeError, decodeMessage, encodeMessage, encodePacket, inflate,
} from "../pitaya.js";

const hex = (bytes) => Buffer.from(bytes).toString("hex");
const bytes = (text) => new Uint8Array(Buffer.from(text, "hex"));
const utf8 = (text) => new Uint8Array(Buffer.from(text));
const json = (value) => utf8(JSON.stringify(value));
const concat = (...parts) => new Uint8Array(Buffer.concat(parts.map((part) => Uint8Array.from(part))));

describe("packets", () => {
  const cases = [
    ["ack", Packet.ACK, "", "02000000"],
    ["heartbeat", Packet.HEARTBEAT, "", "03000000"],
    ["handshake of the pomelo client", Packet.HANDSHAKE,
      hex(utf8('{"sys":{"type":"js-websocket","version":"0.0.1","rsa":{}},"user":{}}')),
      "010000447b22737973223a7b2274797065223a226a732d776562736f636b6574222c2276657273696f6e223a22302e302e31222c22727361223a7b7d7d2c2275736572223a7b7d7d"],
    ["data", Packet.DATA, "04016869", "0400000404016869"],
    ["65,536 bytes", Packet.DATA, "00".repeat(65536), "04010000" + "00".repeat(65536)],
  ];
  for (const [name, type, body, want] of cases) {
    test(name, () => {
      assert.equal(hex(encodePacket(type, bytes(body))), want);
      assert.deepEqual(new PacketReader().push(bytes(want)), [{ type, body: bytes(body) }]);
    });
  }

  test("largest body", () => {
    assert.equal(hex(encodePacket(Packet.DATA, new Uint8Array(0xffffff)).subarray(0, 4)), "04ffffff");
    assert.throws(() => encodePacket(Packet.DATA, new Uint8Array(0x1000000)), RangeError);
  });

  test("a stream cut anywhere", () => {
    const stream = bytes("03000000" + "0400000404016869" + "050000107b22726561736f6e223a22627965227d" + "03000000");
    for (let cut = 0; cut <= stream.length; cut++) {
      const reader = new PacketReader();
      const got = [...reader.push(stream.slice(0, cut)), ...reader.push(stream.slice(cut))];
      assert.deepEqual(got.map((p) => p.type), [3, 4, 5, 3], `cut at ${cut}`);
      assert.equal(Buffer.from(got[2].body).toString(), '{"reason":"bye"}', `cut at ${cut}`);
    }
  });

  test("unknown type", () => {
    for (const type of ["00", "06", "16", "47"]) {
      assert.throws(() => new PacketReader().push(bytes(type + "000000")), { code: Code.BAD_REQUEST });
    }
  });
});

describe("messages", () => {
  const dictionary = new Dictionary({ "conn.room.echo": 1, onPush: 2, "mid.code.route": 258, "zero.code.route": 0 });

  const hi = json({ msg: "hi" });
  const encoded = [
    ["request id 1", { type: Message.REQUEST, id: 1, route: "conn.room.typed", payload: hi }, "00010f636f6e6e2e726f6f6d2e7479706564"],
    ["request id 128", { type: Message.REQUEST, id: 128, route: "conn.room.typed", payload: hi }, "0080010f636f6e6e2e726f6f6d2e7479706564"],
    ["request id 2147483647", { type: Message.REQUEST, id: 2147483647, route: "conn.room.typed", payload: hi }, "00ffffffff070f636f6e6e2e726f6f6d2e7479706564"],
    ["request id 2^32", { type: Message.REQUEST, id: 2 ** 32, route: "a.b", payload: hi }, "00808080801003612e62"],
    ["notify", { type: Message.NOTIFY, route: "conn.room.note", payload: hi }, "020e636f6e6e2e726f6f6d2e6e6f7465"],
    ["request, dictionary code 258", { type: Message.REQUEST, id: 5, route: "mid.code.route", payload: hi }, "01050102"],
    ["notify, dictionary code 1", { type: Message.NOTIFY, route: "conn.room.echo", payload: hi }, "030001"],
    ["notify, dictionary code 0", { type: Message.NOTIFY, route: "zero.code.route", payload: hi }, "030000"],
    ["UTF-8 route", { type: Message.NOTIFY, route: "räum.ß", payload: hi }, "020872c3a4756d2ec39f"],
  ];
  for (const [name, message, head] of encoded) {
    test(`encode ${name}`, () => {
      const got = encodeMessage(message, dictionary);
      assert.equal(hex(got), head + hex(hi));
      const back = decodeMessage(got, dictionary);
      assert.deepEqual(back, { id: 0, error: false, compressed: false, ...message });
    });
  }

  const decoded = [
    ["response", "04017b7d", { type: Message.RESPONSE, id: 1, payload: "7b7d" }],
    ["error response", "24017b7d", { type: Message.RESPONSE, id: 1, payload: "7b7d", error: true }],
    ["response id 300", "04ac027b7d", { type: Message.RESPONSE, id: 300, payload: "7b7d" }],
    ["response, empty payload", "0403", { type: Message.RESPONSE, id: 3, payload: "" }],
    ["response id 2^53-1", "04ffffffffffffff0f7b7d", { type: Message.RESPONSE, id: Number.MAX_SAFE_INTEGER, payload: "7b7d" }],
    ["push", "06066f6e436861747b7d", { type: Message.PUSH, route: "onChat", payload: "7b7d" }],
    ["push, dictionary code", "0700027b7d", { type: Message.PUSH, route: "onPush", payload: "7b7d" }],
    ["push, empty route and payload", "0600", { type: Message.PUSH, payload: "" }],
    ["compressed response", "1401789c", { type: Message.RESPONSE, id: 1, payload: "789c", compressed: true }],
    ["route bit of a response means nothing", "05017b7d", { type: Message.RESPONSE, id: 1, payload: "7b7d" }],
    ["upper flag bits are ignored", "c4017b7d", { type: Message.RESPONSE, id: 1, payload: "7b7d" }],
  ];
  for (const [name, input, want] of decoded) {
    test(`decode ${name}`, () => {
      const full = { id: 0, route: "", error: false, compressed: false, ...want, payload: bytes(want.payload) };
      assert.deepEqual(decodeMessage(bytes(input), dictionary), full);
    });
  }

  const bad = [
    ["empty", ""],
    ["one byte", "06"],
    ["type 4", "0800"],
    ["unterminated id", "048080"],
    ["id of eleven bytes", "04" + "80".repeat(10) + "01"],
    ["no route after the id", "0001"],
    ["route longer than the message", "06056162"],
    ["half a route code", "0700"],
    ["unknown route code", "0700637b7d"],
    ["route that is not UTF-8", "0602ff00"],
  ];
  for (const [name, input] of bad) {
    test(`refuse ${name}`, () => {
      assert.throws(() => decodeMessage(bytes(input), dictionary), { code: Code.BAD_REQUEST });
    });
  }

  test("refuse to encode a route over 255 bytes", () => {
    const message = (route) => ({ type: Message.NOTIFY, route });
    assert.equal(encodeMessage(message("ä".repeat(127) + "a")).length, 2 + 255);
    assert.throws(() => encodeMessage(message("ä".repeat(128))), RangeError);
  });

  test("names of Object.prototype are no dictionary routes", () => {
    const got = encodeMessage({ type: Message.NOTIFY, route: "constructor" }, new Dictionary({}));
    assert.equal(hex(got), "020b" + hex(utf8("constructor")));
  });
});

describe("payloads", () => {
  test("inflate", async () => {
    // Of the vector "echo, zlib request".
    assert.equal(Buffer.from(await inflate(bytes("789c4a240000010000ffffc8300c21"), 100)).toString(), "a".repeat(32));
  });
  test("inflate refuses what is too large", async () => {
    const bomb = deflateSync(Buffer.alloc(1 << 20));
    assert.equal((await inflate(bomb, 1 << 20)).length, 1 << 20);
    await assert.rejects(inflate(bomb, (1 << 20) - 1), { code: Code.BAD_REQUEST });
  });
  for (const [name, input] of [["empty", ""], ["cut", "789c4a24"], ["gzip", "1f8b0800000000000003"], ["text", "6869"]]) {
    test(`inflate refuses what is ${name}`, () => assert.rejects(inflate(bytes(input), 100), { code: Code.BAD_REQUEST }));
  }

  test("JSON error", () => {
    const got = decodeError(utf8('{"code":"PIT-404","msg":"no such route","metadata":{"route":"a.b"}}'), "json");
    assert.ok(got instanceof PitayaError);
    assert.deepEqual([got.code, got.message, got.metadata], ["PIT-404", "no such route", { route: "a.b" }]);
  });
  test("protobuf error", () => {
    // code "PIT-404", msg "gone", a varint field 9 of a later version, metadata {"k": "v"}.
    const got = decodeError(bytes("0a075049542d343034" + "1204676f6e65" + "4801" + "1a060a016b120176"), "protobuf");
    assert.deepEqual([got.code, got.message, got.metadata], ["PIT-404", "gone", { k: "v" }]);
  });
  test("malformed protobuf error", () => {
    for (const input of ["0a", "0a05", "0a0550", "ff".repeat(12), "0b"]) {
      assert.throws(() => decodeError(bytes(input), "protobuf"), { code: Code.BAD_REQUEST }, input);
    }
  });
  test("empty error", () => {
    const got = decodeError(utf8(""), "json");
    assert.deepEqual([got.code, got.message], ["PIT-000", "unknown error"]);
  });
});

// ---------------------------------------------------------------------------------------------------- client

/** All sockets made since the test began, oldest first. */
let sockets = [];

/** What the client sees of a WebSocket. The test is the server. */
class FakeSocket {
  static refuse = false;
  sent = [];
  open = false;
  constructor(url) {
    if (FakeSocket.refuse) throw new SyntaxError("bad address");
    this.url = url;
    sockets.push(this);
  }
  send(data) {
    assert.ok(this.open, "send on a socket that is not open");
    this.sent.push(hex(data));
  }
  close(code) {
    this.open = false;
    this.closedWith = code;
  }

  // The server's side.
  accept() {
    this.open = true;
    this.onopen?.();
  }
  receive(...packets) {
    for (const packet of packets) this.onmessage?.({ data: concat(packet).buffer });
  }
  hangUp(code = 1006, reason = "") {
    this.open = false;
    this.onerror?.({});
    this.onclose?.({ code, reason });
  }
  /** Accepts, and answers the handshake. */
  welcome(sys = {}) {
    this.accept();
    this.receive(encodePacket(Packet.HANDSHAKE, json({ code: 200, sys: { dict: {}, heartbeat: 30, serializer: "json", ...sys } })));
  }
}

const last = () => sockets.at(-1);
const data = (body) => encodePacket(Packet.DATA, body);
const response = (id, payload, flag = 0) => data(concat(bytes((0x04 | flag).toString(16).padStart(2, "0")), [id], payload));
const push = (route, payload, flag = 0) => data(concat([0x06 | flag, route.length], utf8(route), payload));
const handshakeOf = (socket) => JSON.parse(Buffer.from(socket.sent[0], "hex").subarray(4).toString());

/** A client with a record of its states, connected to a fake server. */
async function connected({ sys, ...options } = {}) {
  const { client, states, done } = connecting(options);
  last().welcome(sys);
  await done;
  states.length = 0;
  last().sent.length = 0;
  return { client, states, socket: last() };
}

function connecting(options = {}) {
  const client = new Client();
  const states = [];
  client.addEventListener("state", ({ detail }) => states.push(detail));
  const done = client.connect("ws://game.example/ws", { WebSocket: FakeSocket, ...options });
  return { client, states, done };
}

// Time: timers are node's mock timers, and performance.now moves along.
let now = 0;
function advance(ms) {
  for (const end = now + ms; now < end; ) {
    const step = Math.min(5, end - now);
    now += step;
    mock.timers.tick(step);
  }
}

beforeEach(() => {
  sockets = [];
  FakeSocket.refuse = false;
  now = 0;
  mock.timers.enable({ apis: ["setTimeout"] });
  mock.method(performance, "now", () => now);
  mock.method(Math, "random", () => 1); // the longest of the jittered delays
});
afterEach(() => {
  mock.timers.reset();
  mock.restoreAll();
});

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

  test("no answer in time", async () => {
    const { done } = connecting({ connectTimeout: 3000 });
    last().accept();
    advance(2995);
    assert.equal(last().closedWith, undefined);
    advance(5);
    await assert.rejects(done, { code: Code.TIMEOUT });
    assert.equal(last().closedWith, 1000);
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

describe("requests", () => {
  test("answers find their request in any order", async () => {
    const { client, socket } = await connected();
    const first = client.request("room.echo", { n: 1 });
    const second = client.request("room.echo", { n: 2 });
    assert.equal(socket.sent[0], hex(data(concat([0, 1, 9], utf8('room.echo{"n":1}')))));
    assert.equal(socket.sent[1], hex(data(concat([0, 2, 9], utf8('room.echo{"n":2}')))));
    socket.receive(response(2, json("two")), response(1, json("one")));
    assert.deepEqual(await Promise.all([first, second]), ["one", "two"]);
  });

  test("no data is null, and an empty answer undefined", async () => {
    const { client, socket } = await connected();
    const got = client.request("a.b");
    assert.equal(socket.sent[0], hex(data(concat([0, 1, 3], utf8("a.bnull")))));
    socket.receive(response(1, utf8("")));
    assert.equal(await got, undefined);
  });

  test("bytes go out as they are", async () => {
    const { client, socket } = await connected();
    client.notify("a.b", bytes("ff00"));
    assert.equal(socket.sent[0], "04000007" + "0203612e62ff00");
  });

  test("raw client", async () => {
    const { client, socket } = await connected({ raw: true, sys: { serializer: "protobuf" } });
    assert.equal(client.serializer, "protobuf");
    const got = client.request("a.b", bytes("08ff01"));
    socket.receive(response(1, bytes("0801")));
    assert.deepEqual(await got, bytes("0801"));
    const failed = client.request("a.b");
    socket.receive(response(2, bytes("0a075049542d343034" + "1204676f6e65"), 0x20));
    await assert.rejects(failed, { code: "PIT-404", message: "gone" });
    await assert.rejects(client.request("a.b", { no: "bytes" }), TypeError);
  });

  test("flagged error", async () => {
    const { client, socket } = await connected();
    const got = client.request("a.b", {});
    socket.receive(response(1, json({ code: "CHAT-1", msg: "taken", metadata: { name: "ada" } }), 0x20));
    await assert.rejects(got, (err) => {
      assert.ok(err instanceof PitayaError);
      assert.deepEqual([err.code, err.message, err.metadata], ["CHAT-1", "taken", { name: "ada" }]);
      return true;
    });
  });

  test("answer that is not JSON", async () => {
    const { client, socket } = await connected();
    const got = client.request("a.b", {});
    socket.receive(response(1, utf8("{")));
    await assert.rejects(got, { code: Code.BAD_REQUEST });
    assert.equal(client.state, "connected");
  });

  test("timeout, and an answer that comes too late", async () => {
    const { client, socket } = await connected({ requestTimeout: 1000 });
    const short = client.request("a.b", 1);
    const long = client.request("a.b", 2, { timeout: 0 });
    advance(1000);
    await assert.rejects(short, { code: Code.TIMEOUT, message: /a\.b.*1000 ms/ });
    socket.receive(response(1, json("late")), response(2, json("in time")));
    assert.equal(await long, "in time");
  });

  test("not connected", async () => {
    const client = new Client();
    await assert.rejects(client.request("a.b"), { code: Code.CLOSED, unsent: true });
    assert.throws(() => client.notify("a.b"), { code: Code.CLOSED, unsent: true });
  });

  test("end of the connection rejects what waits", async () => {
    const { client, socket } = await connected();
    const got = client.request("a.b");
    socket.hangUp(1001, "bye");
    await assert.rejects(got, { code: Code.CLOSED, message: /1001: bye/ });
    await assert.rejects(client.request("a.b"), { code: Code.CLOSED });
  });

  test("dictionary in both directions", async () => {
    const { client, socket } = await connected({ sys: { dict: { "room.echo": 258, onPush: 2 } } });
    const pushes = [];
    client.on("onPush", (value, route) => pushes.push([route, value]));
    client.request("room.echo", 7).catch(() => {});
    assert.equal(socket.sent[0], "04000005" + "0101010237");
    socket.receive(data(concat(bytes("070002"), json("x"))));
    assert.deepEqual(pushes, [["onPush", "x"]]);
    client.close();
  });
});

describe("pushes", () => {
  test("on, off and several handlers", async () => {
    const { client, socket } = await connected();
    const got = [];
    const a = (v) => got.push(`a${v}`);
    const off = client.on("p", a);
    client.on("p", (v) => got.push(`b${v}`));
    socket.receive(push("p", json(1)), push("q", json(1)));
    off();
    socket.receive(push("p", json(2)));
    client.off("p");
    socket.receive(push("p", json(3)));
    assert.deepEqual(got, ["a1", "b1", "b2"]);
  });

  test("UTF-8 route", async () => {
    const { client, socket } = await connected();
    const got = [];
    client.on("größe", (v) => got.push(v));
    socket.receive(data(concat([0x06, 7], utf8("größe"), json(1))));
    assert.deepEqual(got, [1]);
  });

  test("many packets in one WebSocket message, and one in many", async () => {
    const { client, socket } = await connected();
    const got = [];
    client.on("p", (v) => got.push(v));
    const both = concat(push("p", json(1)), push("p", json(2)));
    socket.receive(both);
    for (const byte of both) socket.receive([byte]);
    assert.deepEqual(got, [1, 2, 1, 2]);
  });

  test("compressed and plain messages keep their order, up to the end", async () => {
    const { client, states, socket } = await connected();
    const got = [];
    const long = "x".repeat(100_000);
    client.on("p", (v) => got.push(v.length ?? v));
    const answer = client.request("a.b").then((v) => got.push(`answer ${v}`));
    const kicked = new Promise((resolve) => client.addEventListener("kicked", resolve));
    socket.receive(
      push("p", json(1)),
      push("p", deflateSync(json(long)), 0x10),
      push("p", json(2)),
      response(1, json("3")),
      push("p", deflateSync(json(4)), 0x10),
      encodePacket(Packet.KICK, json({ reason: "enough" })),
    );
    socket.hangUp();
    assert.deepEqual(got, [1], "what is in front of the first compressed message is there at once");
    await Promise.all([answer, kicked]);
    assert.deepEqual(got, [1, 100_000, 2, "answer 3", 4]);
    assert.deepEqual(states.map((s) => [s.state, s.reason]), [["kicked", "enough"]]);
  });

  test("a handler that throws stops nobody", async () => {
    const { client, socket } = await connected();
    const got = [];
    const uncaught = new Promise((resolve) => {
      const theirs = process.listeners("uncaughtException");
      process.removeAllListeners("uncaughtException");
      process.once("uncaughtException", (err) => {
        for (const fn of theirs) process.on("uncaughtException", fn);
        resolve(err);
      });
    });
    client.on("p", () => {
      throw new Error("in a handler");
    });
    client.on("p", (v) => got.push(v));
    socket.receive(push("p", json(1)));
    assert.deepEqual(got, [1]);
    assert.equal((await uncaught).message, "in a handler");
  });

  const violations = [
    ["unknown packet type", bytes("09000000")],
    ["bad message", data(bytes("06"))],
    ["request from the server", data(bytes("000103612e62"))],
    ["unknown route code", data(bytes("070063"))],
    ["bad zlib", data(bytes("160170ffff"))],
  ];
  for (const [name, packet] of violations) {
    test(`${name} ends the connection`, async () => {
      const { client, socket } = await connected();
      const lost = new Promise((resolve) => client.addEventListener("reconnecting", resolve));
      socket.receive(packet);
      assert.equal((await lost).detail.error.code, Code.BAD_REQUEST);
      assert.equal(socket.closedWith, 1000);
    });
  }

  test("text message ends the connection", async () => {
    const { states, socket } = await connected();
    socket.onmessage({ data: "hello" });
    assert.equal(states.at(-1).error.code, Code.BAD_REQUEST);
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
    now += 9000; // and no timer ran: a hidden page
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
    assert.equal(socket.closedWith, 1000);
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

  test("with jitter of half the delay", async () => {
    mock.method(Math, "random", () => 0);
    const { states } = await connected();
    last().hangUp();
    assert.equal(states.at(-1).delay, 250);
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
    last().receive(response(3, json("elsewhere")));
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

  test("reconnect after a kick if asked for", async () => {
    const { client, states, socket } = await connected({ reconnect: { afterKick: true } });
    socket.receive(encodePacket(Packet.KICK));
    assert.deepEqual(states.map((s) => s.state), ["kicked", "reconnecting"]);
    advance(500);
    last().welcome();
    assert.equal(client.state, "connected");
  });

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
