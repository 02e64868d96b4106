// Types of pitaya.js. The README beside this file is the manual.

/** Codes of the errors this client makes itself; the others come from the server. */
export const Code: Readonly<{
  /** The server's handshake answer refused this client, or bytes or payloads are not what they should be. */
  BAD_REQUEST: "PIT-400";
  /** There is no connection, or it ended before the answer came. */
  CLOSED: "PIT-499";
  /** The answer did not come in time. The server may have handled the request nevertheless. */
  TIMEOUT: "PIT-504";
}>;

/** What requests and connects are rejected with. */
export class PitayaError extends Error {
  constructor(message: string, code: string, metadata?: Record<string, string>, cause?: unknown);
  /** As "PIT-404"; applications choose codes of their own. */
  code: string;
  /** What the handler added to its error. */
  metadata: Record<string, string>;
  /** Whether the request was never sent: it cannot have been handled, and may be made again. */
  unsent: boolean;
}

/**
 * What a request is rejected with that needs a connection and has none, or lost it before the answer came. `unsent`
 * tells the two apart: true, it cannot have been handled; false, nobody knows.
 */
export class DisconnectedError extends PitayaError {
  constructor(message: string, options?: { unsent?: boolean; cause?: unknown });
}

/** A violation of the protocol. The stream cannot be trusted after one, so the connection ends. */
export class ProtocolError extends PitayaError {
  constructor(message: string, cause?: unknown);
}

/**
 * - `connecting`: a socket is being opened, or the handshake is under way
 * - `connected`: requests can be made
 * - `reconnecting`: waiting before the next attempt
 * - `kicked`: the server ended the session; nothing more happens until `connect` is called
 * - `closed`: nothing more happens until `connect` is called
 */
export type State = "connecting" | "connected" | "reconnecting" | "kicked" | "closed";

/** What events carry in `detail`. */
export interface StateDetail {
  state: State;
  /** Failed attempts since the last good connection. */
  attempt: number;
  /** reconnecting: milliseconds until the next attempt. */
  delay?: number;
  /** connected: whether this is the session from before, with nothing missing, or a new one. */
  resumed?: boolean;
  /** connected: seconds for which the server keeps the session when its connection is lost, if it does. */
  window?: number;
  /**
   * kicked: the server's reason, perhaps empty. connected: why the session was not resumed, if the server says so:
   * "unknown", "gap", "changed" or "refused".
   */
  reason?: string;
  /** reconnecting and closed: why the connection ended; none after `close()`. */
  error?: Error;
}

export interface ReconnectOptions {
  /** Limit of the first delay in milliseconds, doubled for each following one (500). */
  minDelay?: number;
  /** Limit of the doubling (15000). A delay is a random part of what it may be. */
  maxDelay?: number;
  /** Give up after this many in a row (no limit). */
  attempts?: number;
  /** Retry also when the very first connection fails, rather than reject `connect` (false). */
  first?: boolean;
}

/** Where a session's token survives the page; `sessionStorage` is one. What it throws is ignored. */
export interface ResumeStorage {
  getItem(key: string): string | null;
  setItem(key: string, value: string): void;
  removeItem(key: string): void;
}

export interface ResumeOptions {
  /** Where the token is kept beyond the life of this client (nowhere). */
  storage?: ResumeStorage;
  /** The name of the entry there ("pitaya.resume"). */
  key?: string;
}

export interface Options {
  /** The application's part of the handshake. */
  user?: Record<string, unknown>;
  /** More for the client's part of it, as `clientVersion` or `platform`. */
  sys?: Record<string, unknown>;
  /** false: a lost connection stays lost (true). */
  reconnect?: boolean | ReconnectOptions;
  /** Ask the server to keep the session when the connection is lost, and go back to it (false). */
  resume?: boolean | ResumeOptions;
  /** Payloads are bytes in both directions, for servers that do not speak JSON (false). */
  raw?: boolean;
  /** Milliseconds, 0 for none (10000). */
  requestTimeout?: number;
  /** Milliseconds from opening the socket to the handshake's answer (10000). */
  connectTimeout?: number;
  /** What requests do that are made while there is no connection ("fail"). */
  whileAway?: "fail" | "wait";
  /** How many may wait at a time; more fail (100). */
  maxWaiting?: number;
  /** Limit in bytes of one packet from the server (4 MiB). */
  maxPacket?: number;
  /** Limit in bytes of one inflated payload (16 MiB). */
  maxInflated?: number;
  /** Limit in bytes of the packets that wait while one is being inflated (64 MiB). */
  maxInbox?: number;
  /** Follow the browser's `online`, `offline` and `visibilitychange` (true). */
  browserEvents?: boolean;
  /** A class like the browsers', where there is no global one. */
  WebSocket?: new (url: string) => any;
}

export interface RequestOptions {
  /** Milliseconds, 0 for none; the option `requestTimeout` of `connect` if it is not given. */
  timeout?: number;
  /** Rejects the request with the signal's reason. The server is not told. */
  signal?: AbortSignal;
  /** As the option of `connect`, for this request. */
  whileAway?: "fail" | "wait";
}

export type PushHandler<T = any> = (data: T, route: string) => void;

