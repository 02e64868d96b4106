// The page of the chat example. What others have written reaches the document through textContent only.

import { Client, DisconnectedError } from "./pitaya.js";

const $ = (/** @type {string} */ id) => document.getElementById(id);
const title = document.title;
const client = new Client();

const MAX_LINES = 500; // in the document
const GROUP_MS = 5 * 60_000; // lines of one person within this time stand together

/**
 * Where we are, from the answer to chat.join on. It outlives the connection: the page goes back there by itself.
 * @type {{room: string, name: string, members: Set<string>, lastAt: number} | null}
 */
let place = null;
/** Messages that come while an answer to chat.join is on its way. @type {any[] | null} */
let early = null;
/** @type {{name: string, members: number}[]} */
let rooms = [];
let unread = 0;

// ---------------------------------------------------------------------------------------------- connection

// The server knows by this key that a new connection is still this page. It is gone when the page is.
const key = crypto.getRandomValues(new Uint32Array(4)).join("-");

function connect() {
  const url = new URL("ws", location.href);
  url.protocol = location.protocol === "https:" ? "wss:" : "ws:";
  // Failures show in the state of the connection.
  client.connect(url, { user: { key }, reconnect: { first: true }, resume: true }).catch(() => {});
}

/** @type {ReturnType<typeof setInterval> | undefined} the countdown to the next attempt */
let countdown;

client.addEventListener("state", ({ detail }) => {
  const { state, attempt, delay = 0, reason = "", error } = detail;
  document.body.dataset.state = state;
  clearInterval(countdown);
  const waitUntil = Date.now() + delay;
  const show = () => {
    const seconds = Math.max(1, Math.ceil((waitUntil - Date.now()) / 1000));
    const [short, long] = {
      connecting: ["Connecting…", "Connecting…"],
      connected: ["Connected", ""],
      reconnecting: ["Offline", `No connection. Reconnecting in ${seconds} s`],
      kicked: ["Kicked", `The server has ended this session${reason && `: ${reason}`}`],
      closed: ["Offline", `No connection${error ? `: ${error.message}` : ""}`],
    }[state];
    for (const p of document.querySelectorAll(".connection")) p.textContent = short;
    $("trouble-text").textContent = long;
    return long || short;
  };
  const text = show();
  // Once per change, and without the seconds: nobody wants a countdown read out.
  $("announce").textContent = state === "reconnecting" ? "Connection lost. Reconnecting." : text;
  if (state === "reconnecting") countdown = setInterval(show, 250);
  $("trouble").hidden = state === "connected" || (state === "connecting" && attempt === 0);
  $("retry-button").hidden = state === "connecting";
  $("send-button").disabled = $("join-button").disabled = state !== "connected";
});

/** Whether the connection was lost while we were on our way into a room or out of it, and nobody knows if we got there. */
let unsure = false;

client.addEventListener("connected", async ({ detail }) => {
  // The session has waited for us, and what was said meanwhile is on its way.
  if (detail.resumed && !unsure) return;
  unsure = false;
  try {
    if (place) await join(place.room, place.name);
    else await request("chat.leave");
  } catch (err) {
    if (client.state !== "connected") return; // lost again: the next connection tries again
    if (place) leavePlace(err.message);
  }
  request("chat.rooms").then(showRooms, () => {});
});

$("retry-button").addEventListener("click", () => {
  if (client.state === "reconnecting") client.reconnectNow();
  else connect();
});
// Who goes to another page leaves at once. Browsers may keep this one as it is, sockets included, for the way back.
window.addEventListener("pagehide", () => client.close());
window.addEventListener("pageshow", (event) => event.persisted && connect());
document.addEventListener("visibilitychange", () => {
  if (!document.hidden) setUnread(0);
});

/** @param {string} route @param {any} [data] */
async function request(route, data) {
  try {
    return await client.request(route, data);
  } catch (err) {
    if (err instanceof DisconnectedError && route !== "chat.say") unsure = true;
    throw err;
  }
}

// ---------------------------------------------------------------------------------------------- rooms

client.on("onRooms", showRooms);
client.on("onJoin", ({ room, name }) => {
  if (room !== place?.room) return;
  place.members.add(name);
  showPeople();
  addNote(`${name} joined`);
});
client.on("onLeave", ({ room, name }) => {
  if (room !== place?.room) return;
  place.members.delete(name);
  showPeople();
  addNote(`${name} left`);
});
client.on("onMessage", (message) => {
  if (early) early.push(message);
  else if (message.room === place?.room) receive([message]);
});

