// Tries the debug page as people on call do: it builds and starts the operate example with bots, opens the page in a
// headless Chromium, searches, sorts and kicks, and takes pictures of it on a desk and on a phone, light and dark.
//
//	node examples/operate/check/check.mjs [folder for the screenshots [seconds of load before them]]
//
// It needs Go, Node 20 or later and Chromium (or Chrome; CHROMIUM names the program). It ends with status 0 if each step
// went as expected, no page has reported an error or asked for anything in vain, and prints where the screenshots are.

import assert from "node:assert/strict";
import { setTimeout as sleep } from "node:timers/promises";

import { Browser, Check, PHONE, Page, Program, build, step } from "../../../internal/browsercheck/check.mjs";

const DESKTOP = { width: 1280, height: 900, deviceScaleFactor: 1, mobile: false };
const SIZES = { desktop: DESKTOP, phone: PHONE };
const BOTS = 60;
const load = Number(process.argv[3] ?? 20);

/** The example, as a process. */
function start(program, ...flags) {
  return Program.start(program, ["-listen", "localhost:0", "-private", "localhost:0", ...flags], {
    url: /^private\s+(http:\S+)\/$/m,
    ready: /^(ready)$/m,
  });
}

class DebugPage extends Page {
  /** The texts of a column of a table. */
  column(table, n) {
    return this.get(`[...document.querySelectorAll("#${table} tbody tr")].map((tr) => tr.cells[${n}]?.textContent ?? "")`);
  }
}