/** The names of the client's events: those of the states, and `state` for all of them. */
export interface ClientEvents {
  state: CustomEvent<StateDetail>;
  connecting: CustomEvent<StateDetail>;
  connected: CustomEvent<StateDetail>;
  reconnecting: CustomEvent<StateDetail>;
  kicked: CustomEvent<StateDetail>;
  closed: CustomEvent<StateDetail>;
}

/**
 * A client of one server.
 *
 * Each change of state is an event named after the state, and one named `state`; both carry a {@link StateDetail}.
 *
 * Pushes, answers and state events come in the order in which the server's packets came, compressed or not.
 */
export class Client extends EventTarget {
  get state(): State;
  /** The name of the server's serializer, once connected: "json", "protobuf" or one of the application's. */
  get serializer(): string;
  /** Whether the server would give the present session to a new connection. */
  get resumable(): boolean;

  /** Connects, and stays connected until `close`. Fulfilled when the first handshake is done. */
  connect(url: string | URL, options?: Options): Promise<void>;
  /**
   * Ends the connection and all attempts to have one. Requests without an answer are rejected. The server is told that the
   * session ends, unless `keepSession` is set: then it keeps the session for its time, and the next `connect` asks for it.
   */
  close(options?: { keepSession?: boolean }): void;
  /** Makes the next attempt now, where the client waits for it. For a button, as "Try again". */
  reconnectNow(): void;

  /**
   * Asks the server. The answer is what JSON holds, or bytes with the option `raw`. Rejected with a {@link PitayaError}, or
   * with the reason of the signal.
   */
  request<T = any>(route: string, data?: unknown, options?: RequestOptions): Promise<T>;
  /**
   * Tells the server something that it does not answer, not even with an error. Throws a {@link DisconnectedError} when
   * there is no connection.
   */
  notify(route: string, data?: unknown): void;

  /** Calls fn for each push of a route. Returns a function that takes the handler off again, as `off` does. */
  on<T = any>(route: string, fn: PushHandler<T>): () => void;
  /** Calls fn for the next push of a route. Returns a function that takes the handler off again, as `off` does. */
  once<T = any>(route: string, fn: PushHandler<T>): () => void;
  /** Takes a handler off; without one, all handlers of the route. */
  off(route: string, fn?: PushHandler): void;

  addEventListener<K extends keyof ClientEvents>(
    type: K,
    listener: ((event: ClientEvents[K]) => void) | { handleEvent(event: ClientEvents[K]): void } | null,
    options?: boolean | AddEventListenerOptions,
  ): void;
  addEventListener(type: string, listener: EventListenerOrEventListenerObject | null, options?: boolean | AddEventListenerOptions): void;
  removeEventListener<K extends keyof ClientEvents>(
    type: K,
    listener: ((event: ClientEvents[K]) => void) | { handleEvent(event: ClientEvents[K]): void } | null,
    options?: boolean | EventListenerOptions,
  ): void;
  removeEventListener(type: string, listener: EventListenerOrEventListenerObject | null, options?: boolean | EventListenerOptions): void;
}

// ------------------------------------------------------------------------------- the wire, for tests and tools

/** Packet types: the first byte of every packet. */
export const Packet: Readonly<{ HANDSHAKE: 1; ACK: 2; HEARTBEAT: 3; DATA: 4; KICK: 5 }>;

/** Message types: bits 1 to 3 of a message's first byte. */
export const Message: Readonly<{ REQUEST: 0; NOTIFY: 1; RESPONSE: 2; PUSH: 3 }>;

/** Makes a packet: type, 24-bit big-endian length, body. */
export function encodePacket(type: number, body?: Uint8Array): Uint8Array;

/** Cuts a byte stream into packets. */
export class PacketReader {
  /** limit: of the body of one packet, in bytes; a larger one is a {@link ProtocolError}. */
  constructor(limit?: number);
  /** Takes the next bytes of the stream and returns the packets that are complete with them. Bodies are views. */
  push(bytes: Uint8Array): { type: number; body: Uint8Array }[];
}

/** The routes that have a 16-bit code, as announced in the handshake. */
export class Dictionary {
  /** A code that is none is a {@link ProtocolError}. */
  constructor(routes?: Record<string, number>);
  codes: Map<string, number>;
  routes: Map<number, string>;
}

export interface DecodedMessage {
  type: number;
  id: number;
  route: string;
  payload: Uint8Array;
  error: boolean;
  compressed: boolean;
}

/** Makes a message. A route that is in the dictionary becomes its code. */
export function encodeMessage(
  message: { type: number; id?: number; route?: string; payload?: Uint8Array },
  dictionary?: Dictionary,
): Uint8Array;

/** Takes a message apart. The payload is a view, and still compressed when `compressed` is true. */
export function decodeMessage(b: Uint8Array, dictionary?: Dictionary): DecodedMessage;

/** Whether this platform can inflate, and the server therefore may compress. */
export const canInflate: boolean;

/** Inflates zlib data of at most max bytes. */
export function inflate(bytes: Uint8Array, max: number): Promise<Uint8Array>;

/** Decodes the payload of an error answer. */
export function decodeError(b: Uint8Array, serializer: string): PitayaError;
