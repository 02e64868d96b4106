// A client for Pitaya and pomelo game servers over WebSocket.
//
// It runs in browsers and in Node 20 or later (a WebSocket class is passed in where there is none), and depends on
// nothing. It is one file, so that it can be copied. The README beside it is the manual, pitaya.d.ts has the types.
//
// From top to bottom: errors, packets, messages, payloads, and the Client that puts them together. The functions above
// the Client work on bytes alone and are exported for tests and tools.

// ---------------------------------------------------------------------------------------------------- errors

/** Codes of the errors this client makes itself; the others come from the server. */
export const Code = Object.freeze({
  /** The server's handshake answer refused this client, or bytes or payloads are not what they should be. */
  BAD_REQUEST: "PIT-400",
  /** There is no connection, or it ended before the answer came. */
  CLOSED: "PIT-499",
  /** The answer did not come in time. The server may have handled the request nevertheless. */
  TIMEOUT: "PIT-504",
});

/** What requests and connects are rejected with. */
export class PitayaError extends Error {
  /**
   * @param {string} message
   * @param {string} code as "PIT-404"; applications choose codes of their own
   * @param {Record<string, string>} [metadata] what the handler added to its error
   * @param {unknown} [cause]
   */
  constructor(message, code, metadata = {}, cause = undefined) {
    super(message, cause === undefined ? undefined : { cause });
    this.name = "PitayaError";
    this.code = code;
    this.metadata = metadata;
    /** Whether the request was never sent: it cannot have been handled, and may be made again. */
    this.unsent = false;
  }
}

/**
 * What a request is rejected with that needs a connection and has none, or lost it before the answer came. `unsent`
 * tells the two apart: true, it cannot have been handled; false, nobody knows.
 */
export class DisconnectedError extends PitayaError {
  /** @param {string} message @param {{unsent?: boolean, cause?: unknown}} [options] */
  constructor(message, { unsent = false, cause } = {}) {
    super(message, Code.CLOSED, {}, cause);
    this.name = "DisconnectedError";
    this.unsent = unsent;
  }
}

/** A violation of the protocol. The stream cannot be trusted after one, so the connection ends. */
export class ProtocolError extends PitayaError {
  /** @param {string} message @param {unknown} [cause] */
  constructor(message, cause) {
    super(message, Code.BAD_REQUEST, {}, cause);
    this.name = "ProtocolError";
  }
}

const encoder = new TextEncoder();
const decoder = new TextDecoder("utf-8", { fatal: true });

/** @param {Uint8Array} bytes @param {string} what names the text in the error */
function decodeText(bytes, what) {
  try {
    return decoder.decode(bytes);
  } catch (err) {
    throw new ProtocolError(`${what} is not valid UTF-8`, err);
  }
}

// --------------------------------------------------------------------------------------------------- packets

/** Packet types: the first byte of every packet. */
export const Packet = Object.freeze({ HANDSHAKE: 1, ACK: 2, HEARTBEAT: 3, DATA: 4, KICK: 5 });

const HEADER_SIZE = 4;
const MAX_BODY = 0xffffff; // what the 24-bit length can express
const EMPTY = new Uint8Array(0);

/**
 * Makes a packet: type, 24-bit big-endian length, body.
 *
 * @param {number} type one of {@link Packet}
 * @param {Uint8Array} [body]
 * @returns {Uint8Array}
 */
export function encodePacket(type, body = EMPTY) {
  if (body.length > MAX_BODY) throw new RangeError(`packet body of ${body.length} bytes, limit ${MAX_BODY}`);
  const out = new Uint8Array(HEADER_SIZE + body.length);
  out[0] = type;
  out[1] = body.length >>> 16;
  out[2] = body.length >>> 8;
  out[3] = body.length;
  out.set(body, HEADER_SIZE);
  return out;
}

/**
 * Cuts a byte stream into packets. Servers send each packet as one WebSocket message, but nothing in the protocol
 * depends on it, and so nothing does here.
 */
export class PacketReader {
  #limit;
  /** @type {Uint8Array[]} what has come and is no whole packet yet; put together once, when it is one */
  #parts = [];
  #size = 0; // of all parts
  #need = HEADER_SIZE; // bytes with which the next thing can be read

  /** @param {number} [limit] of the body of one packet, in bytes; a larger one is a {@link ProtocolError} */
  constructor(limit = MAX_BODY) {
    this.#limit = limit;
  }

