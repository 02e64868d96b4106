// A client for Pitaya and pomelo game servers over WebSocket.
//
// It runs in browsers and in Node 20 or later (where a WebSocket class is passed in), and depends on nothing. The
// README beside this file shows how it is used.
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

/** A violation of the protocol. The stream cannot be trusted after one, so the connection ends. */
class ProtocolError extends PitayaError {
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
  /** @type {Uint8Array} */
  #rest = EMPTY;

  /**
   * Takes the next bytes of the stream and returns the packets that are complete with them. Bodies are views.
   *
   * @param {Uint8Array} bytes
   * @returns {{type: number, body: Uint8Array}[]}
   */
  push(bytes) {
    let b = bytes;
    if (this.#rest.length > 0) {
      b = new Uint8Array(this.#rest.length + bytes.length);
      b.set(this.#rest);
      b.set(bytes, this.#rest.length);
    }
    const packets = [];
    while (b.length >= HEADER_SIZE) {
      const type = b[0];
      if (type < Packet.HANDSHAKE || type > Packet.KICK) throw new ProtocolError(`packet of unknown type ${type}`);
      const end = HEADER_SIZE + ((b[1] << 16) | (b[2] << 8) | b[3]);
      if (b.length < end) break;
      packets.push({ type, body: b.subarray(HEADER_SIZE, end) });
      b = b.subarray(end);
    }
    this.#rest = b;
    return packets;
  }
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
  /** @param {Record<string, number>} [routes] */
  constructor(routes = {}) {
    /** @type {Map<string, number>} */
    this.codes = new Map(Object.entries(routes));
    /** @type {Map<number, string>} */
    this.routes = new Map();
    for (const [route, code] of this.codes) this.routes.set(code, route);
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
  const out = new Uint8Array(size);
  let at = 0;
  for (const chunk of chunks) {
    out.set(chunk, at);
    at += chunk.length;
  }
  return out;
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
  return new PitayaError(msg || code || "unknown error", code || "PIT-000", metadata ?? {});
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

// ---------------------------------------------------------------------------------------------------- client

/**
 * @typedef {"connecting" | "connected" | "reconnecting" | "kicked" | "closed"} State
 *
 * - `connecting`: a socket is being opened, or the handshake is under way
 * - `connected`: requests can be made
 * - `reconnecting`: waiting before the next attempt
 * - `kicked`: the server ended the session; nothing more happens (unless `reconnect.afterKick` is set)
 * - `closed`: nothing more happens until `connect` is called
 */

/**
 * @typedef {object} StateDetail what events carry in `detail`
 * @property {State} state
 * @property {number} attempt failed attempts since the last good connection
 * @property {number} [delay] reconnecting: milliseconds until the next attempt
 * @property {string} [reason] kicked: the server's reason, perhaps empty
 * @property {Error} [error] reconnecting and closed: why the connection ended; none after `close()`
 */

/**
 * @typedef {object} ReconnectOptions
 * @property {number} [minDelay] milliseconds before the first attempt, doubled for each following one (500)
 * @property {number} [maxDelay] limit of the doubling (15000)
 * @property {number} [attempts] give up after this many in a row (no limit)
 * @property {boolean} [first] retry also when the very first connection fails, rather than reject `connect` (false)
 * @property {boolean} [afterKick] reconnect also after a kick (false)
 */

/**
 * @typedef {object} Options
 * @property {Record<string, unknown>} [user] the application's part of the handshake
 * @property {Record<string, unknown>} [sys] more for the client's part of it, as `clientVersion` or `platform`
 * @property {boolean | ReconnectOptions} [reconnect] false: a lost connection stays lost (true)
 * @property {boolean} [raw] payloads are bytes in both directions, for servers that do not speak JSON (false)
 * @property {number} [requestTimeout] milliseconds, 0 for none (10000)
 * @property {number} [connectTimeout] milliseconds from opening the socket to the handshake's answer (10000)
 * @property {number} [maxInflated] limit in bytes of one inflated payload (16 MiB)
 * @property {typeof WebSocket} [WebSocket] where there is no global one
 */

/**
 * One connection of a handshake's length: what belongs to it goes when it goes.
 *
 * @typedef {object} Link
 * @property {WebSocket} socket
 * @property {PacketReader} reader
 * @property {({type: number, body: Uint8Array} | {ended: Error})[]} inbox in order of arrival
 * @property {boolean} draining whether someone works on the inbox
 * @property {boolean} ready whether the handshake is done
 * @property {number} readyAt when it was
 * @property {boolean} parting whether the server ends, and was told that no message follows
 * @property {number} heardAt when the last packet came
 * @property {number} sentAt when the last packet went
 * @property {number} interval of heartbeats in milliseconds, 0 for none
 * @property {Set<ReturnType<typeof setTimeout>>} timers
 */

const PITAYA_JS = "1.0.0"; // announced as sys.version
const MAX_ID = 2 ** 31 - 1; // what every server implementation takes

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
  #url = "";
  /** @type {any} the options of connect, with the defaults filled in */
  #options;
  /** @type {Link | null} the connection in use or being made */
  #link = null;
  /** @type {{resolve: () => void, reject: (err: Error) => void} | null} connect's promise, until it is settled */
  #first = null;
  #attempt = 0;
  #delay = 0;
  /** @type {ReturnType<typeof setTimeout> | undefined} the wait for the next attempt */
  #retry;
  #id = 0;
  /** @type {Map<number, {resolve: (v: any) => void, reject: (err: Error) => void, timer?: any}>} */
  #pending = new Map();
  /** @type {Map<string, Set<(data: any, route: string) => void>>} */
  #handlers = new Map();
  #dictionary = new Dictionary();
  #serializer = "json";

  /** @returns {State} */
  get state() {
    return this.#state;
  }

  /** The name of the server's serializer, once connected: "json", "protobuf" or one of the application's. */
  get serializer() {
    return this.#serializer;
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
    const { reconnect = true, ...rest } = options;
    this.#url = String(url);
    this.#options = {
      user: {},
      sys: {},
      raw: false,
      requestTimeout: 10_000,
      connectTimeout: 10_000,
      maxInflated: 16 << 20,
      WebSocket: globalThis.WebSocket,
      ...rest,
      reconnect: reconnect && {
        minDelay: 500,
        maxDelay: 15_000,
        attempts: Infinity,
        first: false,
        afterKick: false,
        ...(reconnect === true ? {} : reconnect),
      },
    };
    this.#attempt = 0;
    this.#delay = 0;
    return new Promise((resolve, reject) => {
      this.#first = { resolve, reject };
      this.#open();
    });
  }

  /** Ends the connection and all attempts to have one. Requests without an answer are rejected. */
  close() {
    if (this.#state === "closed") return;
    const err = new PitayaError("the client was closed", Code.CLOSED);
    this.#detach(err);
    clearTimeout(this.#retry);
    this.#settle(err);
    this.#setState({ state: "closed" });
  }

  /** Makes the next attempt now, where the client waits for it. For a button, or when the network comes back. */
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
   * @param {{timeout?: number}} [options] timeout in milliseconds, 0 for none
   * @returns {Promise<any>} the answer; rejected with a {@link PitayaError}
   */
  request(route, data, { timeout = this.#options?.requestTimeout } = {}) {
    return new Promise((resolve, reject) => {
      const id = this.#nextID();
      this.#sendMessage({ type: Message.REQUEST, id, route, payload: this.#encode(data) });
      /** @type {any} */
      let timer;
      if (timeout > 0) {
        timer = setTimeout(() => {
          this.#pending.delete(id);
          reject(new PitayaError(`${route}: no answer within ${timeout} ms`, Code.TIMEOUT));
        }, timeout);
      }
      this.#pending.set(id, { resolve, reject, timer });
    });
  }

  /**
   * Tells the server something that it does not answer, not even with an error.
   *
   * @param {string} route
   * @param {any} [data] as for `request`
   * @throws {PitayaError} when there is no connection
   */
  notify(route, data) {
    this.#sendMessage({ type: Message.NOTIFY, route, payload: this.#encode(data) });
  }

  /**
   * Calls fn for each push of a route. It may be called before `connect`, and stays over reconnects.
   *
   * @param {string} route
   * @param {(data: any, route: string) => void} fn
   * @returns {() => void} takes the handler off again, as `off` does
   */
  on(route, fn) {
    let fns = this.#handlers.get(route);
    if (!fns) this.#handlers.set(route, (fns = new Set()));
    fns.add(fn);
    return () => this.off(route, fn);
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

  // ------------------------------------------------------------------------------- connections, one by one

  #open() {
    this.#setState({ state: "connecting" });
    if (this.#state !== "connecting" || this.#link) return; // a listener has closed or opened meanwhile
    /** @type {WebSocket} */
    let socket;
    try {
      socket = new this.#options.WebSocket(this.#url);
    } catch (err) {
      // A malformed address, or ws: on an https: page: no second attempt can do better.
      this.#end(new PitayaError(`cannot connect to ${this.#url}`, Code.CLOSED, {}, err));
      return;
    }
    socket.binaryType = "arraybuffer";
    const now = performance.now();
    /** @type {Link} */
    const link = {
      socket,
      reader: new PacketReader(),
      inbox: [],
      draining: false,
      ready: false,
      readyAt: now,
      parting: false,
      heardAt: now,
      sentAt: now,
      interval: 0,
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
      this.#take(link, { ended: new PitayaError(`the connection was closed (${code}${why})`, Code.CLOSED) });
    };
  }

  /** @param {Link} link */
  #sendHandshake(link) {
    if (this.#link !== link) return;
    /** @type {Record<string, unknown>} */
    const sys = { type: "js-websocket", version: PITAYA_JS, ...this.#options.sys };
    // What other clients of sys.type cannot do: take compressed payloads, codes in the routes of pushes, and leave a
    // server that ends without losing a request.
    sys.features = canInflate ? ["inflate", "pushcodes", "drain"] : ["drain"];
    const body = encoder.encode(JSON.stringify({ sys, user: this.#options.user }));
    this.#sendPacket(link, Packet.HANDSHAKE, body);
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
        else if (link.ready && link.heardAt - link.sentAt > link.interval / 2) this.#sendPacket(link, Packet.HEARTBEAT);
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
   * @param {Link["inbox"][number]} item
   */
  async #take(link, item) {
    link.inbox.push(item);
    if (link.draining) return;
    link.draining = true;
    while (this.#link === link && link.inbox.length > 0) {
      try {
        const waiting = this.#handle(link, link.inbox.shift());
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
      this.#kicked(link, item.body);
    } else if (item.type === Packet.ACK) {
      this.#part(link);
    } else if (item.type === Packet.DATA) {
      if (!link.ready) throw new ProtocolError("data before the handshake's answer");
      const message = decodeMessage(item.body, this.#dictionary);
      if (!message.compressed) return this.#deliver(message);
      return inflate(message.payload, this.#options.maxInflated).then((payload) => {
        if (this.#link === link) this.#deliver({ ...message, payload });
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
    const sys = answer.sys ?? {};
    let refused = "";
    if (answer.code !== 200) refused = answer.msg || "the server refused the handshake";
    else if (sys.serializer && sys.serializer !== "json" && !this.#options.raw) {
      refused = `the server speaks ${sys.serializer}, which needs the option raw`;
    }
    if (refused) {
      // The next attempt would be told the same.
      const err = new PitayaError(refused, answer.code === 200 ? Code.BAD_REQUEST : `PIT-${answer.code}`);
      this.#detach(err);
      this.#end(err);
      return;
    }
    this.#dictionary = new Dictionary(sys.dict ?? {});
    this.#serializer = sys.serializer || "json";
    link.ready = true;
    link.readyAt = performance.now();
    this.#sendPacket(link, Packet.ACK);
    link.interval = Math.max(0, Number(sys.heartbeat) || 0) * 1000;
    if (link.interval > 0) {
      this.#beat(link);
      this.#watch(link);
    }
    this.#setState({ state: "connected" });
    this.#settle();
  }

  /** @param {Link} link @param {Uint8Array} body */
  #kicked(link, body) {
    let reason = "";
    try {
      reason = String(parseJSON(body)?.reason ?? "");
    } catch {
      // The body is a courtesy: Pitaya's is empty, and nothing says what others put there.
    }
    const err = new PitayaError(reason ? `kicked: ${reason}` : "kicked", Code.CLOSED);
    this.#detach(err);
    const again = this.#options.reconnect && this.#options.reconnect.afterKick;
    if (!again) this.#settle(err);
    this.#setState({ state: "kicked", reason });
    if (again && this.#state === "kicked") this.#retryLater(err);
  }

  /**
   * The server ends, and asks for the last message. It gets an ack, behind which nothing is sent, answers all that came
   * before it, and closes the connection.
   *
   * @param {Link} link
   */
  #part(link) {
    if (!link.ready) throw new ProtocolError("ack before the handshake's answer");
    if (link.parting) return;
    link.parting = true;
    this.#sendPacket(link, Packet.ACK);
  }

  /** Sends a heartbeat every interval. @param {Link} link */
  #beat(link) {
    this.#after(link, link.interval, () => {
      this.#sendPacket(link, Packet.HEARTBEAT);
      this.#beat(link);
    });
  }

  /** Gives the server up when it has been silent for two intervals. @param {Link} link */
  #watch(link) {
    const patience = link.heardAt + 2 * link.interval - performance.now();
    this.#after(link, Math.max(0, patience), () => {
      if (performance.now() - link.heardAt < 2 * link.interval) this.#watch(link);
      else this.#lost(link, new PitayaError("the server has fallen silent", Code.CLOSED));
    });
  }

  /** A timeout that goes with the link. @param {Link} link @param {number} ms @param {() => void} fn */
  #after(link, ms, fn) {
    const timer = setTimeout(() => {
      link.timers.delete(timer);
      fn();
    }, ms);
    link.timers.add(timer);
  }

  /** Lets go of the link, without a change of state. @param {Error} err for the requests that wait */
  #detach(err) {
    const link = this.#link;
    if (!link) return;
    this.#link = null;
    for (const timer of link.timers) clearTimeout(timer);
    link.socket.onopen = link.socket.onmessage = link.socket.onclose = null;
    link.socket.close(1000);
    const pending = [...this.#pending.values()];
    this.#pending.clear();
    for (const { reject, timer } of pending) {
      clearTimeout(timer);
      reject(err);
    }
  }

  /** The link has failed: what comes next is decided here. @param {Link} link @param {Error} err */
  #lost(link, err) {
    if (this.#link !== link) return;
    this.#detach(err);
    // A connection that held for longer than the wait before it was a good one. One that did not is another failed
    // attempt: a server that accepts and closes at once is not to be hammered.
    if (link.ready && performance.now() - link.readyAt > this.#delay) this.#attempt = 0;
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
    // Between half and all of the doubled delay: the clients of a server that went down do not come back as one.
    const ceiling = Math.min(maxDelay, minDelay * 2 ** this.#attempt);
    this.#delay = Math.round(ceiling * (0.5 + Math.random() / 2));
    this.#attempt++;
    this.#retry = setTimeout(() => this.#open(), this.#delay);
    this.#setState({ state: "reconnecting", delay: this.#delay, error: err });
  }

  /** Nothing more happens. @param {Error} err */
  #end(err) {
    this.#settle(err);
    this.#setState({ state: "closed", error: err });
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
    const detail = { attempt: this.#attempt, ...change };
    this.dispatchEvent(new CustomEvent(change.state, { detail }));
    this.dispatchEvent(new CustomEvent("state", { detail }));
  }

  // ------------------------------------------------------------------------------------- messages, both ways

  /** @param {Link} link @param {number} type @param {Uint8Array} [body] */
  #sendPacket(link, type, body) {
    link.socket.send(encodePacket(type, body));
    link.sentAt = performance.now();
  }

  /** @param {{type: number, id?: number, route: string, payload: Uint8Array}} message */
  #sendMessage(message) {
    // Not queued for a later connection: only the application knows what still makes sense after a reconnect, and
    // what has to come before it.
    if (!this.#link?.ready || this.#link.parting) {
      const why = this.#link?.ready ? "the server ends" : "not connected";
      const err = new PitayaError(`${message.route}: ${why}`, Code.CLOSED);
      err.unsent = true;
      throw err;
    }
    this.#sendPacket(this.#link, Packet.DATA, encodeMessage(message, this.#dictionary));
  }

  #nextID() {
    do this.#id = this.#id === MAX_ID ? 1 : this.#id + 1;
    while (this.#pending.has(this.#id));
    return this.#id;
  }

  /** @param {ReturnType<typeof decodeMessage>} message */
  #deliver({ type, id, route, payload, error }) {
    if (type === Message.RESPONSE) {
      const waiting = this.#pending.get(id);
      if (!waiting) return; // timed out
      this.#pending.delete(id);
      clearTimeout(waiting.timer);
      try {
        if (error) waiting.reject(decodeError(payload, this.#serializer));
        else waiting.resolve(this.#decode(payload));
      } catch (err) {
        waiting.reject(new PitayaError("the answer cannot be decoded", Code.BAD_REQUEST, {}, err));
      }
      return;
    }
    if (type !== Message.PUSH) throw new ProtocolError(`message of type ${type} from the server`);
    const fns = this.#handlers.get(route);
    if (!fns) return;
    let data;
    try {
      data = this.#decode(payload);
    } catch (err) {
      report(new PitayaError(`push ${route} cannot be decoded`, Code.BAD_REQUEST, {}, err));
      return;
    }
    for (const fn of [...fns]) {
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
