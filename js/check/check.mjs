// Tries pitaya.js in a headless Chromium, against a real server and through a proxy that cuts: what Node cannot show are
// the browser's own WebSocket, its inflating, its storage over a reload, and its network's comings and goings.
//
//	node js/check/check.mjs [folder for the screenshots]
//
// It needs Go, Node 20 or later and Chromium (or Chrome; CHROMIUM names the program). It ends with status 0 if each step
// went as expected and the page has reported no error.

import assert from "node:assert/strict";

import { Browser, Check, Page, step } from "../../internal/browsercheck/check.mjs";
import { Proxy } from "../tests/lib/proxy.mjs";
import { Server } from "../tests/lib/server.mjs";

await Check.run("js", async (check) => {
  step("Start");
  const server = check.uses(await Server.start());
  const proxy = check.uses(await Proxy.start(server.json));
  const browser = check.uses(await Browser.start());
  const hosts = [proxy.url, server.json, server.protobuf].map((url) => new URL(url).host);
  const loaded = ["has loaded the module", `typeof pitaya === "object"`];
  const page = await Page.open(browser, server.page, { hosts, ready: loaded });
  let compressed = 0;
  page.onMessage = (packet) => (compressed += packet[0] === 4 && packet[4] & 0x10 ? 1 : 0);

  step("Messages");
  const connect = (url) => page.get(`(async () => {
    globalThis.client = new pitaya.Client();
    globalThis.ticks = JSON.parse(sessionStorage.getItem("ticks") ?? "[]");
    globalThis.states = [];
    client.on("onTick", ({ n }) => { ticks.push(n); sessionStorage.setItem("ticks", JSON.stringify(ticks)); });
    client.on("onTicked", ({ n }) => (globalThis.last = n));
    client.addEventListener("state", ({ detail: { error, ...detail } }) => states.push({ ...detail, error: error?.message }));
    await client.connect(${JSON.stringify(url)}, { resume: { storage: sessionStorage }, reconnect: { first: true, minDelay: 5, maxDelay: 50 } });
    return states.at(-1);
  })()`);
  assert.equal((await connect(proxy.url)).resumed, false);
  assert.deepEqual(await page.get(`client.request("test.echo", { grüße: [1, null] })`), { grüße: [1, null] });
  assert.equal(await page.get(`client.request("test.big", { Size: 20000 }).then((text) => text.length)`), 20_000);
  assert.equal(compressed, 1, "compressed messages");
  assert.equal(await page.get(`client.request("test.fail").catch((err) => err.code + " " + err.metadata.why)`), "TEST-1 asked for");
  assert.equal(
    await page.get(`client.request("test.hold", { Key: "never" }, { signal: AbortSignal.timeout(10) }).catch((err) => err.name)`),
    "TimeoutError",
  );
  await page.get(`(async () => {
    const other = new pitaya.Client();
    await other.connect(${JSON.stringify(server.json)});
    await other.request("test.release", { Key: "never" });
    other.close();
  })()`);
  assert.deepEqual(
    await page.get(`(async () => {
      const raw = new pitaya.Client();
      await raw.connect(${JSON.stringify(server.protobuf)}, { raw: true });
      const answer = await raw.request("test.echo", Uint8Array.of(8, 1));
      raw.close();
      return [...answer];
    })()`),
    [8, 1],
  );

  step("Cut connections");
  const { ID } = await page.get(`client.request("test.session")`);
  await page.get(`client.request("test.tick", { Key: "tick" })`);
  for (let i = 1; i <= 20; i++) {
    const [pushes, states] = await page.get(`[ticks.length, states.length]`);
    proxy.cut();
    await page.until(`is connected again, with more pushes (${i})`,
      `client.state === "connected" && states.length > ${states} && states.at(-1).resumed && ticks.length > ${pushes}`);
  }
  assert.equal((await page.get(`client.request("test.session")`)).ID, ID);

  step("Reload the page");
  for (let i = 0; i < 3; i++) {
    await page.send("Page.reload");
    await page.until("has gone", `typeof client === "undefined"`);
    await page.until(...loaded);
    assert.equal((await connect(proxy.url)).resumed, true);
    assert.equal((await page.get(`client.request("test.session")`)).ID, ID);
  }

  step("Go offline and come back");
  const network = (offline) => page.send("Network.emulateNetworkConditions", { offline, latency: 0, downloadThroughput: -1, uploadThroughput: -1 });
  page.expected = ["WebSocket connection to", "net::ERR_INTERNET_DISCONNECTED"];
  await network(true);
  await page.until("waits for the network", `client.state === "reconnecting" && /offline/.test(states.at(-1).error)`);
  await network(false);
  await page.until("is connected again", `client.state === "connected" && states.at(-1).resumed`);
  page.expected = [];

  step("All pushes, in order, once");
  await page.get(`(async () => {
    const other = new pitaya.Client();
    await other.connect(${JSON.stringify(server.json)});
    await other.request("test.release", { Key: "tick" });
    other.close();
  })()`);
  await page.until("has the last push", `globalThis.last !== undefined`);
  const [last, ticks] = await page.get(`[last, ticks]`);
  assert.deepEqual(ticks, Array.from({ length: last }, (_, i) => i + 1));
  console.log(`  ${last} pushes`);

  step("Leave");
  await page.get(`client.close()`);
  assert.equal(await page.get(`sessionStorage.getItem("pitaya.resume")`), null);
  await page.get(`(async () => {
    const other = new pitaya.Client();
    await other.connect(${JSON.stringify(server.json)});
    await other.request("test.ended", { ID: ${ID} });
    other.close();
  })()`);
  await page.get(`document.body.textContent = "All pushes, in order, once: " + last`);
  await check.picture(page, "done");
  assert.deepEqual(page.errors, [], "errors in the page");
});