  /**
   * Takes the next bytes of the stream and returns the packets that are complete with them. Bodies are views.
   *
   * @param {Uint8Array} bytes
   * @returns {{type: number, body: Uint8Array}[]}
   */
  push(bytes) {
    this.#parts.push(bytes);
    this.#size += bytes.length;
    /** @type {{type: number, body: Uint8Array}[]} */
    const packets = [];
    if (this.#size < this.#need) return packets;
    let b = this.#parts.length === 1 ? bytes : join(this.#parts, this.#size);
    this.#need = HEADER_SIZE;
    while (b.length >= HEADER_SIZE) {
      const type = b[0];
      if (type < Packet.HANDSHAKE || type > Packet.KICK) throw new ProtocolError(`packet of unknown type ${type}`);
      const length = (b[1] << 16) | (b[2] << 8) | b[3];
      if (length > this.#limit) throw new ProtocolError(`packet of ${length} bytes, limit ${this.#limit}`);
      const end = HEADER_SIZE + length;
      if (b.length < end) {
        this.#need = end;
        break;
      }
      packets.push({ type, body: b.subarray(HEADER_SIZE, end) });
      b = b.subarray(end);
    }
    this.#parts = b.length > 0 ? [b] : [];
    this.#size = b.length;
    return packets;
  }
}

/** @param {Uint8Array[]} parts @param {number} size of all of them @returns {Uint8Array} */
function join(parts, size) {
  const out = new Uint8Array(size);
  let at = 0;
  for (const part of parts) {
    out.set(part, at);
    at += part.length;
  }
  return out;
}

// -------------------------------------------------------------------------------------------------- messages

/** Message types: bits 1 to 3 of a message's first byte. */
export const Message = Object.freeze({ REQUEST: 0, NOTIFY: 1, RESPONSE: 2, PUSH: 3 });

const FLAG_ROUTE_CODE = 0x01;
const FLAG_COMPRESSED = 0x10;
const FLAG_ERROR = 0x20;
const MAX_ROUTE = 255; // one length byte
const MAX_ID_BYTES = 10; // a 64-bit number, 7 bits per byte

/** The routes that have a 16-bit code, as announced in the handshake. */
export class Dictionary {
  /** @param {Record<string, number>} [routes] a code that is none is a {@link ProtocolError} */
  constructor(routes = {}) {
    /** @type {Map<string, number>} */
    this.codes = new Map(Object.entries(routes));
    /** @type {Map<number, string>} */
    this.routes = new Map();
    for (const [route, code] of this.codes) {
      if (!Number.isInteger(code) || code < 0 || code > 0xffff) throw new ProtocolError(`the code of ${route} is no number of 16 bits`);
      this.routes.set(code, route);
    }
  }
}

/**
 * Makes a message. A route that is in the dictionary becomes its code.
 *
 * @param {{type: number, id?: number, route?: string, payload?: Uint8Array}} message
 * @param {Dictionary} [dictionary]
 * @returns {Uint8Array}
 */
export function encodeMessage({ type, id = 0, route = "", payload = EMPTY }, dictionary) {
  const head = [type << 1];
  if (type === Message.REQUEST || type === Message.RESPONSE) {
    // Not with shifts, which would cut the id to 32 bits.
    let rest = id;
    for (; rest >= 0x80; rest = Math.floor(rest / 0x80)) head.push((rest % 0x80) | 0x80);
    head.push(rest);
  }
  if (type !== Message.RESPONSE) {
    const code = dictionary?.codes.get(route);
    if (code !== undefined) {
      head[0] |= FLAG_ROUTE_CODE;
      head.push(code >>> 8, code & 0xff);
    } else {
      const bytes = encoder.encode(route);
      if (bytes.length > MAX_ROUTE) throw new RangeError(`route of ${bytes.length} bytes, limit ${MAX_ROUTE}`);
      head.push(bytes.length, ...bytes);
    }
  }
  const out = new Uint8Array(head.length + payload.length);
  out.set(head);
  out.set(payload, head.length);
  return out;
}

/**
 * Takes a message apart. The payload is a view, and still compressed when `compressed` is true.
 *
 * @param {Uint8Array} b
 * @param {Dictionary} [dictionary]
 * @returns {{type: number, id: number, route: string, payload: Uint8Array, error: boolean, compressed: boolean}}
 */
export function decodeMessage(b, dictionary) {
  if (b.length < 2) throw new ProtocolError("message too short");
  const flag = b[0];
  const type = (flag >> 1) & 0x07;
  if (type > Message.PUSH) throw new ProtocolError(`message of unknown type ${type}`);
  let at = 1;
  let id = 0;
  if (type === Message.REQUEST || type === Message.RESPONSE) {
    // Ids beyond 2^53 lose precision here. None of them can be ours, so they just meet no waiting request.
    for (let unit = 1; ; unit *= 0x80) {
      if (at >= b.length || at > MAX_ID_BYTES) throw new ProtocolError("message with an unterminated id");
      const byte = b[at++];
      id += (byte & 0x7f) * unit;
      if (byte < 0x80) break;
    }
  }
  let route = "";
  if (type !== Message.RESPONSE) {
    if (flag & FLAG_ROUTE_CODE) {
      if (at + 2 > b.length) throw new ProtocolError("message ends within its route code");
      const code = (b[at] << 8) | b[at + 1];
      const known = dictionary?.routes.get(code);
      if (known === undefined) throw new ProtocolError(`route code ${code} is not in the dictionary`);
      route = known;
      at += 2;
    } else {
      if (at >= b.length || at + 1 + b[at] > b.length) throw new ProtocolError("message ends within its route");
      route = decodeText(b.subarray(at + 1, at + 1 + b[at]), "route");
      at += 1 + b[at];
    }
  }
  const error = (flag & FLAG_ERROR) !== 0;
  const compressed = (flag & FLAG_COMPRESSED) !== 0;
  return { type, id, route, payload: b.subarray(at), error, compressed };
}

// -------------------------------------------------------------------------------------------------- payloads

/** Whether this platform can inflate, and the server therefore may compress. */
export const canInflate = typeof DecompressionStream === "function";

/**
 * Inflates zlib data (RFC 1950, which the web platform calls "deflate").
 *
 * @param {Uint8Array} bytes
 * @param {number} max limit in bytes: a few kilobytes can inflate to gigabytes
 * @returns {Promise<Uint8Array>}
 */
export async function inflate(bytes, max) {
  if (!canInflate) throw new ProtocolError("compressed data, which was not asked for: this platform cannot inflate");
  const reader = new Blob([/** @type {BlobPart} */ (bytes)]).stream().pipeThrough(new DecompressionStream("deflate")).getReader();
  const chunks = [];
  let size = 0;
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      size += value.length;
      if (size > max) throw new ProtocolError(`payload inflates to more than ${max} bytes`);
      chunks.push(value);
    }
  } catch (err) {
    reader.cancel().catch(() => {}); // the stream has failed already; this frees what it still holds
    throw err instanceof ProtocolError ? err : new ProtocolError("payload is not valid zlib data", err);
  }
  return join(chunks, size);
}

/** @param {Uint8Array} b whether b begins as zlib data does; no JSON text begins like that */
function looksLikeZlib(b) {
  return b.length > 2 && b[0] === 0x78 && [0x01, 0x5e, 0x9c, 0xda].includes(b[1]);
}

