// Tries the chat example as people do: it builds and starts the server, opens two pages in a headless Chromium, and
// lets them join, talk, leave, come back, and live through cut connections and a restart of the server.
//
//	node examples/chat/check/check.mjs [folder for the screenshots]
//
// It needs Go, Node 20 or later and Chromium (or Chrome; CHROMIUM names the program). It ends with status 0 if each
// step went as expected and no page has reported an error, and prints where the screenshots are.

import assert from "node:assert/strict";

import { Browser, Check, DESKTOP, PHONE, Page, Program, build, step } from "../../../internal/browsercheck/check.mjs";
import { Proxy } from "../../../js/tests/lib/proxy.mjs";

const chatPage = ["is connected", `document.body?.dataset.state === "connected"`];

/** The chat server, as a process. */
function start(program, http = "localhost:0") {
  return Program.start(program, ["-http", http, "-ws", "localhost:0", "-tcp", "localhost:0"], {
    url: /^page\s+(http:\S+)$/m,
    tcp: /^tcp\s+(\S+)$/m,
  });
}

/** One person's page. */
class ChatPage extends Page {
  compressed = 0; // messages that came compressed
  onMessage = (packet) => {
    if (packet[0] === 4 && packet[4] & 0x10) this.compressed++;
  };

  async join(name, room) {
    await this.write("#name", name);
    await this.write("#room", room);
    await this.press("Enter");
  }

  async say(text) {
    await this.write("#text", text);
    await this.press("Enter");
  }

