// Sessions that outlive their connections: pitaya.js against a real server, through a proxy that cuts.

import assert from "node:assert/strict";
import { after, afterEach, before, describe, test } from "node:test";
import { randomInt } from "node:crypto";

import { Client, Code, DisconnectedError } from "../pitaya.js";
import { Storage, dial, next, pushed, random, soon, watched, withResolvers } from "./lib/client.mjs";
import { Proxy } from "./lib/proxy.mjs";
import { Server } from "./lib/server.mjs";
import { WebSocket } from "./lib/websocket.mjs";

/** @type {Server} */ let server;
/** @type {Proxy} */ let proxy;
let key = 0; // for Tick and Hold

before(async () => {
  server = await Server.start();
  proxy = await Proxy.start(server.json);
});
after(async () => {
  await proxy?.stop();
  await server?.stop();
});
afterEach(() => {
  proxy.plan = () => ({});
});

const options = { resume: true };

/** Whether the server has ended that session. */
async function ended(t, id) {
  const other = await dial(t, server.json);
  await other.request("test.ended", { ID: id });
}

describe("100 disconnects", () => {
  // Where the connection is cut is random: in handshakes, in frames, between them, in either direction. What the server
  // has written by then arrives, or does not.
  for (const storage of [undefined, new Storage()]) {
    test(`no push is lost, doubled or out of order${storage ? ", also over reloads of the page" : ""}`, async (t) => {
      const seed = Number(process.env.PITAYA_JS_SEED ?? randomInt(2 ** 31));
      t.diagnostic(`PITAYA_JS_SEED=${seed}`);
      const dice = random(seed);
      const resume = storage ? { storage } : true;
      const got = [];
      const stop = `tick ${++key}`;
      const last = withResolvers();
      let resumed = 0;
      let enough = 0; // pushes, after which the connection is cut if it still is there
      let client;
      const load = async () => {
        client = watched(t);
        client.on("onTick", ({ n }) => {
          got.push(n);
          if (got.length === enough) proxy.cut();
        });
        client.once("onTicked", ({ n }) => last.resolve(n));
        client.addEventListener("connected", ({ detail }) => {
          if (detail.resumed) resumed++;
        });
        await client.connect(proxy.url, { WebSocket, resume, reconnect: { first: true, minDelay: 2, maxDelay: 10 } });
      };
      await load();
      const { ID } = await client.request("test.session");
      await client.request("test.tick", { Key: stop });
      const cuts = proxy.count;
      while (proxy.count < cuts + 100) {
        proxy.plan = () => {
          const how = dice();
          if (how < 0.1) return false;
          if (how < 0.3) return { up: Math.floor(dice() * 600) };
          return { down: Math.floor(dice() * (how < 0.6 ? 600 : 12_000)) };
        };
        if (client.state !== "connected") await next(client, "connected");
        enough = got.length + Math.ceil(dice() * 60);
        if (storage && dice() < 0.2) {
          // The page goes, and its sockets with it. Another one comes.
          client.close({ keepSession: true });
          await load();
        } else {
          await next(client, "reconnecting");
        }
      }
      enough = 0;
      proxy.plan = () => ({});
      proxy.cut();
      if (client.state !== "connected") await next(client, "connected");
      const other = await dial(t, server.json);
      await other.request("test.release", { Key: stop });
      const n = await soon(last.promise, "the last push");
      t.diagnostic(`${proxy.count - cuts} connections, resumed ${resumed} times, ${n} pushes`);
      assert.deepEqual(got, Array.from({ length: n }, (_, i) => i + 1));
      assert.equal((await client.request("test.session")).ID, ID);
      assert.ok(client.states.every(({ state, resumed }, i) => state !== "connected" || resumed || (!storage && i === 1)), "each connection but the first resumes");
      assert.ok(resumed > 20, `resumed ${resumed} times`);
    });
  }
});