/** @param {Uint8Array} b @returns {any} undefined for an empty payload */
function parseJSON(b) {
  return b.length === 0 ? undefined : JSON.parse(decodeText(b, "payload"));
}

/**
 * Decodes the payload of an error answer.
 *
 * @param {Uint8Array} b
 * @param {string} serializer as announced in the handshake: "json" or "protobuf"
 * @returns {PitayaError}
 */
export function decodeError(b, serializer) {
  const { code, msg, metadata } = serializer === "protobuf" ? parseProtobufError(b) : parseJSON(b) ?? {};
  return new PitayaError(String(msg || code || "unknown error"), String(code || "PIT-000"), metadata ?? {});
}

/**
 * Reads the protobuf message `protos.Error`: code = 1, msg = 2, metadata = 3 (a map, so each entry is a message of
 * key = 1 and value = 2). Unknown fields are skipped.
 *
 * @param {Uint8Array} b
 */
function parseProtobufError(b) {
  const error = { code: "", msg: "", metadata: /** @type {Record<string, string>} */ ({}) };
  for (const [field, bytes] of protobufFields(b)) {
    if (field === 1) error.code = decodeText(bytes, "error code");
    else if (field === 2) error.msg = decodeText(bytes, "error text");
    else if (field === 3) {
      const entry = ["", "", ""];
      for (const [n, text] of protobufFields(bytes)) if (n < 3) entry[n] = decodeText(text, "error metadata");
      // Not by assignment, which would take the key "__proto__" for something else.
      Object.defineProperty(error.metadata, entry[1], { value: entry[2], enumerable: true, configurable: true });
    }
  }
  return error;
}

/** @param {Uint8Array} b @returns {Generator<[number, Uint8Array]>} the length-delimited fields of a protobuf message */
function* protobufFields(b) {
  let at = 0;
  const varint = () => {
    for (let n = 0, unit = 1; ; unit *= 0x80) {
      if (at >= b.length || unit > 2 ** 63) throw new ProtocolError("malformed protobuf error");
      const byte = b[at++];
      n += (byte & 0x7f) * unit;
      if (byte < 0x80) return n;
    }
  };
  while (at < b.length) {
    const tag = varint();
    const wireType = tag % 8;
    const size = wireType === 1 ? 8 : wireType === 5 ? 4 : wireType === 2 ? varint() : -1;
    if (wireType === 0) varint();
    else if (size < 0 || at + size > b.length) throw new ProtocolError("malformed protobuf error");
    else {
      if (wireType === 2) yield [Math.floor(tag / 8), b.subarray(at, at + size)];
      at += size;
    }
  }
}

// ------------------------------------------------------------------------------------------------- resumption

const MAX_TOKEN = 1024; // characters; the library's have some thirty

/**
 * A session that the server keeps for a while when its connection is lost.
 *
 * @typedef {object} Kept
 * @property {string} url where it is
 * @property {string} token the one that was offered last; using it takes the session to a new connection
 * @property {number} received pushes since the session began
 */

/** Where a {@link Kept} survives the page, if the application has given a place; see `resume` of {@link Options}. */
class Shelf {
  #storage;
  #key;

  /** @param {import("@pitaya-go/client").ResumeStorage | undefined} storage @param {string} key */
  constructor(storage, key) {
    this.#storage = storage;
    this.#key = key;
  }

