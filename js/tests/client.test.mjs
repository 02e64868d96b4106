// Messages: the client and a server made of bytes.

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

  test("abort", async () => {
    const { client, socket } = await connected();
    const aborter = new AbortController();
    const first = client.request("a.b", 1, { signal: aborter.signal });
    const second = client.request("a.b", 2);
    const why = new Error("changed my mind");
    aborter.abort(why);
    await assert.rejects(first, (err) => err === why);
    socket.receive(response(1, json("late")), response(2, json("in time")));
    assert.equal(await second, "in time");
    socket.sent.length = 0;
    await assert.rejects(client.request("a.b", 3, { signal: aborter.signal }), (err) => err === why);
    assert.deepEqual(socket.sent, [], "what is aborted before is not sent");
  });

  test("an answered request lets go of its signal", async () => {
    const { client, socket } = await connected();
    const aborter = new AbortController();
    const listeners = [];
    mock.method(aborter.signal, "addEventListener", (_, fn) => listeners.push(fn));
    mock.method(aborter.signal, "removeEventListener", (_, fn) => listeners.splice(listeners.indexOf(fn), 1));
    const got = client.request("a.b", 1, { signal: aborter.signal });
    assert.equal(listeners.length, 1);
    socket.receive(response(1, json("x")));
    assert.equal(await got, "x");
    assert.equal(listeners.length, 0);
  });

  test("a timeout that no timer can have", async () => {
    const { client, socket } = await connected({ sys: { heartbeat: 0 } });
    const got = client.request("a.b", 1, { timeout: 2 ** 40 });
    advance(60_000);
    socket.receive(response(1, json("x")));
    assert.equal(await got, "x");
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
    await assert.rejects(got, (err) => {
      assert.ok(err instanceof DisconnectedError);
      assert.deepEqual([err.code, err.unsent], [Code.CLOSED, false]);
      return /1001: bye/.test(err.message);
    });
    await assert.rejects(client.request("a.b"), (err) => err instanceof DisconnectedError && err.unsent);
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

  test("once", async () => {
    const { client, socket } = await connected();
    const got = [];
    client.once("p", (v) => got.push(`a${v}`));
    const off = client.once("p", (v) => got.push(`b${v}`));
    off();
    const both = (v) => got.push(`c${v}`);
    client.on("p", both);
    client.once("p", both); // stays, and is called once for a push
    client.once("p", (v) => v === 1 && client.once("p", (v) => got.push(`d${v}`)));
    socket.receive(push("p", json(1)), push("p", json(2)), push("p", json(3)));
    assert.deepEqual(got, ["a1", "c1", "c2", "d2", "c3"]);
  });

  test("a handler that another one takes off is not called", async () => {
    const { client, socket } = await connected();
    const got = [];
    client.on("p", () => client.off("p", late));
    const late = () => got.push("late");
    client.on("p", late);
    client.on("p", () => got.push("later"));
    socket.receive(push("p", json(1)));
    assert.deepEqual(got, ["later"]);
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

  const limits = [
    ["a packet", { maxPacket: 100 }, [encodePacket(Packet.DATA, new Uint8Array(101)).subarray(0, 4)], /packet of 101 bytes, limit 100/],
    ["an inflated payload", { maxInflated: 1000 }, [push("p", deflateSync(json("x".repeat(2000))), 0x10)], /more than 1000 bytes/],
    ["what waits", { maxInbox: 1000 }, [push("p", deflateSync(json("x")), 0x10), push("p", json("x".repeat(1000)))], /more than 1000 bytes wait/],
  ];
  for (const [name, options, packets, message] of limits) {
    test(`a limit for ${name}`, async () => {
      const { client, socket } = await connected(options);
      const lost = new Promise((resolve) => client.addEventListener("reconnecting", resolve));
      socket.receive(...packets);
      const { error } = (await lost).detail;
      assert.ok(error instanceof ProtocolError);
      assert.match(error.message, message);
      assert.equal(socket.closedWith, 1000);
    });
  }

  test("text message ends the connection", async () => {
    const { states, socket } = await connected();
    socket.onmessage({ data: "hello" });
    assert.equal(states.at(-1).error.code, Code.BAD_REQUEST);
  });
});

describe("requests made while away", () => {
  const away = { whileAway: "wait", maxWaiting: 2 };

  test("wait for the next connection, behind those of its listeners", async () => {
    const { client } = await connected(away);
    last().hangUp();
    const first = client.request("a.b", 1);
    const second = client.request("a.b", 2);
    client.addEventListener("connected", () => client.request("a.b", 0).catch(() => {}), { once: true });
    advance(500);
    last().welcome({ dict: { "a.b": 7 } });
    // Type and id, the code 7, the data.
    assert.deepEqual(last().sent.slice(2), ["04000005" + "0101000730", "04000005" + "0102000731", "04000005" + "0103000732"]);
    last().receive(response(3, json("second")), response(2, json("first")));
    assert.deepEqual(await Promise.all([first, second]), ["first", "second"]);
  });

  test("are bounded", async () => {
    const { client } = await connected(away);
    last().hangUp();
    const waiting = [client.request("a.b"), client.request("a.b")];
    await assert.rejects(client.request("a.b"), { unsent: true, message: /2 requests wait already/ });
    client.close();
    for (const one of waiting) await assert.rejects(one, { code: Code.CLOSED, unsent: true });
    await assert.rejects(client.request("a.b"), { unsent: true, message: /not connected/ });
  });

  test("can be told apart, one by one", async () => {
    const { client } = await connected();
    last().hangUp();
    await assert.rejects(client.request("a.b"), { unsent: true });
    const one = client.request("a.b", 1, { whileAway: "wait" });
    advance(500);
    last().welcome();
    last().receive(response(1, json("x")));
    assert.equal(await one, "x");
  });

  test("time out and can be aborted", async () => {
    const { client } = await connected({ ...away, reconnect: { minDelay: 60_000, maxDelay: 60_000 } });
    last().hangUp();
    const aborter = new AbortController();
    const aborted = client.request("a.b", 1, { signal: aborter.signal });
    const late = client.request("a.b", 1, { timeout: 1000 });
    aborter.abort();
    await assert.rejects(aborted, { name: "AbortError" });
    advance(1000);
    await assert.rejects(late, { code: Code.TIMEOUT, unsent: true });
    client.reconnectNow();
    last().welcome();
    assert.equal(last().sent.length, 2, "a handshake and an ack");
  });

  test("wait for the first connection", async () => {
    const { client, done } = connecting(away);
    const got = client.request("a.b", 1);
    last().welcome();
    await done;
    last().receive(response(1, json("x")));
    assert.equal(await got, "x");
  });

  test("wait while a server ends", async () => {
    const { client, socket } = await connected(away);
    socket.receive(encodePacket(Packet.ACK));
    const got = client.request("a.b", 1);
    socket.hangUp(1001);
    advance(500);
    last().welcome();
    last().receive(response(1, json("x")));
    assert.equal(await got, "x");
  });

  test("that cannot be sent are rejected by themselves", async () => {
    const { client } = await connected(away);
    last().hangUp();
    const bad = client.request("a".repeat(256), 1);
    const good = client.request("a.b", 1);
    advance(500);
    last().welcome();
    await assert.rejects(bad, RangeError);
    const sent = Buffer.from(last().sent.at(-1), "hex");
    last().receive(response(sent[5], json("x")));
    assert.equal(await good, "x");
  });

  test("notify does not wait", async () => {
    const { client } = await connected(away);
    last().hangUp();
    assert.throws(() => client.notify("a.b"), { unsent: true });
  });
});
