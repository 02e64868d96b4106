// A WebSocket class with what pitaya.js uses of the browsers', for versions of Node that have none. It is for these tests:
// no TLS, no extensions, no limits.

import { createHash, randomBytes } from "node:crypto";
import net from "node:net";

const GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"; // RFC 6455, section 1.3
const CONTINUATION = 0, TEXT = 1, BINARY = 2, CLOSE = 8, PING = 9, PONG = 10;
const CLOSE_WAIT = 1000; // ms, for the other side's close frame

export class WebSocket {
  static CONNECTING = 0;
  static OPEN = 1;
  static CLOSING = 2;
  static CLOSED = 3;

  readyState = WebSocket.CONNECTING;
  binaryType = "arraybuffer"; // the only one
  onopen = null;
  onmessage = null;
  onerror = null;
  onclose = null;

  #socket;
  #rest = Buffer.alloc(0);
  #opcode = 0; // of the message whose frames are being collected
  #frames = [];
  #end = { code: 1006, reason: "" };

  constructor(url) {
    this.url = url;
    const { protocol, hostname, port, host, pathname, search } = new URL(url);
    if (protocol !== "ws:") throw new SyntaxError(`not ws: ${url}`);
    const key = randomBytes(16).toString("base64");
    this.accept = createHash("sha1").update(key + GUID).digest("base64");
    this.#socket = net.connect(Number(port || 80), hostname.replace(/^\[|\]$/g, ""), () => {
      this.#socket.write(
        `GET ${pathname}${search} HTTP/1.1\r\nHost: ${host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n` +
          `Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: ${key}\r\n\r\n`,
      );
    });
    this.#socket.setNoDelay(true);
    this.#socket.on("data", (chunk) => {
      this.#rest = Buffer.concat([this.#rest, chunk]);
      if (this.readyState === WebSocket.CONNECTING && !this.#upgraded()) return;
      while (this.readyState !== WebSocket.CLOSED && this.#frame());
    });
    this.#socket.on("error", () => {});
    this.#socket.on("close", () => this.#closed());
  }

  #upgraded() {
    const end = this.#rest.indexOf("\r\n\r\n");
    if (end < 0) return false;
    const head = this.#rest.subarray(0, end).toString("latin1");
    this.#rest = this.#rest.subarray(end + 4);
    const accept = head.match(/^sec-websocket-accept: *(\S+)/im)?.[1];
    if (!/^HTTP\/1\.1 101 /.test(head) || accept !== this.accept) {
      this.#socket.destroy();
      return false;
    }
    this.readyState = WebSocket.OPEN;
    this.onopen?.({});
    return true;
  }

  /** Takes the next frame, if it is there. */
  #frame() {
    const b = this.#rest;
    if (b.length < 2) return false;
    let length = b[1] & 0x7f;
    let at = 2;
    if (length === 126) {
      if (b.length < 4) return false;
      length = b.readUInt16BE(2);
      at = 4;
    } else if (length === 127) {
      if (b.length < 10) return false;
      length = Number(b.readBigUInt64BE(2));
      at = 10;
    }
    if (b.length < at + length) return false;
    const payload = b.subarray(at, at + length);
    this.#rest = b.subarray(at + length);
    const opcode = b[0] & 0x0f;
    if (opcode === PING) this.#send(PONG, payload);
    else if (opcode === CLOSE) this.#closing(payload);
    else if (opcode !== PONG) {
      if (opcode !== CONTINUATION) this.#opcode = opcode;
      this.#frames.push(payload);
      if (b[0] & 0x80) this.#message();
    }
    return true;
  }

  #message() {
    const all = Buffer.concat(this.#frames);
    this.#frames = [];
    if (this.readyState !== WebSocket.OPEN) return;
    const bytes = all.buffer.slice(all.byteOffset, all.byteOffset + all.length);
    this.onmessage?.({ data: this.#opcode === TEXT ? all.toString() : bytes });
  }

  #closing(payload) {
    if (payload.length >= 2) this.#end = { code: payload.readUInt16BE(0), reason: payload.subarray(2).toString() };
    else this.#end = { code: 1005, reason: "" };
    if (this.readyState === WebSocket.OPEN) this.#send(CLOSE, payload.subarray(0, 2));
    this.readyState = WebSocket.CLOSING;
    this.#socket.end();
  }

  #closed() {
    if (this.readyState === WebSocket.CLOSED) return;
    this.readyState = WebSocket.CLOSED;
    if (this.#end.code === 1006) this.onerror?.({});
    this.onclose?.(this.#end);
  }

  #send(opcode, payload) {
    const mask = randomBytes(4);
    const body = Buffer.from(payload);
    for (let i = 0; i < body.length; i++) body[i] ^= mask[i & 3];
    const n = body.length;
    let head;
    if (n < 126) head = Buffer.from([0x80 | opcode, 0x80 | n]);
    else if (n < 1 << 16) head = Buffer.from([0x80 | opcode, 0x80 | 126, n >> 8, n & 0xff]);
    else {
      head = Buffer.alloc(10);
      head[0] = 0x80 | opcode;
      head[1] = 0x80 | 127;
      head.writeBigUInt64BE(BigInt(n), 2);
    }
    this.#socket.write(Buffer.concat([head, mask, body]));
  }

  send(data) {
    if (this.readyState === WebSocket.CONNECTING) throw new Error("InvalidStateError: still connecting");
    if (this.readyState === WebSocket.OPEN) this.#send(BINARY, data);
  }

  close(code = 1000, reason = "") {
    if (code !== 1000 && !(code >= 3000 && code < 5000)) throw new Error(`InvalidAccessError: close code ${code}`);
    if (this.readyState >= WebSocket.CLOSING) return;
    const connecting = this.readyState === WebSocket.CONNECTING;
    this.readyState = WebSocket.CLOSING;
    if (connecting) {
      this.#socket.destroy();
      return;
    }
    const body = Buffer.alloc(2);
    body.writeUInt16BE(code);
    this.#send(CLOSE, Buffer.concat([body, Buffer.from(reason)]));
    const timer = setTimeout(() => this.#socket.destroy(), CLOSE_WAIT);
    this.#socket.on("close", () => clearTimeout(timer));
  }
}