  /** What lies there for this address. What somebody else has put there is nothing. @param {string} url @returns {Kept | null} */
  take(url) {
    try {
      const kept = JSON.parse(this.#storage?.getItem(this.#key) ?? "null");
      // The token is a secret between this client and that server, so no other address gets it.
      if (kept?.url !== url || !isToken(kept.token)) return null;
      if (!Number.isSafeInteger(kept.received) || kept.received < 0) return null;
      return { url, token: kept.token, received: kept.received };
    } catch {
      return null; // switched off, or not ours
    }
  }

  /** @param {Kept | null} kept */
  put(kept) {
    try {
      if (kept) this.#storage?.setItem(this.#key, JSON.stringify(kept));
      else this.#storage?.removeItem(this.#key);
    } catch {
      // Full or switched off: the session can be resumed as long as the page is there.
    }
  }
}

/** @param {unknown} token @returns {token is string} */
function isToken(token) {
  return typeof token === "string" && token.length > 0 && token.length <= MAX_TOKEN;
}

// ---------------------------------------------------------------------------------------------------- client

/** @typedef {import("@pitaya-go/client").State} State */
/** @typedef {import("@pitaya-go/client").StateDetail} StateDetail */
/** @typedef {import("@pitaya-go/client").Options} Options */
/** @typedef {import("@pitaya-go/client").RequestOptions} RequestOptions */

/**
 * One connection: what belongs to it goes when it goes.
 *
 * @typedef {object} Link
 * @property {WebSocket} socket
 * @property {PacketReader} reader
 * @property {({type: number, body: Uint8Array} | {ended: Error})[]} inbox in order of arrival
 * @property {number} inboxSize bytes in it
 * @property {boolean} draining whether someone works on the inbox
 * @property {boolean} ready whether the handshake is done
 * @property {number} readyAt when it was
 * @property {boolean} parting whether the server ends, and was told that no message follows
 * @property {number} heardAt when the last packet came
 * @property {number} sentAt when the last packet went
 * @property {number} interval of heartbeats in milliseconds, 0 for none
 * @property {number} unconfirmed bytes of pushes that the server has not been told of
 * @property {number} confirmedAt when it was told last
 * @property {Set<ReturnType<typeof setTimeout>>} timers
 */

/**
 * A request that has no answer yet.
 *
 * @typedef {object} Call
 * @property {string} route
 * @property {Uint8Array} payload
 * @property {number} id 0 while it waits for a connection
 * @property {(value: any) => void} resolve
 * @property {(err: unknown) => void} reject
 * @property {ReturnType<typeof setTimeout>} [timer]
 * @property {AbortSignal} [signal]
 * @property {() => void} [onAbort]
 */

const PITAYA_JS = "1.1.0"; // announced as sys.version
const MAX_ID = 2 ** 31 - 1; // what every server implementation takes
const MAX_TIMER = 2 ** 31 - 1; // ms; longer ones fire at once
const CONFIRM_BYTES = 64 << 10; // pushes of this size are confirmed before the next heartbeat is due
const PUSH_COST = 656; // what a push counts beyond its payload: servers keep a number of them, so that 100 are enough
const CONFIRM_PAUSE = 1000; // ms between two heartbeats of that kind; a server might take more for a flood
const THAW_MS = 1000; // for what has come while the page was frozen

/** Statuses of close frames. 1000 ends the session for good; after others the server keeps it, if it can be resumed. */
const Close = Object.freeze({ BYE: 1000, GIVEN_UP: 4000, KEEP: 4001 });

/**
 * A client of one server.
 *
 * Each change of state is an event named after the state, and one named `state`; both carry a {@link StateDetail}.
 *
 * Pushes, answers and state events come in the order in which the server's packets came, compressed or not.
 */
export class Client extends EventTarget {
  /** @type {State} */
  #state = "closed";
  #changes = 0; // of the state
  #url = "";
  /** @type {any} the options of connect, with the defaults filled in */
  #options;
  /** @type {Link | null} the connection in use or being made */
  #link = null;
  /** @type {{resolve: () => void, reject: (err: Error) => void} | null} connect's promise, until it is settled */
  #first = null;
  #attempt = 0;
  #longest = 0; // the most that the last wait between two attempts can have been
  /** @type {ReturnType<typeof setTimeout> | undefined} the wait for the next attempt */
  #retry;
  /** @type {(() => void) | null} stops listening to the browser */
  #unwatch = null;
  #id = 0;
  /** @type {Map<number, Call>} on their way, by id */
  #pending = new Map();
  /** @type {Set<Call>} for a connection, oldest first */
  #waiting = new Set();
  /** @type {Map<string, Map<(data: any, route: string) => void, boolean>>} by route; true for those that are called once */
  #handlers = new Map();
  #dictionary = new Dictionary();
  #serializer = "json";
  /** @type {Kept | null} the session, where the server keeps it */
  #kept = null;
  #shelf = new Shelf(undefined, "");
  /** Whether a session was lost that may yet be resumed, or whose loss the application is still to be told of. */
  #lostSession = false;

  /** @returns {State} */
  get state() {
    return this.#state;
  }

  /** The name of the server's serializer, once connected: "json", "protobuf" or one of the application's. */
  get serializer() {
    return this.#serializer;
  }

  /** Whether the server would give the present session to a new connection. */
  get resumable() {
    return this.#kept !== null;
  }

