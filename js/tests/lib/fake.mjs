// A server made of bytes: the client talks to a fake socket, and the clock is moved by hand.

import assert from "node:assert/strict";
import { mock } from "node:test";

import { Client, Packet, encodePacket } from "../../pitaya.js";

export const hex = (bytes) => Buffer.from(bytes).toString("hex");
export const bytes = (text) => new Uint8Array(Buffer.from(text, "hex"));
export const utf8 = (text) => new Uint8Array(Buffer.from(text));
export const json = (value) => utf8(JSON.stringify(value));
export const concat = (...parts) => new Uint8Array(Buffer.concat(parts.map((part) => Uint8Array.from(part))));

/** All sockets made since the test began, oldest first. */
export let sockets = [];

/** What the client sees of a WebSocket. The test is the server. */
export class FakeSocket {
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
    this.handshake ??= data;
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

export const last = () => sockets.at(-1);
export const data = (body) => encodePacket(Packet.DATA, body);
export const response = (id, payload, flag = 0) => data(concat(bytes((0x04 | flag).toString(16).padStart(2, "0")), [id], payload));
export const push = (route, payload, flag = 0) => data(concat([0x06 | flag, route.length], utf8(route), payload));
export const handshakeOf = (socket) => JSON.parse(Buffer.from(socket.handshake).subarray(4).toString());

/** A client with a record of its states, connected to a fake server. */
export async function connected({ sys, ...options } = {}) {
  const { client, states, done } = connecting(options);
  last().welcome(sys);
  await done;
  states.length = 0;
  last().sent.length = 0;
  return { client, states, socket: last() };
}

export function connecting(options = {}) {
  const client = new Client();
  const states = [];
  client.addEventListener("state", ({ detail }) => states.push(detail));
  const done = client.connect("ws://game.example/ws", { WebSocket: FakeSocket, ...options });
  return { client, states, done };
}

// Time: timers are node's mock timers, and performance.now moves along.
let now = 0;
export function advance(ms) {
  for (const end = now + ms; now < end; ) {
    const step = Math.min(5, end - now);
    now += step;
    mock.timers.tick(step);
  }
}

/** Lets time pass without a timer's running, as where a page is frozen. */
export function freeze(ms) {
  now += ms;
}

/** Before each test. */
export function setUp() {
  sockets = [];
  FakeSocket.refuse = false;
  now = 0;
  mock.timers.enable({ apis: ["setTimeout"] });
  mock.method(performance, "now", () => now);
  mock.method(Math, "random", () => 1); // the longest of the jittered delays
}

/** After each test. */
export function tearDown() {
  mock.timers.reset();
  mock.restoreAll();
}
