// What the tests do with clients.

import { Client } from "../../pitaya.js";
import { WebSocket } from "./websocket.mjs";

const PATIENCE = 10_000; // ms; what has not happened by then will not

/** A client with short delays, connected. What it was and what it is told is recorded. */
export async function dial(t, url, options = {}) {
  const client = watched(t);
  await client.connect(url, { WebSocket, reconnect: { minDelay: 5, maxDelay: 50 }, ...options });
  return client;
}

/** A client that is closed with the test. */
export function watched(t) {
  const client = new Client();
  client.states = [];
  client.addEventListener("state", ({ detail }) => client.states.push(detail));
  t.after(() => client.close());
  return client;
}

/** The next change of the client to that state. */
export function next(client, state) {
  const { promise, resolve } = withResolvers();
  client.addEventListener(state, ({ detail }) => resolve(detail), { once: true });
  return soon(promise, `the state ${state}`);
}

/** The next push of a route. */
export function pushed(client, route) {
  const { promise, resolve } = withResolvers();
  client.once(route, resolve);
  return soon(promise, `a push of ${route}`);
}

/** A promise that fails where the other one takes for ever. */
export async function soon(promise, what) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`not seen within ${PATIENCE} ms: ${what}`)), PATIENCE);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

export function withResolvers() {
  let resolve, reject;
  const promise = new Promise((res, rej) => ([resolve, reject] = [res, rej]));
  return { promise, resolve, reject };
}

/** What a browser's storage is. */
export class Storage {
  items = new Map();
  getItem = (key) => this.items.get(key) ?? null;
  setItem = (key, value) => void this.items.set(key, String(value));
  removeItem = (key) => void this.items.delete(key);
}

/** Numbers from 0 to 1 that depend on the seed alone. */
export function random(seed) {
  return () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let t = Math.imul(seed ^ (seed >>> 15), seed | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}