  /**
   * Connects, and stays connected until `close`.
   *
   * @param {string | URL} url as "wss://game.example/ws"
   * @param {Options} [options]
   * @returns {Promise<void>} fulfilled when the first handshake is done
   */
  connect(url, options = {}) {
    if (this.#state !== "closed" && this.#state !== "kicked") {
      return Promise.reject(new Error(`connect while ${this.#state}`));
    }
    const { reconnect = true, resume = false, ...rest } = options;
    this.#url = String(url);
    this.#options = {
      user: {},
      sys: {},
      raw: false,
      requestTimeout: 10_000,
      connectTimeout: 10_000,
      whileAway: "fail",
      maxWaiting: 100,
      maxPacket: 4 << 20,
      maxInflated: 16 << 20,
      maxInbox: 64 << 20,
      browserEvents: true,
      WebSocket: globalThis.WebSocket,
      ...rest,
      reconnect: reconnect && {
        minDelay: 500,
        maxDelay: 15_000,
        attempts: Infinity,
        first: false,
        ...(reconnect === true ? {} : reconnect),
      },
      resume: Boolean(resume),
    };
    const { storage = undefined, key = "pitaya.resume" } = typeof resume === "object" ? resume : {};
    this.#shelf = new Shelf(storage, key);
    if (!resume) this.#kept = null;
    else if (this.#kept?.url !== this.#url) this.#kept = this.#shelf.take(this.#url);
    this.#lostSession = this.#kept !== null;
    this.#attempt = 0;
    this.#longest = 0;
    if (this.#options.browserEvents) this.#watchBrowser();
    return new Promise((resolve, reject) => {
      this.#first = { resolve, reject };
      this.#open();
    });
  }

  /**
   * Ends the connection and all attempts to have one. Requests without an answer are rejected. The server is told that the
   * session ends.
   *
   * @param {{keepSession?: boolean}} [options] keepSession: the server keeps the session for its time, where it can be
   *   resumed, and the next connect asks for it
   */
  close({ keepSession = false } = {}) {
    if (this.#state !== "closed" && this.#state !== "kicked") {
      const err = new DisconnectedError("the client was closed");
      if (keepSession) this.#detach(err, Close.KEEP);
      else this.#farewell(err);
      this.#finish(err, { state: "closed" });
    } else if (!keepSession) {
      this.#forget();
    }
  }

  /** Makes the next attempt now, where the client waits for it. For a button, as "Try again". */
  reconnectNow() {
    if (this.#state !== "reconnecting") return;
    clearTimeout(this.#retry);
    this.#open();
  }

  /**
   * Asks the server.
   *
   * @param {string} route as "room.join", or "game.room.join" for a server of another type
   * @param {any} [data] what JSON can express, or bytes (a Uint8Array), which go out as they are
   * @param {RequestOptions} [options]
   * @returns {Promise<any>} the answer; rejected with a {@link PitayaError}, or with the reason of the signal
   */
  request(route, data, options = {}) {
    const { timeout = this.#options?.requestTimeout, whileAway = this.#options?.whileAway, signal } = options;
    return new Promise((resolve, reject) => {
      signal?.throwIfAborted();
      /** @type {Call} */
      const call = { route, payload: this.#encode(data), id: 0, resolve, reject, signal };
      if (this.#canSend()) this.#ask(call);
      else this.#wait(call, whileAway);
      if (timeout > 0) {
        call.timer = setTimeout(() => {
          const err = new PitayaError(`${route}: no answer within ${timeout} ms`, Code.TIMEOUT);
          err.unsent = call.id === 0;
          this.#leave(call).reject(err);
        }, Math.min(timeout, MAX_TIMER));
      }
      if (signal) {
        call.onAbort = () => this.#leave(call).reject(signal.reason);
        signal.addEventListener("abort", call.onAbort);
      }
    });
  }

  /**
   * Tells the server something that it does not answer, not even with an error. It never waits for a connection.
   *
   * @param {string} route
   * @param {any} [data] as for `request`
   * @throws {DisconnectedError} when there is no connection
   */
  notify(route, data) {
    const payload = this.#encode(data);
    if (!this.#canSend()) throw this.#unsent(route);
    this.#sendMessage({ type: Message.NOTIFY, route, payload });
  }

  /**
   * Calls fn for each push of a route. It may be called before `connect`, and stays over reconnects. A function is called
   * once for a push, however often it was given.
   *
   * @param {string} route
   * @param {(data: any, route: string) => void} fn
   * @returns {() => void} takes the handler off again, as `off` does
   */
  on(route, fn) {
    return this.#listen(route, fn, false);
  }

  /**
   * Calls fn for the next push of a route, and takes it off before.
   *
   * @param {string} route
   * @param {(data: any, route: string) => void} fn
   * @returns {() => void} takes the handler off again, as `off` does
   */
  once(route, fn) {
    return this.#listen(route, fn, !(this.#handlers.get(route)?.get(fn) === false));
  }

  /**
   * @param {string} route
   * @param {(data: any, route: string) => void} [fn] without it all handlers of the route go
   */
  off(route, fn) {
    const fns = this.#handlers.get(route);
    if (fn) fns?.delete(fn);
    if (!fn || fns?.size === 0) this.#handlers.delete(route);
  }

  /** @param {string} route @param {(data: any, route: string) => void} fn @param {boolean} once */
  #listen(route, fn, once) {
    let fns = this.#handlers.get(route);
    if (!fns) this.#handlers.set(route, (fns = new Map()));
    fns.set(fn, once);
    return () => this.off(route, fn);
  }

  // ------------------------------------------------------------------------------- connections, one by one

  #open() {
    this.#setState({ state: "connecting" });
    if (this.#state !== "connecting" || this.#link) return; // a listener has closed or opened meanwhile
    /** @type {WebSocket} */
    let socket;
    try {
      socket = new this.#options.WebSocket(this.#url);
    } catch (cause) {
      // A malformed address, or ws: on an https: page: no second attempt can do better.
      this.#end(new DisconnectedError(`cannot connect to ${this.#url}`, { unsent: true, cause }));
      return;
    }
    socket.binaryType = "arraybuffer";
    const now = performance.now();
    /** @type {Link} */
    const link = {
      socket,
      reader: new PacketReader(this.#options.maxPacket),
      inbox: [],
      inboxSize: 0,
      draining: false,
      ready: false,
      readyAt: now,
      parting: false,
      heardAt: now,
      sentAt: now,
      interval: 0,
      unconfirmed: 0,
      confirmedAt: now,
      timers: new Set(),
    };
    this.#link = link;
    this.#after(link, this.#options.connectTimeout, () => {
      if (!link.ready) this.#lost(link, new PitayaError("no handshake answer in time", Code.TIMEOUT));
    });
    socket.onopen = () => this.#sendHandshake(link);
    socket.onmessage = ({ data }) => this.#receive(link, data);
    // An error event says nothing and is followed by a close event; it is listened to because some implementations for
    // Node throw otherwise. The close event is queued behind the packets that came before it, some of which may still
    // be inflating.
    socket.onerror = () => {};
    socket.onclose = ({ code, reason }) => {
      const why = reason ? `: ${reason}` : "";
      this.#take(link, { ended: new DisconnectedError(`the connection was closed (${code}${why})`) });
    };
  }

  /** @param {Link} link */
  #sendHandshake(link) {
    if (this.#link !== link) return;
    /** @type {Record<string, unknown>} */
    const sys = { type: "js-websocket", version: PITAYA_JS, ...this.#options.sys };
    // What other clients of sys.type cannot do: take compressed payloads, codes in the routes of pushes, and leave a
    // server that ends without losing a request.
    sys.features = canInflate ? ["inflate", "pushcodes", "drain"] : ["pushcodes", "drain"];
    let { user } = this.#options;
    if (this.#options.resume) {
      const resume = this.#kept ? { token: this.#kept.token, received: this.#kept.received } : {};
      user = { ...user, resume };
    }
    this.#sendPacket(link, Packet.HANDSHAKE, encoder.encode(JSON.stringify({ sys, user })));
  }

  /** @param {Link} link @param {unknown} data */
  #receive(link, data) {
    if (this.#link !== link) return;
    link.heardAt = performance.now();
    try {
      if (!(data instanceof ArrayBuffer)) throw new ProtocolError("text message from the server");
      for (const packet of link.reader.push(new Uint8Array(data))) {
        // Timers of hidden pages are slowed down to one per minute, messages are not. So a heartbeat is also
        // answered, unless the own timer has just sent one.
        if (packet.type !== Packet.HEARTBEAT) this.#take(link, packet);
        else if (link.ready && link.heardAt - link.sentAt > link.interval / 2) this.#sendHeartbeat(link);
      }
    } catch (err) {
      this.#take(link, { ended: /** @type {Error} */ (err) });
    }
  }

  /**
   * Puts one thing that has arrived behind those before it. Inflating is asynchronous and everything else is not: the
   * inbox keeps a short message from overtaking a long one.
   *
   * @param {Link} link
   * @param {any} item
   */
  async #take(link, item) {
    if (this.#link !== link) return;
    link.inbox.push(item);
    link.inboxSize += item.body?.length ?? 0;
    if (link.draining) {
      const { maxInbox } = this.#options;
      if (link.inboxSize > maxInbox) this.#lost(link, new ProtocolError(`more than ${maxInbox} bytes wait behind what is inflated`));
      return;
    }
    link.draining = true;
    while (this.#link === link && link.inbox.length > 0) {
      const next = /** @type {any} */ (link.inbox.shift());
      link.inboxSize -= next.body?.length ?? 0;
      try {
        const waiting = this.#handle(link, next);
        if (waiting) await waiting;
      } catch (err) {
        this.#lost(link, /** @type {Error} */ (err));
      }
    }
    link.draining = false;
  }

  /**
   * @param {Link} link
   * @param {any} item
   * @returns {Promise<void> | void} a promise only if there is something to wait for
   */
  #handle(link, item) {
    if (item.ended) {
      this.#lost(link, item.ended);
    } else if (item.type === Packet.HANDSHAKE) {
      if (!looksLikeZlib(item.body)) return this.#accepted(link, item.body);
      return inflate(item.body, this.#options.maxInflated).then((body) => this.#accepted(link, body));
    } else if (item.type === Packet.KICK) {
      this.#kicked(item.body);
    } else if (item.type === Packet.ACK) {
      this.#part(link);
    } else if (item.type === Packet.DATA) {
      if (!link.ready) throw new ProtocolError("data before the handshake's answer");
      const message = decodeMessage(item.body, this.#dictionary);
      if (!message.compressed) return this.#deliver(link, message);
      return inflate(message.payload, this.#options.maxInflated).then((payload) => {
        if (this.#link === link) this.#deliver(link, { ...message, payload });
      });
    }
  }

  /** Works on the answer to the handshake. @param {Link} link @param {Uint8Array} body */
  #accepted(link, body) {
    if (this.#link !== link || link.ready) return;
    let answer;
    try {
      answer = parseJSON(body) ?? {};
    } catch (err) {
      throw new ProtocolError("handshake answer is not JSON", err);
    }
    if (answer.code !== 200) {
      const err = new PitayaError(String(answer.msg || "the server refused the handshake"), `PIT-${answer.code}`);
      // Too many at once, as after an outage: later there is room. In all other cases the next attempt would be told
      // the same.
      if (answer.code === 429) return this.#lost(link, err);
      this.#detach(err, Close.GIVEN_UP);
      return this.#end(err);
    }
    const sys = answer.sys ?? {};
    if (sys.serializer && sys.serializer !== "json" && !this.#options.raw) {
      const err = new PitayaError(`the server speaks ${sys.serializer}, which needs the option raw`, Code.BAD_REQUEST);
      this.#detach(err, Close.GIVEN_UP);
      return this.#end(err);
    }
    this.#dictionary = new Dictionary(sys.dict ?? {});
    this.#serializer = String(sys.serializer || "json");
    const { resumed, window, reason } = this.#resumption(sys.resume);
    link.ready = true;
    link.readyAt = performance.now();
    this.#sendPacket(link, Packet.ACK);
    link.interval = Math.min(Math.max(0, Number(sys.heartbeat) || 0) * 1000, MAX_TIMER / 2);
    if (link.interval > 0) {
      this.#beat(link);
      this.#watch(link);
    }
    // What waited for a session that is gone was meant for that one: who asks is somebody else now.
    if (this.#lostSession && !resumed) {
      this.#dropWaiting(new DisconnectedError("the session could not be resumed", { unsent: true }));
    }
    this.#lostSession = false;
    this.#setState({ state: "connected", resumed, window, reason });
    if (this.#link !== link) return;
    this.#settle();
    // After the listeners, who may have to say first who they are.
    for (const call of [...this.#waiting]) {
      if (!this.#canSend()) break;
      this.#waiting.delete(call);
      try {
        this.#ask(call);
      } catch (err) {
        this.#leave(call).reject(err);
      }
    }
  }

  /**
   * What the server's answer says about the session: given back, new and kept from now on, or gone with the connection.
   *
   * @param {any} offer
   * @returns {{resumed: boolean, window?: number, reason?: string}}
   */
  #resumption(offer) {
    if (!this.#options.resume || offer === undefined || offer === null) {
      this.#forget();
      return { resumed: false };
    }
    const resumed = offer.resumed === true;
    if (!isToken(offer.token)) throw new ProtocolError("a session without a token to resume it");
    if (resumed && !this.#kept) throw new ProtocolError("a session is resumed that was not asked for");
    // The token is valid from now on, whether the acknowledgement arrives or not.
    this.#kept = { url: this.#url, token: offer.token, received: resumed && this.#kept ? this.#kept.received : 0 };
    this.#shelf.put(this.#kept);
    const reason = !resumed && offer.reason ? String(offer.reason) : undefined;
    return { resumed, window: Math.max(0, Number(offer.window) || 0), reason };
  }

  /** There is nothing to go back to. */
  #forget() {
    this.#kept = null;
    this.#shelf.put(null);
  }

  /** @param {Uint8Array} body */
  #kicked(body) {
    let reason = "";
    try {
      reason = String(parseJSON(body)?.reason ?? "");
    } catch {
      // The body is a courtesy: Pitaya's is empty, and nothing says what others put there.
    }
    this.#forget();
    const err = new DisconnectedError(reason ? `kicked: ${reason}` : "kicked");
    this.#detach(err, Close.BYE);
    this.#finish(err, { state: "kicked", reason });
  }

  /**
   * The server ends, and asks for the last message. It gets an ack, behind which nothing is sent, answers all that came
   * before it, and closes the connection. Sessions end with it.
   *
   * @param {Link} link
   */
  #part(link) {
    if (!link.ready) throw new ProtocolError("ack before the handshake's answer");
    if (link.parting) return;
    link.parting = true;
    this.#sendPacket(link, Packet.ACK);
    this.#forget();
  }

  /** Sends a heartbeat every interval. @param {Link} link */
  #beat(link) {
    this.#after(link, link.interval, () => {
      this.#sendHeartbeat(link);
      this.#beat(link);
    });
  }

  /** Where the session is kept, the server learns by it what it can forget. @param {Link} link */
  #sendHeartbeat(link) {
    let body = EMPTY;
    if (this.#kept) {
      body = new Uint8Array(4);
      new DataView(body.buffer).setUint32(0, this.#kept.received % 2 ** 32);
    }
    link.unconfirmed = 0;
    link.confirmedAt = performance.now();
    this.#sendPacket(link, Packet.HEARTBEAT, body);
  }

  /** Gives the server up when it has been silent for two intervals. @param {Link} link */
  #watch(link, thawed = false) {
    const due = link.heardAt + 2 * link.interval;
    this.#after(link, thawed ? THAW_MS : Math.max(0, due - performance.now()), () => {
      const now = performance.now();
      if (now - link.heardAt < 2 * link.interval) this.#watch(link);
      // A timer that is this late did not run because nothing did: a laptop was asleep, a page was frozen. What has come
      // since is still to be handed over.
      else if (!thawed && now - due >= THAW_MS) this.#watch(link, true);
      else this.#lost(link, new DisconnectedError("the server has fallen silent"));
    });
  }

  /** A timeout that goes with the link. @param {Link} link @param {number} ms @param {() => void} fn */
  #after(link, ms, fn) {
    const timer = setTimeout(() => {
      link.timers.delete(timer);
      fn();
    }, Math.min(ms, MAX_TIMER));
    link.timers.add(timer);
  }