  /** Waits for a line as the last one in the log. */
  sees(text, by) {
    return this.until(`sees ${by === this.who ? "the own" : `${by}'s`} line ${JSON.stringify(text.slice(0, 40))}`, `(() => {
      const line = [...document.querySelectorAll("#log .line")].at(-1);
      return line?.querySelector(".bubble").firstChild.data === ${JSON.stringify(text)}
        && line.classList.contains("own") === ${by === this.who};
    })()`);
  }

  /** All texts in the log, oldest first. */
  texts() {
    return this.get(`[...document.querySelectorAll("#log .bubble")].map((b) => b.firstChild.data)`);
  }

  seesOnline(...names) {
    return this.until(`sees online: ${names.join(", ")}`,
      `document.querySelector("#people").checkVisibility() &&
        [...document.querySelectorAll("#people li")].map((li) => li.children[1].textContent).join() === ${JSON.stringify(names.join())}`);
  }
}

await Check.run("chat", async (check) => {
  const picture = (page, name, sizes) => check.picture(page, name, { sizes, fits: true });

  step("Build and start the server");
  build("./examples/chat", check.bin);
  let server = await start(check.bin);
  check.uses({ stop: () => server.stop() });
  console.log(`  ${server.url}`);
  const browser = check.uses(await Browser.start());
  const open = (who, url = server.url) => ChatPage.open(browser, url, { who, ready: chatPage });

  step("Open two pages");
  const ada = await open("Ada");
  const grace = await open("Grace");
  const pages = [ada, grace];

  step("Join the same room");
  await ada.join("Ada", "lobby");
  await ada.seesOnline("Ada");
  await grace.until("sees the room in the form", `document.querySelector(".chips")?.innerText.includes("lobby")`);
  await picture(grace, "1-join");
  await grace.checkNames("log", "navigation", "complementary");
  await grace.join("ada", "lobby");
  await grace.until("is told that the name is taken", `document.querySelector("#join-error").textContent.includes("Ada already")`);
  await grace.join("  Grace ", "LOBBY");
  for (const page of pages) await page.seesOnline("Ada", "Grace");
  await ada.until("is told that Grace joined", `document.querySelector("#log").innerText.includes("Grace joined")`);

  step("Chat both ways");
  const said = [];
  const chat = async (from, text) => {
    await from.say(text);
    said.push(text);
    for (const page of pages) await page.sees(text, from.who);
  };
  await chat(ada, "Hello Grace! Is the compiler warm?");
  await chat(grace, "Good morning Ada. Warm and humming. 🐛➡️🦋");
  await chat(ada, "<img src=x onerror=alert(1)> is just text here");
  assert.equal(await grace.get(`document.querySelectorAll("#log img").length`), 0, "markup of a user became markup");
  await grace.write("#text", "It has");
  await grace.press("Enter", { shift: true });
  await grace.send("Input.insertText", { text: "two lines" });
  await grace.press("Enter");
  said.push("It has\ntwo lines");
  for (const page of pages) await page.sees(said.at(-1), "Grace");
  await chat(ada, "Grüße, γειά σου, שלום, 你好: every alphabet gets through.");
  // Long enough for the server to compress it, with a short one behind it that must not overtake it.
  const long = "The Analytical Engine weaves algebraical patterns just as the Jacquard loom weaves flowers and leaves. ".repeat(5).trim();
  await ada.say(long);
  await chat(ada, "Short and sweet.");
  said.splice(-1, 0, long);
  for (const page of pages) {
    assert.deepEqual(await page.texts(), said, `${page.who}'s log`);
    assert.ok(page.compressed > 0, `no message to ${page.who} was compressed`);
  }
  const [own, other] = await ada.get(`["own", "first:not(.own)"].map((c) =>
    document.querySelector("#log .line." + c + " .bubble").getBoundingClientRect()).map(({ left, right }) => ({ left, right }))`);
  assert.ok(own.right > other.right && own.left > other.left, "own messages stand on the right");
  await ada.checkNames("log", "navigation", "complementary");
  await picture(ada, "2-chat");

  step("Rooms and people on a phone");
  await ada.look(PHONE, "light");
  await ada.click("#side-button");
  await ada.until("sees the drawer", `document.querySelector("#side").contains(document.activeElement)`);
  await picture(ada, "3-drawer", { phone: PHONE });
  await ada.look(PHONE, "light");
  await ada.press("Escape");
  await ada.until("has closed the drawer", `document.activeElement.id === "side-button"`);
  await ada.look(DESKTOP, "light");

  step("Unread messages in the title");
  const hide = (hidden) => `Object.defineProperty(document, "hidden", { configurable: true, value: ${hidden} });
    document.dispatchEvent(new Event("visibilitychange"))`;
  await grace.get(hide(true));
  await chat(ada, "Are you there?");
  await chat(ada, "Grace?");
  await grace.until("has a title with the count", `document.title === "(2) lobby – Pitaya chat"`);
  await grace.get(hide(false));
  await grace.until("has a title without it", `document.title === "lobby – Pitaya chat"`);

  step("Another room and back");
  await grace.write("#other-room", "Garden");
  await grace.press("Enter");
  await grace.seesOnline("Grace");
  await ada.seesOnline("Ada");
  await ada.until("sees both rooms", `document.querySelectorAll("#rooms li").length === 2`);
  assert.deepEqual(await grace.texts(), [], "the new room's log");
  await grace.click("#rooms button:not([aria-current])");
  for (const page of pages) await page.seesOnline("Ada", "Grace");
  assert.deepEqual(await grace.texts(), said, "Grace's log, back in the first room");

  step("Leave and come back");
  await grace.click("#leave-button");
  await ada.seesOnline("Ada");
  await ada.until("is told that Grace left", `document.querySelector("#log").innerText.includes("Grace left")`);
  await grace.until("sees the form, with name and room remembered",
    `document.querySelector("#name").checkVisibility() && document.querySelector("#room").value === "lobby" && document.querySelector("#name").value === "Grace"`);
  await ada.say("She has left.");
  await ada.sees("She has left.", "Ada");
  said.push("She has left.");
  await grace.press("Enter");
  for (const page of pages) await page.seesOnline("Ada", "Grace");
  assert.deepEqual(await grace.texts(), said, "Grace's log after coming back");
  await chat(grace, "Back again, and I have read it.");

  step("Go to another page, and close one");
  const third = await open("Linus");
  await third.join("Linus", "lobby");
  await ada.seesOnline("Ada", "Grace", "Linus");
  await third.send("Page.navigate", { url: "about:blank" });
  await ada.seesOnline("Ada", "Grace");
  const fourth = await open("Edsger");
  await fourth.join("Edsger", "lobby");
  await ada.seesOnline("Ada", "Edsger", "Grace");
  await fourth.send("Page.close");
  await ada.seesOnline("Ada", "Grace");

  step("Cut a connection");
  const proxy = check.uses(await Proxy.start(server.url));
  const katherine = await open("Katherine", proxy.url.replace("ws:", "http:"));
  await katherine.join("Katherine", "lobby");
  await ada.seesOnline("Ada", "Grace", "Katherine");
  await katherine.seesOnline("Ada", "Grace", "Katherine");
  const before = await katherine.texts();
  // While nothing gets through, the others go on. She is still there for them, and nobody is told that she left.
  katherine.expected = ["WebSocket connection to", "net::ERR"];
  proxy.plan = () => false;
  proxy.cut();
  await katherine.until("sees that the connection is lost", `document.body.dataset.state === "reconnecting"`);
  await picture(katherine, "4-away");
  const missed = ["Katherine, are you there?", "She will be back.", "I am sure."];
  await chat(ada, missed[0]);
  await chat(grace, missed[1]);
  await chat(ada, missed[2]);
  await ada.seesOnline("Ada", "Grace", "Katherine");
  proxy.plan = () => ({});
  await katherine.until("is connected again", `document.body.dataset.state === "connected" && document.querySelector("#trouble").hidden`);
  await katherine.sees(missed[2], "Ada");
  assert.deepEqual(await katherine.texts(), [...before, ...missed], "Katherine's log: the lines that she missed, once");
  const notes = (page) => page.get(`[...document.querySelectorAll("#log .note")].map((n) => n.innerText).join()`);
  assert.doesNotMatch(await notes(katherine), /Connected again/, "she has joined again, rather than gone on");
  assert.doesNotMatch(await notes(ada), /Katherine left/);
  katherine.expected = [];
  for (let i = 0; i < 5; i++) {
    proxy.cut();
    await chat(ada, `line ${i}`);
    await katherine.sees(`line ${i}`, "Ada");
  }
  await katherine.say("Here I am, without a gap.");
  said.push("Here I am, without a gap.");
  for (const page of [...pages, katherine]) await page.sees(said.at(-1), "Katherine");
  await picture(katherine, "5-resumed");
  await katherine.click("#leave-button");
  await ada.seesOnline("Ada", "Grace");
  await katherine.send("Page.navigate", { url: "about:blank" });

  step("Stop the server");
  for (const page of pages) page.expected = ["WebSocket connection to"];
  await server.stop();
  for (const page of pages) {
    await page.until("sees that the connection is lost", `/Reconnecting in \\d+ s/.test(document.querySelector("#trouble").innerText)`);
  }
  await picture(ada, "6-offline");
  step("Start it again");
  server = await start(check.bin, new URL(server.url).host);
  for (const page of pages) {
    await page.until("is connected again", `document.body.dataset.state === "connected" && document.querySelector("#trouble").hidden`);
  }
  for (const page of pages) page.expected = [];
  for (const page of pages) await page.seesOnline("Ada", "Grace");
  await chat(grace, "That was a short night.");
  await chat(ada, "And a good morning again.");
  for (const page of pages) assert.deepEqual(await page.texts(), said, `${page.who}'s log after the restart`);
  await picture(grace, "7-restarted");

  for (const page of [...pages, third, fourth, katherine]) assert.deepEqual(page.errors, [], `errors in ${page.who}'s page`);
});