await Check.run("operate", async (check) => {
  const open = (url, metrics = DESKTOP) =>
    DebugPage.open(browser, url, { metrics, ready: ["has drawn the charts", `document.querySelectorAll("#charts path").length > 0`] });
  // The charts are drawn again for each size.
  const picture = (page, name, options) => check.picture(page, name, { sizes: SIZES, whole: true, wait: 500, ...options });

  step("Build and start the server");
  build("./examples/operate", check.bin);
  const server = check.uses(await start(check.bin, "-bots", String(BOTS), "-writable"));
  console.log(`  ${server.url}`);
  for (const [path, status] of [["readyz", 200], ["livez", 200], ["metrics", 200], ["debug/vars", 200], ["debug/pprof/", 200], ["", 200], ["nothing", 404]]) {
    assert.equal((await fetch(`${server.url}/${path}`)).status, status, path);
  }

  step("Open the page");
  const browser = check.uses(await Browser.start());
  const page = await open(`${server.url}/debug/pitaya/`);
  await page.until("says that the server is ready", `document.querySelector("#state").textContent === "ready"`);
  await page.until("knows all servers", `document.querySelectorAll("#peers tbody tr").length === 3`);
  await page.until("knows all sessions", `document.querySelector("#sessions-count").textContent.startsWith("${BOTS}")`);
  await page.until("has rates", `[...document.querySelectorAll("#routes tbody tr")].some((tr) => Number(tr.cells[2].textContent) > 1)`);
  await page.until("shows the settings that are not defaults", `document.querySelectorAll("#settings tbody tr").length > 3`);
  await page.until("counts errors", `document.querySelector("#errors").innerText.includes("GAME-TURN")`);
  await page.until("has one row for routes that do not exist", `document.querySelector("#routes").innerText.includes("unknown")`);

  step("What clients write is text");
  await page.write("#search", "onerror");
  await page.until("finds the user", `document.querySelectorAll("#sessions tbody tr").length === 1`);
  assert.deepEqual(await page.column("sessions", 1), ["<img/src=x/onerror=alert(1)>"]);
  assert.equal(await page.get(`document.querySelectorAll("img").length`), 0, "markup of a user became markup");

  step("Search");
  await page.write("#search", "NOBODY");
  await page.until("finds nobody", `document.querySelector("#sessions .empty")?.textContent === "No session is like that."`);
  await page.write("#search", "grace-");
  await page.until("finds some", `document.querySelectorAll("#sessions tbody tr").length === 5`);
  await page.write("#search", "");
  await page.until("finds all", `document.querySelectorAll("#sessions tbody tr").length === 20`);

  step("Sort");
  const sorted = (list, compare) => assert.deepEqual(list, [...list].sort(compare));
  const headed = (table, n, how) => `document.querySelector("#${table} th:nth-child(${n})").getAttribute("aria-sort") === "${how}"`;
  await page.click("#sessions th:nth-child(2) button");
  await page.until("sorts sessions by user", headed("sessions", 2, "ascending"));
  await page.until("shows them so", `document.querySelector("#sessions tbody tr").cells[1].textContent.startsWith("<img")`);
  const users = async () => (await page.column("sessions", 1)).filter((uid) => uid !== "–"); // those that are bound by now
  sorted(await users(), (a, b) => (a < b ? -1 : 1));
  await page.click("#sessions th:nth-child(2) button");
  await page.until("the other way round", headed("sessions", 2, "descending"));
  await page.until("shows them so", `document.querySelector("#sessions tbody tr").cells[1].textContent.startsWith("tony")`);
  sorted(await users(), (a, b) => (a > b ? -1 : 1));
  await page.click("#sessions th:nth-child(1) button");
  await page.until("by id again", `document.querySelector("#sessions tbody tr").cells[0].textContent === "1"`);
  await page.click("#routes th:nth-child(1) button");
  await page.until("sorts routes by name", headed("routes", 1, "ascending"));
  sorted(await page.column("routes", 0), (a, b) => a.localeCompare(b));
  await page.click("#routes th:nth-child(4) button");
  await page.until("and by count", headed("routes", 4, "descending"));
  await page.checkNames("dialog", "image");

  step(`Wait for ${load} s of load`);
  await page.until("has seen a slow client", `document.querySelector("#errors").innerText.includes("slow client")`).catch((err) => {
    if (load >= 20) throw err;
  });
  for (const end = Date.now() + load * 1000; Date.now() < end; ) await sleep(200);
  await picture(page, "page");
  await page.get("scrollTo(0, 0)");
  await picture(page, "top", { sizes: { desktop: DESKTOP }, whole: false }); // the light one is docs/debug-page.png

  step("Point at a chart");
  const { x, y } = await page.get(`(({ x, y, width, height }) => ({ x: x + width * 0.97, y: y + height / 2 }))(document.querySelector("#charts svg").getBoundingClientRect())`);
  await page.send("Input.dispatchMouseEvent", { type: "mouseMoved", x, y });
  await page.until("tells of that moment", `/ ago$/.test(document.querySelector("#charts .value").innerText)`);
  await page.send("Input.dispatchMouseEvent", { type: "mouseMoved", x: 5, y: 5 });

  step("Pause");
  await page.click("#pause");
  const before = await page.get(`document.querySelector("#facts").textContent`);
  await sleep(2500);
  assert.equal(await page.get(`document.querySelector("#facts").textContent`), before, "it goes on while it is paused");
  await page.click("#pause");

  step("More sessions");
  await page.click("#more");
  await page.until("shows more of them", `document.querySelectorAll("#sessions tbody tr").length >= ${BOTS - 1}`);

  step("Settings");
  await page.click("#all-settings");
  await page.until("shows all settings", `document.querySelectorAll("#settings tbody tr").length > 100`);
  await page.click("#all-settings");

  step("Kick");
  await page.write("#search", "onerror");
  await page.until("finds the user", `document.querySelectorAll("#sessions tbody tr").length === 1`);
  const [id] = await page.column("sessions", 0);
  await page.click("#sessions td.act button");
  await page.until("asks", `document.querySelector("#kick").open && document.querySelector("#kick-what").textContent.includes("onerror")`);
  await page.checkNames("dialog", "image");
  await picture(page, "kick", { whole: false });
  await page.click("#kick-no");
  await page.until("has kept it", `!document.querySelector("#kick").open`);
  assert.deepEqual(await page.column("sessions", 0), [id]);
  await page.click("#sessions td.act button");
  await page.click("#kick-yes");
  await page.until("has ended it", `!document.querySelector("#sessions tbody").innerText.includes("onerror")`);
  await page.until("sees it come back", `(() => {
    const first = document.querySelector("#sessions tbody tr").cells;
    return first.length > 1 && Number(first[0].textContent) > ${id};
  })()`);
  assert.deepEqual(page.errors, [], "errors in the page");

  step("Reached under another name, and by a page that only shows");
  const other = check.uses(await start(check.bin, "-bots", "3"));
  const plain = await open(`${other.url}/debug/pitaya`); // without the slash
  await plain.until("shows sessions", `document.querySelectorAll("#sessions tbody tr").length === 3`);
  assert.equal(await plain.get(`document.querySelectorAll("#sessions button.danger").length`), 0, "buttons on a page that only shows");
  assert.deepEqual(plain.errors, [], "errors in the page");

  step("The server ends");
  plain.expected = ["ERR_CONNECTION_REFUSED", "ERR_CONNECTION_RESET", "ERR_EMPTY_RESPONSE"];
  await other.stop();
  await plain.until("says that nobody answers", `document.querySelector("#trouble").innerText.includes("No answer from the server")`);
  assert.deepEqual(plain.errors, [], "errors in the page");
});