  /** Ends the link and the session, and says so. @param {Error} err for the requests that wait for an answer */
  #farewell(err) {
    const link = this.#link;
    // Of clients whose session is not kept a kick is a violation. Behind the ack of a server that ends nothing is sent.
    if (link?.ready && !link.parting && this.#kept) this.#sendPacket(link, Packet.KICK);
    this.#forget();
    this.#detach(err, Close.BYE);
  }

  /**
   * Lets go of the link, without a change of state.
   *
   * @param {Error} err for the requests that wait for an answer
   * @param {number} status of the close frame
   */
  #detach(err, status) {
    const link = this.#link;
    if (!link) return;
    this.#link = null;
    if (link.ready && this.#options.resume) this.#lostSession = true;
    for (const timer of link.timers) clearTimeout(timer);
    link.socket.onopen = link.socket.onmessage = link.socket.onclose = null;
    link.socket.close(status);
    for (const call of [...this.#pending.values()]) this.#leave(call).reject(err);
  }

  /** The link has failed: what comes next is decided here. @param {Link} link @param {Error} err */
  #lost(link, err) {
    if (this.#link !== link) return;
    // A session that was resumed after a violation would bring the same again.
    if (err instanceof ProtocolError) this.#farewell(err);
    else this.#detach(err, Close.GIVEN_UP);
    // A connection that held for longer than the wait before it was a good one. One that did not is another failed
    // attempt: a server that accepts and closes at once is not to be hammered.
    if (link.ready && performance.now() - link.readyAt > this.#longest) this.#attempt = 0;
    const { reconnect } = this.#options;
    if (!reconnect || (this.#first && !reconnect.first)) this.#end(err);
    else this.#retryLater(err);
  }

  /** @param {Error} err */
  #retryLater(err) {
    const { minDelay, maxDelay, attempts } = this.#options.reconnect;
    if (this.#attempt >= attempts) {
      this.#end(err);
      return;
    }
    let delay = maxDelay;
    // A device without a network waits for one. It tries now and then nevertheless: the server may be on the device.
    if (!this.#offline()) {
      // Anywhere up to the doubled delay: the clients of a server that went down do not come back as one.
      this.#longest = Math.min(maxDelay, minDelay * 2 ** this.#attempt);
      delay = Math.round(this.#longest * Math.random());
      this.#attempt++;
    }
    this.#retry = setTimeout(() => this.#open(), delay);
    this.#setState({ state: "reconnecting", delay, error: err });
  }

  /** Nothing more happens. @param {Error} err */
  #end(err) {
    this.#finish(err, { state: "closed", error: err });
  }

  /** @param {Error} err @param {Omit<StateDetail, "attempt">} change */
  #finish(err, change) {
    clearTimeout(this.#retry);
    this.#unwatch?.();
    this.#unwatch = null;
    this.#dropWaiting(new DisconnectedError(err.message, { unsent: true, cause: err }));
    this.#settle(err);
    this.#setState(change);
  }

  /** Settles connect's promise. @param {Error} [err] */
  #settle(err) {
    const first = this.#first;
    this.#first = null;
    if (err) first?.reject(err);
    else first?.resolve();
  }

  /** @param {Omit<StateDetail, "attempt">} change */
  #setState(change) {
    this.#state = change.state;
    const serial = ++this.#changes;
    const detail = { attempt: this.#attempt, ...change };
    this.dispatchEvent(new CustomEvent(change.state, { detail }));
    // Not if a listener has brought about the next one: the last that is heard of is the one that is.
    if (serial === this.#changes) this.dispatchEvent(new CustomEvent("state", { detail }));
  }

  // -------------------------------------------------------------------------------------------- the browser

  #offline() {
    return this.#options.browserEvents && globalThis.navigator?.onLine === false;
  }

  /** Listens to the network's comings and goings, and to the page's, where there are such things. */
  #watchBrowser() {
    const page = globalThis.document;
    const back = () => this.reconnectNow();
    const shown = () => page.visibilityState === "visible" && !this.#offline() && this.reconnectNow();
    const gone = () => this.#link && this.#lost(this.#link, new DisconnectedError("the device has gone offline"));
    globalThis.addEventListener?.("online", back);
    globalThis.addEventListener?.("offline", gone);
    page?.addEventListener("visibilitychange", shown);
    this.#unwatch?.();
    this.#unwatch = () => {
      globalThis.removeEventListener?.("online", back);
      globalThis.removeEventListener?.("offline", gone);
      page?.removeEventListener("visibilitychange", shown);
    };
  }

  // ------------------------------------------------------------------------------------- messages, both ways

  /** @param {Link} link @param {number} type @param {Uint8Array} [body] */
  #sendPacket(link, type, body) {
    link.socket.send(encodePacket(type, body));
    link.sentAt = performance.now();
  }

