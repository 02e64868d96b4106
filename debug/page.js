// The debug page: it asks the server for what has changed, and draws it. All that comes from the server or its clients
// becomes text or a number; nothing here parses markup.
"use strict";

const POLL = 2000; // milliseconds between two looks at the data
const POLL_SESSIONS = 5000;
const WINDOWS = [1, 2, 3, 5].map((minutes) => minutes * 60_000); // what the charts show: the first with room for all
const WINDOW = WINDOWS.at(-1);
const LIMITS = [20, 100, 500]; // sessions that are shown, and when more are asked for
const SVG = "http://www.w3.org/2000/svg";

const $ = (id) => document.getElementById(id);

/** An element with properties and children. */
function make(tag, props = {}, ...children) {
  const e = Object.assign(document.createElement(tag), props);
  e.append(...children);
  return e;
}

function draw(tag, attributes = {}, text = "") {
  const e = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) e.setAttribute(name, value);
  e.textContent = text;
  return e;
}

/* Numbers for people. */

const whole = new Intl.NumberFormat("en");

function round(n) {
  if (n >= 100 || Number.isInteger(n)) return whole.format(Math.round(n));
  return n.toPrecision(n >= 10 ? 3 : 2).replace(/\.0+$/, "");
}

function count(n) {
  if (n >= 1e9) return round(n / 1e9) + " G";
  if (n >= 1e6) return round(n / 1e6) + " M";
  if (n >= 1e5) return round(n / 1e3) + " k";
  return round(n);
}

function bytes(n) {
  for (const unit of ["B", "KiB", "MiB", "GiB"]) {
    if (n < 1024 || unit === "GiB") return `${round(n)} ${unit}`;
    n /= 1024;
  }
}

function latency(ms) {
  if (ms >= 1000) return round(ms / 1000) + " s";
  if (ms >= 1 || ms === 0) return round(ms) + " ms";
  return round(Math.round(ms * 1000)) + " µs";
}