/**
 * Joins a room, for the first time or again. What is on the page stays if it is the same one.
 * @param {string} room @param {string} name
 */
async function join(room, name) {
  early = [];
  try {
    const answer = await request("chat.join", { room, name });
    const again = place?.room === answer.room;
    if (!again) $("log").replaceChildren();
    place = { room: answer.room, name: answer.you, members: new Set(answer.members), lastAt: again ? place.lastAt : 0 };
    if (again) addNote("Connected again");
    receive([...answer.history, ...early.filter((m) => m.room === answer.room)], false);
  } finally {
    early = null;
  }
  remember("room", ($("room").value = place.room));
  remember("name", ($("name").value = place.name));
  $("join-view").hidden = true;
  $("chat-view").hidden = false;
  $("room-title").textContent = place.room;
  showRooms({ rooms });
  showPeople();
  setUnread(0);
  scrollDown();
}

/** Goes back to the form, with a reason if it is not the user's own wish. */
function leavePlace(reason = "") {
  place = null;
  $("log").replaceChildren();
  $("people").replaceChildren();
  openSide(false);
  setUnread(0);
  $("chat-view").hidden = true;
  $("join-view").hidden = false;
  $("join-error").textContent = reason;
  $("name").focus();
}

$("join-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  $("join-error").textContent = "";
  try {
    await join($("room").value, $("name").value);
    $("text").focus();
  } catch (err) {
    $("join-error").textContent = err.message;
  }
});

$("leave-button").addEventListener("click", () => {
  request("chat.leave").catch(() => {}); // without a connection the server sees to it
  leavePlace();
});

$("room-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const room = $("other-room").value;
  $("other-room").value = "";
  moveTo(room);
});

/** @param {string} room */
async function moveTo(room) {
  if (early) return; // one at a time
  openSide(false);
  $("say-error").textContent = "";
  try {
    await join(room, place.name);
    $("text").focus();
  } catch (err) {
    $("say-error").textContent = err.message;
  }
}

/** @param {{rooms: typeof rooms}} list */
function showRooms(list) {
  rooms = list.rooms;
  $("open-rooms").hidden = rooms.length === 0;
  const button = ({ name, members }, action) => {
    const b = element("button", "", element("span", "", name), element("span", "count", String(members)));
    b.type = "button";
    b.setAttribute("aria-label", `${name}, ${members} online`);
    b.addEventListener("click", () => action(name));
    return b;
  };
  replaceKeepingFocus(document.querySelector(".chips"), rooms.map((room) => button(room, (name) => {
    $("room").value = name;
    ($("name").value ? $("join-button") : $("name")).focus();
  })));
  replaceKeepingFocus($("rooms"), rooms.map((room) => {
    const b = button(room, moveTo);
    if (room.name === place?.room) b.setAttribute("aria-current", "true");
    return b;
  }));
}

/** Puts a list of buttons in the place of another, with the focus where it was. */
function replaceKeepingFocus(list, buttons) {
  const at = [...list.children].findIndex((li) => li.contains(document.activeElement));
  list.replaceChildren(...buttons.map((b) => element("li", "", b)));
  if (at >= 0) buttons[Math.min(at, buttons.length - 1)]?.focus();
}

function showPeople() {
  const names = [...place.members].sort((a, b) => a.localeCompare(b));
  $("people-count").textContent = String(names.length);
  $("people").replaceChildren(...names.map((name) => {
    const you = name === place.name ? [element("span", "you", "you")] : [];
    return element("li", "", avatar(name), element("span", "", name), ...you);
  }));
}

// ---------------------------------------------------------------------------------------------- messages

/**
 * Shows lines that are not there yet. `at` grows from line to line, also over restarts of the server, so a look at
 * the last one tells which they are.
 * @param {{at: number, name: string, text: string}[]} lines
 */
function receive(lines, live = true) {
  for (const line of lines) {
    if (line.at <= place.lastAt) continue;
    addLine(line);
    place.lastAt = line.at;
    if (live && document.hidden) setUnread(unread + 1);
  }
}

/** What the next line looks at to see whether it belongs to the one above. */
const above = { name: "", at: 0 };