  /** Whether a message can be sent now. */
  #canSend() {
    return this.#link !== null && this.#link.ready && !this.#link.parting;
  }

  /** @param {{type: number, id?: number, route: string, payload: Uint8Array}} message */
  #sendMessage(message) {
    const link = /** @type {Link} */ (this.#link);
    this.#sendPacket(link, Packet.DATA, encodeMessage(message, this.#dictionary));
  }

  /** @param {string} route */
  #unsent(route) {
    const why = this.#link?.ready ? "the server ends" : "not connected";
    return new DisconnectedError(`${route}: ${why}`, { unsent: true });
  }

  /** @param {Call} call */
  #ask(call) {
    const id = this.#nextID();
    this.#sendMessage({ type: Message.REQUEST, id, route: call.route, payload: call.payload });
    call.id = id;
    this.#pending.set(id, call);
  }

  /** @param {Call} call @param {unknown} whileAway */
  #wait(call, whileAway) {
    // Only the application knows what still makes sense on a later connection.
    if (whileAway !== "wait" || this.#state === "closed" || this.#state === "kicked") throw this.#unsent(call.route);
    const { maxWaiting } = this.#options;
    if (this.#waiting.size >= maxWaiting) {
      throw new DisconnectedError(`${call.route}: not connected, and ${maxWaiting} requests wait already`, { unsent: true });
    }
    this.#waiting.add(call);
  }

  /** Takes a request off all lists; its promise is the caller's to settle. @param {Call} call */
  #leave(call) {
    clearTimeout(call.timer);
    if (call.onAbort) call.signal?.removeEventListener("abort", call.onAbort);
    this.#pending.delete(call.id);
    this.#waiting.delete(call);
    return call;
  }

  /** @param {Error} err */
  #dropWaiting(err) {
    for (const call of [...this.#waiting]) this.#leave(call).reject(err);
  }

  #nextID() {
    do this.#id = this.#id === MAX_ID ? 1 : this.#id + 1;
    while (this.#pending.has(this.#id));
    return this.#id;
  }

  /** @param {Link} link @param {ReturnType<typeof decodeMessage>} message */
  #deliver(link, { type, id, route, payload, error }) {
    if (type === Message.PUSH) return this.#push(link, route, payload);
    if (type !== Message.RESPONSE) throw new ProtocolError(`message of type ${type} from the server`);
    const call = this.#pending.get(id);
    if (!call) return; // timed out or aborted
    this.#leave(call);
    try {
      if (error) call.reject(decodeError(payload, this.#serializer));
      else call.resolve(this.#decode(payload));
    } catch (err) {
      call.reject(new PitayaError("the answer cannot be decoded", Code.BAD_REQUEST, {}, err));
    }
  }

  /** @param {Link} link @param {string} route @param {Uint8Array} payload */
  #push(link, route, payload) {
    const kept = this.#kept;
    if (kept) kept.received++;
    this.#callHandlers(route, payload);
    // Handlers may have ended all this.
    if (!kept || this.#kept !== kept) return;
    this.#shelf.put(kept);
    if (this.#link !== link) return;
    // The server keeps what is not confirmed, as long as it has room.
    link.unconfirmed += payload.length + PUSH_COST;
    if (link.unconfirmed >= CONFIRM_BYTES && performance.now() - link.confirmedAt >= CONFIRM_PAUSE) this.#sendHeartbeat(link);
  }

  /** @param {string} route @param {Uint8Array} payload */
  #callHandlers(route, payload) {
    const fns = this.#handlers.get(route);
    if (!fns) return;
    let data;
    try {
      data = this.#decode(payload);
    } catch (err) {
      report(new PitayaError(`push ${route} cannot be decoded`, Code.BAD_REQUEST, {}, err));
      return;
    }
    for (const [fn, once] of [...fns]) {
      if (!fns.has(fn)) continue; // taken off by one before it
      if (once) this.off(route, fn);
      try {
        fn(data, route);
      } catch (err) {
        report(err);
      }
    }
  }

  /** @param {any} data @returns {Uint8Array} */
  #encode(data) {
    if (data instanceof Uint8Array) return data;
    if (!this.#options?.raw) return encoder.encode(JSON.stringify(data ?? null));
    if (data === undefined) return EMPTY;
    throw new TypeError("with the option raw, data is a Uint8Array");
  }

  /** @param {Uint8Array} payload */
  #decode(payload) {
    return this.#options.raw ? payload.slice() : parseJSON(payload);
  }
}

/** Shows an error of a push handler where uncaught errors are shown, without stopping the messages behind it. */
function report(/** @type {unknown} */ err) {
  queueMicrotask(() => {
    throw err;
  });
}