function span(ms) {
  const s = Math.max(0, Math.floor(ms / 1000));
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min ${s % 60} s`;
  if (s < 86400) return `${Math.floor(s / 3600)} h ${Math.floor(s / 60) % 60} min`;
  return `${Math.floor(s / 86400)} d ${Math.floor(s / 3600) % 24} h`;
}

/* Charts. */

/** A line chart of the last minutes, with one line for each series: [name, member of the samples]. */
class Chart {
  static all = [];

  constructor({ title, unit = "", series, format, scale, gaps = false, hint = "" }) {
    Object.assign(this, { title, unit, series, format, scale, gaps });
    this.value = make("p", { className: "value" });
    this.svg = draw("svg", { role: "img", "aria-label": `${title}, the last minutes` });
    this.legend = make("div", { className: "legend", hidden: series.length === 1 });
    this.element = make("div", { className: "chart", title: hint }, make("h3", { textContent: title }), this.value, this.svg, this.legend);
    this.svg.addEventListener("pointermove", (e) => this.point(e.offsetX));
    this.svg.addEventListener("pointerleave", () => this.point(null));
    Chart.all.push(this);
    $("charts").append(this.element);
    new ResizeObserver(() => this.draw()).observe(this.svg);
  }

  get(sample, member) {
    const v = sample[member];
    return this.gaps && v === 0 ? null : v; // nothing happened, so there is no latency
  }

  point(x) {
    this.x = x;
    this.draw();
  }

  draw() {
    const { clientWidth: width, clientHeight: height } = this.svg;
    if (!width) return;
    const end = samples.at(-1)?.t ?? Date.now();
    const shownTime = WINDOWS.find((w) => w >= end - (samples[0]?.t ?? end)) ?? WINDOW;
    const top = 8, bottom = height - 18, left = 50, right = width - 2;
    const values = [];
    for (const s of samples) {
      for (const [, member] of this.series) {
        const v = this.get(s, member);
        if (v != null) values.push(v);
      }
    }
    const { share, marks } = this.scale(values);
    const toX = (t) => right - ((end - t) / shownTime) * (right - left);
    const toY = (v) => bottom - share(v) * (bottom - top);

    const parts = [];
    for (const [mark, labelled] of marks) {
      const y = Math.round(toY(mark)) + 0.5;
      parts.push(draw("line", { class: "grid", x1: left, x2: right, y1: y, y2: y }));
      if (labelled) parts.push(draw("text", { class: "axis", x: left - 6, y: y + 3.5, "text-anchor": "end" }, this.format(mark)));
    }
    for (const [part, anchor] of [[1, "start"], [0.5, "middle"], [0, "end"]]) {
      const ago = part * shownTime;
      const text = !ago ? "now" : ago < 60_000 ? `−${ago / 1000} s` : `−${ago / 60_000} min`;
      parts.push(draw("text", { class: "axis", x: toX(end - ago), y: height - 3, "text-anchor": anchor }, text));
    }
    this.series.forEach(([, member], i) => {
      const runs = this.runs(member, toX, toY);
      if (this.series.length === 1) {
        for (const run of runs) {
          const [first, last] = [run[0], run.at(-1)];
          parts.push(draw("path", { class: "area s1", d: `M${first[0]} ${bottom}L${run.map((p) => p.join(" ")).join("L")}L${last[0]} ${bottom}Z` }));
        }
      }
      parts.push(draw("path", { class: `series s${i + 1}`, d: runs.map((run) => "M" + run.map((p) => p.join(" ")).join("L")).join("") }));
    });

    let shown = samples.at(-1);
    if (this.x != null && samples.length) {
      const at = end - ((right - this.x) / (right - left)) * shownTime;
      shown = samples.reduce((a, b) => (Math.abs(b.t - at) < Math.abs(a.t - at) ? b : a));
      const x = toX(shown.t);
      parts.push(draw("line", { class: "cursor", x1: x, x2: x, y1: top, y2: bottom }));
    }
    this.svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    this.svg.replaceChildren(...parts);
    this.describe(shown, end);
  }

  /** The points of a series, in pieces where some are missing. */
  runs(member, toX, toY) {
    const runs = [];
    let run = null, last = 0;
    for (const s of samples) {
      const v = this.get(s, member);
      if (v == null || s.t - last > 5000) run = null;
      last = s.t;
      if (v == null) continue;
      if (!run) runs.push((run = []));
      run.push([toX(s.t).toFixed(1), toY(v).toFixed(1)]);
    }
    for (const r of runs) if (r.length === 1) r.push([(Number(r[0][0]) + 1.5).toFixed(1), r[0][1]]);
    return runs;
  }

  describe(sample, end) {
    const text = (member) => {
      const v = sample && this.get(sample, member);
      return v == null ? "–" : this.format(v);
    };
    const when = this.x != null && sample ? `, ${span(end - sample.t)} ago` : "";
    this.value.replaceChildren(text(this.series[0][1]), make("small", { textContent: this.unit + when }));
    const items = this.series.map(([name, member], i) =>
      make("span", { className: `s${i + 1}` }, make("i"), `${name} `, make("b", { textContent: text(member) })));
    this.legend.replaceChildren(...items);
  }
}

/*
 * Scales: given all values, a scale returns where a value is, from 0 at the bottom to 1 at the top, and the values that
 * have a line, each with whether it has a text.
 */

/** From 0 to a round number; steps are what numbers are round by. */
function linear(values, steps, base, least) {
  const most = Math.max(least, ...values) * 1.02;
  const unit = base ** Math.floor(Math.log(most) / Math.log(base));
  const top = unit * (steps.find((f) => f * unit >= most) ?? base);
  return { share: (v) => v / top, marks: [[0, true], [top / 2, true], [top, true]] };
}

const rates = (values) => linear(values, [1, 2, 4, 5, 10], 10, 1);
const counts = (values) => linear(values, [1, 2, 4, 6, 10], 10, 2);
const sizes = (values) => linear(values, [1, 2, 4, 8, 16, 32, 64, 128, 256, 512], 1024, 2);

/** By powers of ten: the few that are slow do not make the many flat. */
function powers(values) {
  const low = Math.floor(Math.log10(Math.min(1, ...values)));
  const high = Math.max(low + 2, Math.ceil(Math.log10(Math.max(1, ...values))));
  const marks = [];
  const every = Math.ceil((high - low) / 4);
  for (let e = low; e <= high; e++) marks.push([10 ** e, (high - e) % every === 0]);
  return { share: (v) => Math.max(0, (Math.log10(v) - low) / (high - low)), marks };
}

let samples = []; // of the last minutes, in order

function buildCharts() {
  new Chart({
    title: "Messages", unit: " requests / s", format: count, scale: rates, hint: "calls are those of other servers",
    series: [["requests", "requests"], ["notifies", "notifies"], ["calls", "calls"], ["failed", "failed"]],
  });
  new Chart({
    title: "Latency", unit: " median", format: latency, scale: powers, gaps: true, hint: "from the arrival of a message to its answer",
    series: [["p50", "p50_ms"], ["p95", "p95_ms"], ["p99", "p99_ms"]],
  });
  new Chart({ title: "Sessions", format: count, scale: counts, series: [["sessions", "sessions"]] });
  new Chart({ title: "Waiting to be sent", format: bytes, scale: sizes, series: [["queue", "queue_bytes"]] });
  new Chart({ title: "Goroutines", format: count, scale: counts, series: [["goroutines", "goroutines"]] });
  new Chart({ title: "Heap", format: bytes, scale: sizes, series: [["heap", "heap_bytes"]] });
}

/* Tables. */

/**
 * A table whose rows keep their elements while they change, so that what is being clicked on or selected stays.
 * A column is { name, label, cell(row, td), className, sort }; cell fills the cell, or returns its text. Those with sort
 * have a button; onSort is called when it was used.
 */
class Table {
  rows = new Map();

  constructor(id, columns, { key, sort, empty, onSort }) {
    Object.assign(this, { columns, key, sort, empty });
    this.element = $(id);
    this.body = this.element.tBodies[0];
    const head = this.element.tHead;
    head.classList.toggle("plain", !columns.some((c) => c.sort));
    for (const c of columns) {
      c.head = make("th", { scope: "col", className: c.className === "num" ? "num" : "" });
      if (c.sort) {
        const button = make("button", { type: "button", textContent: c.label });
        button.addEventListener("click", () => {
          const desc = this.sort.name === c.name ? !this.sort.desc : c.sort === "desc";
          this.sort = { name: c.name, desc };
          this.mark();
          onSort();
        });
        c.head.append(button);
      } else {
        c.head.append(make("span", { textContent: c.label }));
      }
      head.rows[0].append(c.head);
    }
    this.mark();
  }

  mark() {
    for (const c of this.columns) {
      if (c.name === this.sort?.name) c.head.setAttribute("aria-sort", this.sort.desc ? "descending" : "ascending");
      else c.head.removeAttribute("aria-sort");
    }
  }

  show(list) {
    const next = new Map();
    list.forEach((row, i) => {
      const key = this.key(row);
      const tr = this.rows.get(key) ?? make("tr", {}, ...this.columns.map((c) => {
        const td = make("td", { className: [c.className, c.wide ? "wide" : ""].filter(Boolean).join(" ") });
        if (c.phone) td.dataset.label = c.phone;
        return td;
      }));
      this.columns.forEach((c, j) => {
        const td = tr.cells[j];
        const text = c.cell(row, td);
        if (typeof text === "string" && td.textContent !== text) td.textContent = text;
      });
      if (this.body.rows[i] !== tr) this.body.insertBefore(tr, this.body.rows[i] ?? null);
      next.set(key, tr);
    });
    while (this.body.rows.length > list.length) this.body.lastElementChild.remove();
    if (!list.length) {
      this.body.append(make("tr", {}, make("td", { className: "empty", colSpan: this.columns.length, textContent: this.empty })));
    }
    this.rows = next;
  }
}

/** Writes a text with a class of its own into a cell. */
function tagged(td, className, text) {
  let e = td.firstElementChild;
  if (!e) td.replaceChildren((e = make("span")));
  if (e.className !== className) e.className = className;
  if (e.textContent !== text) e.textContent = text;
}

const compare = (a, b) => (typeof a === "string" ? a.localeCompare(b) : a - b);

let data = null; // as it came last
let routes, sessions, peers, errors, settings;
let sessionsWritable = null;

function buildTables() {
  const number = { className: "num" };
  routes = new Table("routes", [
    { name: "route", label: "Route", sort: "asc", className: "code", wide: true, cell: (r) => r.route },
    { name: "kind", label: "For", className: "short", cell: (r, td) => tagged(td, "quiet", { handler: "clients", remote: "servers", forward: "sent on", unknown: "nobody" }[r.kind] ?? r.kind) },
    { name: "rate", label: "Per second", phone: "per second", sort: "desc", ...number, cell: (r) => (r.rate == null ? "–" : round(Math.round(r.rate * 10) / 10)) },
    { name: "count", label: "Count", phone: "count", sort: "desc", ...number, cell: (r) => whole.format(r.count) },
    { name: "failed", label: "Errors", phone: "errors", sort: "desc", ...number, cell: (r, td) => tagged(td, r.failed ? "alarm" : "none", whole.format(r.failed)) },
    { name: "in_flight", label: "In flight", phone: "in flight", sort: "desc", ...number, cell: (r, td) => tagged(td, r.in_flight ? "" : "none", whole.format(r.in_flight)) },
    { name: "p50_ms", label: "p50", phone: "p50", sort: "desc", ...number, cell: (r) => (r.recent ? latency(r.p50_ms) : "–") },
    { name: "p99_ms", label: "p99", phone: "p99", sort: "desc", ...number, cell: (r) => (r.recent ? latency(r.p99_ms) : "–") },
  ], { key: (r) => `${r.kind} ${r.route}`, sort: { name: "count", desc: true }, empty: "No routes.", onSort: showRoutes });

  peers = new Table("peers", [
    { name: "id", label: "Server", className: "code", wide: true, cell: (p) => p.id },
    { name: "type", label: "Type", phone: "type", cell: (p) => p.type },
    { name: "state", label: "State", cell: (p, td) => tagged(td, `badge ${{ self: "", ready: "good", draining: "warn", connecting: "bad" }[p.state] ?? ""}`, p.state === "self" ? "this one" : p.state) },
    { name: "frontend", label: "Clients", phone: "clients", cell: (p) => (p.frontend ? "yes" : "no") },
    { name: "host", label: "Host", phone: "host", cell: (p) => p.host },
    { name: "features", label: "Can", phone: "can", cell: (p) => p.features.join(", ") || "what Pitaya can" },
    { name: "pending", label: "Calls under way", phone: "calls under way", ...number, cell: (p) => whole.format(p.pending) },
  ], { key: (p) => p.id, empty: "No servers." });

  errors = new Table("errors", [
    { name: "kind", label: "Kind", className: "short", cell: (e, td) => tagged(td, "badge bad", e.kind) },
    { name: "route", label: "Route", className: "code", cell: (e) => e.route },
    { name: "text", label: "Last text", wide: true, cell: (e) => e.text },
    { name: "count", label: "Count", phone: "count", ...number, cell: (e) => whole.format(e.count) },
    { name: "last", label: "Last", phone: "last", ...number, cell: (e) => `${span(data.now - e.last)} ago` },
  ], { key: (e) => JSON.stringify([e.kind, e.route]), empty: "None." });

  settings = new Table("settings", [
    { name: "key", label: "Setting", className: "code", wide: true, cell: (s, td) => { td.title = s.help; return s.key; } },
    { name: "value", label: "Value", className: "code", cell: (s) => s.value },
    { name: "origin", label: "From", cell: (s) => [s.origin, s.source].filter(Boolean).join(" ") + (s.unused ? ", without effect" : "") },
  ], { key: (s) => s.key, empty: "Nothing but defaults." });
}

function buildSessions(writable) {
  const number = { className: "num" };
  const columns = [
    { name: "id", label: "Id", phone: "id", sort: "asc", ...number, cell: (s) => String(s.id) },
    { name: "uid", label: "User", sort: "asc", className: "code lead", cell: (s, td) => (s.uid ? tagged(td, "", s.uid) : tagged(td, "none", "–")) },
    { name: "address", label: "Address", sort: "asc", className: "code", cell: (s) => (s.away ? `away, was ${s.address}` : s.address) },
    { name: "age", label: "Age", phone: "age", sort: "desc", ...number, cell: (s) => (s.began ? span(data.now - s.began) : "–") },
    { name: "waiting", label: "Waiting", phone: "waiting", sort: "desc", ...number, cell: (s, td) => tagged(td, s.waiting ? "" : "none", whole.format(s.waiting)) },
    { name: "queue", label: "Queue", phone: "queue", sort: "desc", ...number, cell: (s, td) => tagged(td, s.queue_bytes ? "" : "none", s.queue_bytes ? bytes(s.queue_bytes) : "0") },
    { name: "route", label: "Last route", phone: "last", sort: "asc", className: "code", cell: (s) => s.route || "–" },
  ];
  if (writable) {
    columns.push({
      name: "act", label: "", className: "act", cell: (s, td) => {
        td.session = s;
        if (td.firstChild) return;
        const button = make("button", { type: "button", className: "danger", textContent: "Kick" });
        button.setAttribute("aria-label", `Kick session ${s.id}`);
        button.addEventListener("click", () => askKick(td.session));
        td.append(button);
      },
    });
  }
  sessions = new Table("sessions", columns, { key: (s) => s.id, sort: { name: "id", desc: false }, empty: "No sessions.", onSort: loadSessions });
}

function showRoutes() {
  const { name, desc } = routes.sort;
  const list = [...data.routes].sort((a, b) => (desc ? -1 : 1) * compare(a[name] ?? 0, b[name] ?? 0) || compare(a.route, b.route));
  routes.show(list);
}

/* What comes from the server. */

async function ask(view, parameters = {}) {
  const response = await fetch(`?${new URLSearchParams({ view, ...parameters })}`, { headers: { Accept: "application/json" } });
  if (!response.ok) throw new Error(`${response.status} ${await response.text()}`);
  return response.json();
}

let seen = null; // counts of routes when they came last, for rates

async function loadData() {
  const next = await ask("data", { after: samples.at(-1)?.t ?? 0 });
  if (data && (next.server.process !== data.server.process || next.server.id !== data.server.id)) {
    location.reload(); // another server has taken its place
    return;
  }
  const counts = new Map(next.routes.map((r) => [`${r.kind} ${r.route}`, r.count]));
  for (const r of next.routes) {
    const before = seen?.counts.get(`${r.kind} ${r.route}`);
    r.rate = before == null ? null : ((r.count - before) * 1000) / Math.max(1, next.now - seen.now);
  }
  seen = { counts, now: next.now };
  samples = [...samples, ...next.samples].filter((s) => s.t > next.now - WINDOW - 2000);
  data = next;
  show();
}

function show() {
  const { server } = data;
  document.title = [server.type, server.id].filter(Boolean).join(" ") || "Pitaya";
  $("type").textContent = server.type || "pitaya";
  $("id").textContent = server.id;
  $("facts").textContent = [
    server.started && server.state !== "ended" && `up ${span(data.now - server.started)}`,
    server.frontend ? "frontend" : "backend", server.host, `process ${server.process}`, `${server.go}, ${server.cpus} CPUs`,
  ].filter(Boolean).join(" · ");
  const state = $("state");
  const word = data.ready ? "ready" : server.state === "running" ? "not ready" : server.state;
  state.textContent = word;
  state.className = `badge ${data.ready ? "good" : ["draining", "starting", "new"].includes(word) ? "warn" : "bad"}`;
  const reasons = data.checks.filter((c) => !c.ok).map((c) => `${c.name}: ${c.error}`);
  if (!data.collecting) reasons.push("The page was asked for after the start, so nothing was collected: there are no charts, routes and errors.");
  trouble(reasons.join("\n"));

  for (const chart of Chart.all) chart.draw();
  showRoutes();
  $("sessions-section").hidden = !server.frontend;
  $("peers-section").hidden = !server.cluster;
  peers.show(data.peers);
  $("peers-count").textContent = `${data.peers.length} server${data.peers.length === 1 ? "" : "s"} known`;
  errors.show(data.errors);
  $("counts").replaceChildren(...Object.entries(data.stats).map(([name, n]) =>
    make("div", {}, make("dt", { textContent: words(name) }), make("dd", { textContent: sized.has(name) ? bytes(n) : whole.format(n) }))));
  if (sessionsWritable !== data.writable) {
    sessionsWritable = data.writable;
    buildSessions(data.writable);
    loadSessions();
  }
}

const sized = new Set(["ReceivedBytes", "SentBytes", "QueueBytes"]);
const words = (name) => name.replace(/(?<=[a-z])(?=[A-Z])/g, " ").toLowerCase().replace(/^./, (c) => c.toUpperCase());

function trouble(text) {
  $("trouble").hidden = !text;
  if ($("trouble").textContent !== text) $("trouble").textContent = text;
}

let limit = LIMITS[0];
let asked = 0; // number of the last request for sessions: an older one's answer comes too late

async function loadSessions() {
  if (!data?.server.frontend) return;
  const number = ++asked;
  const { name, desc } = sessions.sort;
  const list = await ask("sessions", { q: $("search").value, sort: name, order: desc ? "desc" : "asc", limit }).catch(failed);
  if (!list || number !== asked) return;
  const shown = list.sessions.length < list.matched ? `, ${list.sessions.length} shown` : "";
  const found = $("search").value.trim() ? `${whole.format(list.matched)} of ${whole.format(list.total)}` : whole.format(list.total);
  $("sessions-count").textContent = found + shown;
  sessions.empty = list.total ? "No session is like that." : "No sessions.";
  sessions.show(list.sessions);
  $("more").hidden = list.sessions.length >= list.matched || limit >= LIMITS.at(-1);
}

let all = null; // settings

function showSettings() {
  const list = $("all-settings").checked ? all : all.filter((s) => s.origin !== "default");
  $("settings-count").textContent = `${list.length} of ${all.length}`;
  settings.show(list);
}

async function loadSettings() {
  all = await ask("settings");
  showSettings();
}

/* Kicking. */

let victim = null;

function askKick(session) {
  victim = session;
  $("kick-what").textContent = `Session ${session.id}` + (session.uid ? ` of user “${session.uid}”` : ", which has no user") + `, from ${session.address}.`;
  $("kick").showModal();
}

async function kick() {
  $("kick").close();
  try {
    const response = await fetch("?view=kick", {
      method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ id: victim.id }),
    });
    if (!response.ok) throw new Error(`Session ${victim.id}: ${await response.text()}`);
  } catch (err) {
    trouble(err.message);
  }
  await loadSessions();
}

/* Time. */

let paused = false;

function failed(err) {
  trouble(`No answer from the server: ${err.message}. Trying again.`);
  return null;
}

/** Calls f now and again, with a pause after each call, while somebody looks. */
async function repeat(f, pause) {
  for (;;) {
    if (!paused && !document.hidden) {
      try {
        await f();
      } catch (err) {
        failed(err);
      }
    }
    await new Promise((resolve) => setTimeout(resolve, pause));
  }
}

buildCharts();
buildTables();
repeat(loadData, POLL);
repeat(async () => { if (!all?.length) await loadSettings(); }, POLL);
repeat(loadSessions, POLL_SESSIONS);

$("pause").addEventListener("click", () => {
  paused = !paused;
  $("pause").setAttribute("aria-pressed", paused);
  $("pause").textContent = paused ? "Go on" : "Pause";
});
let typing = 0;
$("search").addEventListener("input", () => {
  clearTimeout(typing);
  typing = setTimeout(() => loadSessions().catch(failed), 200);
});
$("more").addEventListener("click", () => {
  limit = LIMITS[Math.min(LIMITS.indexOf(limit) + 1, LIMITS.length - 1)];
  loadSessions().catch(failed);
});
$("all-settings").addEventListener("change", showSettings);
$("kick-no").addEventListener("click", () => $("kick").close());
$("kick-yes").addEventListener("click", kick);