/** @param {{at: number, name: string, text: string}} line */
function addLine({ at, name, text }) {
  const own = name === place.name;
  const time = element("time", "", clock.format(at));
  time.dateTime = new Date(at).toISOString();
  time.title = fullTime.format(at);
  const li = element("li", own ? "line own" : "line", element("div", "bubble", text, time));
  const log = $("log");
  if (!log.hasChildNodes()) above.at = 0;
  if (new Date(at).toDateString() !== new Date(above.at).toDateString()) addNote(day.format(at));
  const last = log.lastElementChild;
  if (!last?.classList.contains("line") || above.name !== name || at - above.at > GROUP_MS) {
    li.classList.add("first");
    const author = element("div", own ? "author hidden-text" : "author", name);
    li.prepend(...(own ? [] : [avatar(name)]), author);
  }
  Object.assign(above, { name, at });
  append(li, own);
}

/** @param {string} text */
function addNote(text) {
  append(element("li", "note", text));
}

let following = true; // whether the end of the log is in sight, and is to stay there

/** @param {HTMLElement} li */
function append(li, follow = false) {
  const log = $("log");
  log.append(li);
  while (log.childElementCount > MAX_LINES) log.firstElementChild.remove();
  if (following || follow) scrollDown();
  else if (li.classList.contains("line")) $("down-button").hidden = false;
}

function scrollDown() {
  const log = $("log");
  following = true;
  log.scrollTop = log.scrollHeight;
  $("down-button").hidden = true;
}

$("down-button").addEventListener("click", scrollDown);
$("log").addEventListener("scroll", () => {
  const log = $("log");
  following = log.scrollHeight - log.scrollTop - log.clientHeight < 80;
  if (following) $("down-button").hidden = true;
});
// A phone's keyboard comes and goes, and windows change their size.
new ResizeObserver(() => following && scrollDown()).observe($("log"));

$("say-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const field = $("text");
  const text = field.value;
  if (!text.trim() || client.state !== "connected") return;
  setText("");
  field.focus();
  $("say-error").textContent = "";
  try {
    await request("chat.say", { text });
  } catch (err) {
    $("say-error").textContent = `Not sent: ${err.message}`;
    if (!field.value) setText(text);
  }
});

$("text").addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  $("say-form").requestSubmit();
});
$("text").addEventListener("input", fitText);

/** @param {string} text */
function setText(text) {
  $("text").value = text;
  fitText();
}

/** Makes the field as high as what is written in it. */
function fitText() {
  const field = $("text");
  field.style.height = "auto";
  field.style.height = `${field.scrollHeight + 2}px`;
}

// ---------------------------------------------------------------------------------------------- the rest

const clock = new Intl.DateTimeFormat(undefined, { timeStyle: "short" });
const day = new Intl.DateTimeFormat(undefined, { weekday: "long", day: "numeric", month: "long" });
const fullTime = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });

/** @param {string} tag @param {string} className @param {(Node | string)[]} children texts become text, never markup */
function element(tag, className, ...children) {
  const e = document.createElement(tag);
  if (className) e.className = className;
  e.append(...children);
  return e;
}

/** A disc with the first letter of a name, in a colour that goes with the name. @param {string} name */
function avatar(name) {
  let hash = 0;
  for (const c of name.toLowerCase()) hash = (hash * 31 + c.codePointAt(0)) >>> 0;
  const disc = element("span", "avatar", [...name][0].toUpperCase());
  disc.setAttribute("aria-hidden", "true");
  disc.style.setProperty("--hue", String(hash % 360));
  return disc;
}

/** @param {number} n */
function setUnread(n) {
  unread = n;
  document.title = (n > 0 ? `(${n}) ` : "") + (place ? `${place.room} – ${title}` : title);
}

const narrow = window.matchMedia("(max-width: 47.99rem)");

/** Shows or hides rooms and people where there is not enough space for them. @param {boolean} open */
function openSide(open) {
  document.body.classList.toggle("side-open", open);
  $("side-button").setAttribute("aria-expanded", String(open));
  if (open) $("side").querySelector("button, input")?.focus();
  else if (narrow.matches && $("side").contains(document.activeElement)) $("side-button").focus();
}
$("side-button").addEventListener("click", () => openSide(!document.body.classList.contains("side-open")));
$("shade").addEventListener("click", () => openSide(false));
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") openSide(false);
});

// Storage may be switched off; then nothing is remembered.
function remember(/** @type {string} */ what, /** @type {string} */ value) {
  try {
    localStorage.setItem(`chat.${what}`, value);
  } catch {}
}
function recall(/** @type {string} */ what) {
  try {
    return localStorage.getItem(`chat.${what}`) ?? "";
  } catch {
    return "";
  }
}

$("name").value = recall("name");
$("room").value = recall("room") || "lobby";
$("name").focus();
connect();
