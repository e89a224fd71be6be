// Asks the relay every two seconds how it does, and shows it. What comes from there is put into text nodes only.
"use strict";

const KEPT = 300; // points of the large curve, as on the relay
const ROOM_KEPT = 60;
const byId = (id) => document.getElementById(id);

let points = [];
let roomPoints = {};
let latest = null;
let interval = 2;
const shown = new Map(); // room code -> its element and what is in it

// Words --------------------------------------------------------------------------------------------------------------

function rate(bits) {
  for (const [factor, unit] of [[1e9, "Gbit/s"], [1e6, "Mbit/s"], [1e3, "kbit/s"]])
    if (bits >= factor * 0.9995) return `${digits(bits / factor)} ${unit}`;
  return `${digits(bits)} bit/s`;
}

const digits = (value) => (value >= 0.05 && value < 9.95 ? value.toFixed(1) : value.toFixed(0));
const several = (count, one, many) => `${count} ${count === 1 ? one : many}`;

function span(seconds) {
  if (seconds < 90) return `${Math.round(seconds)} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  if (seconds < 172800) return `${digits(seconds / 3600)} h`;
  return `${Math.round(seconds / 86400)} days`;
}

// Small parts --------------------------------------------------------------------------------------------------------

function put(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

function make(name, classes, text) {
  const element = document.createElement(name);
  if (classes) element.className = classes;
  if (text !== undefined) element.textContent = text;
  return element;
}

function line(classes) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", "polyline");
  element.setAttribute("class", classes);
  return element;
}

function curve(element, values, top, width, height, kept) {
  const step = width / (kept - 1);
  const start = width - step * (values.length - 1);
  const y = (value) => (height - 2 - (height - 4) * (value / top)).toFixed(1);
  element.setAttribute("points", values.map((value, n) => `${(start + n * step).toFixed(1)},${y(value)}`).join(" "));
}

function nice(value) {
  const power = 10 ** Math.floor(Math.log10(Math.max(value, 1000)));
  return [1, 2, 5, 10].map((n) => n * power).find((n) => n >= value);
}

// The whole relay ----------------------------------------------------------------------------------------------------

const rates = byId("rates");
for (const height of [2, 80, 158]) {
  const grid = line("grid");
  grid.setAttribute("points", `0,${height} 600,${height}`);
  rates.append(grid);
}
const rateIn = line("in"), rateOut = line("out");
rates.append(rateIn, rateOut);
const legend = byId("rates-words");
const legendIn = make("span", "key-in"), legendOut = make("span", "key-out");
legend.append(legendIn, legendOut);

function showWhole(state) {
  put(byId("peers"), String(state.peer_count));
  put(byId("room-count"), String(state.rooms.length));
  put(byId("in"), rate(state.rates.in_bits));
  put(byId("out"), rate(state.rates.out_bits));
  put(byId("dropped"), `${digits(state.rates.drops)}/s`);
  put(byId("about"), `${state.listen}/udp, softlan ${state.version}, up ${span(state.uptime_s)}`);
  document.title = `${several(state.peer_count, "peer", "peers")} – softlan relay`;
}

function showCurve() {
  const most = Math.max(0, ...points.map((p) => Math.max(p[1], p[2])));
  const top = nice(most);
  curve(rateIn, points.map((p) => p[1]), top, 600, 160, KEPT);
  curve(rateOut, points.map((p) => p[2]), top, 600, 160, KEPT);
  put(byId("rates-top"), rate(top));
  put(byId("rates-span"), points.length > 1 ? `over ${span(points[points.length - 1][0] - points[0][0])}` : "");
  const now = points[points.length - 1] || [0, 0, 0];
  put(legendIn, `in ${rate(now[1])}, at most ${rate(Math.max(0, ...points.map((p) => p[1])))}`);
  put(legendOut, `out ${rate(now[2])}, at most ${rate(Math.max(0, ...points.map((p) => p[2])))}`);
}

function showDrops(state) {
  const found = Object.entries(state.drops);
  const table = byId("drops"), body = table.tBodies[0];
  put(byId("drops-span"), `in the last ${span(state.drops_over_s)}`);
  byId("no-drops").hidden = found.length > 0;
  table.hidden = found.length === 0;
  const most = Math.max(1, ...found.map(([, count]) => count));
  while (body.rows.length > found.length) body.deleteRow(-1);
  found.forEach(([reason, count], n) => {
    let row = body.rows[n];
    if (!row) {
      row = body.insertRow();
      const head = make("th");
      head.scope = "row";
      row.append(head, make("td"), make("td"));
      row.cells[2].append(make("span", "share"));
    }
    put(row.cells[0], reason);
    put(row.cells[1], String(count));
    row.cells[2].firstChild.style.width = `${(100 * count) / most}%`;
  });
}

// Rooms --------------------------------------------------------------------------------------------------------------

function newRoom(code) {
  const item = make("li");
  const details = make("details"), summary = make("summary");
  const parts = { code: make("span", "code", code), who: make("span", "who"), in: make("span", "rate in"), out: make("span", "rate out"), lost: make("span", "lost") };
  const spark = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  spark.setAttribute("viewBox", "0 0 150 26");
  spark.setAttribute("preserveAspectRatio", "none");
  spark.setAttribute("aria-hidden", "true");
  const sparkIn = line("in"), sparkOut = line("out");
  spark.append(sparkIn, sparkOut);
  summary.append(parts.code, parts.who, spark, parts.in, parts.out, parts.lost);
  details.append(summary);
  item.append(details);
  const room = { item, details, parts, sparkIn, sparkOut, body: null };
  details.addEventListener("toggle", () => showPeers(room, latest.rooms.find((r) => r.code === code)));
  return room;
}

function showRoom(room, told) {
  const rtt = told.rtt_ms === null ? "" : `, ${digits(told.rtt_ms)} ms`;
  put(room.parts.who, `${several(told.peers.length, "peer", "peers")}, ${told.gateway ? "gateway" : "no gateway"}${rtt}`);
  put(room.parts.in, rate(told.rates.in_bits));
  put(room.parts.out, rate(told.rates.out_bits));
  put(room.parts.lost, told.rates.drops > 0 ? `${digits(told.rates.drops)} drops/s` : "no drops");
  room.parts.lost.classList.toggle("some", told.rates.drops > 0);
  const found = roomPoints[told.code] || [];
  const top = Math.max(1000, ...found.map((p) => Math.max(p[0], p[1])));
  curve(room.sparkIn, found.map((p) => p[0]), top, 150, 26, ROOM_KEPT);
  curve(room.sparkOut, found.map((p) => p[1]), top, 150, 26, ROOM_KEPT);
  if (room.details.open) showPeers(room, told);
}

function showPeers(room, told) {
  if (!told || !room.details.open) return;
  if (!room.body) {
    const inside = make("div", "inside"), table = make("table"), head = table.createTHead().insertRow();
    room.caption = table.createCaption();
    for (const name of ["Peer", "RTT", "In", "Out", "Drops"]) {
      const cell = make("th", "", name);
      cell.scope = "col";
      head.append(cell);
    }
    room.body = table.createTBody();
    inside.append(table);
    room.details.append(inside);
  }
  put(room.caption, `MTU ${told.mtu}`);
  const body = room.body;
  while (body.rows.length > told.peers.length) body.deleteRow(-1);
  told.peers.forEach((peer, n) => {
    let row = body.rows[n];
    if (!row) {
      row = body.insertRow();
      const head = make("th");
      head.scope = "row";
      head.append(make("span"), make("span", "mac"));
      row.append(head, make("td"), make("td"), make("td"), make("td"));
    }
    put(row.cells[0].children[0], `${peer.role} ${peer.peer_id}`);
    put(row.cells[0].children[1], peer.mac || "a whole LAN");
    put(row.cells[1], `${digits(peer.rtt_ms)} ms`);
    put(row.cells[2], rate(peer.rates.in_bits));
    put(row.cells[3], rate(peer.rates.out_bits));
    put(row.cells[4], String(peer.dropped));
  });
}

const ORDERS = {
  code: () => 0, // as the relay sends them
  traffic: (a, b) => b.rates.in_bits + b.rates.out_bits - a.rates.in_bits - a.rates.out_bits,
  peers: (a, b) => b.peers.length - a.peers.length,
  drops: (a, b) => b.rates.drops - a.rates.drops,
};

function showRooms(state) {
  const wanted = byId("find").value.trim().toLowerCase();
  const fits = (room) => !wanted || room.code.toLowerCase().includes(wanted) || room.peers.some((peer) => (peer.mac || "").includes(wanted));
  const rooms = state.rooms.filter(fits).sort(ORDERS[byId("order").value]);
  const list = byId("room-list");
  const there = new Set(rooms.map((room) => room.code));
  for (const [code, room] of shown)
    if (!there.has(code)) {
      room.item.remove();
      shown.delete(code);
    }
  const focused = document.activeElement;
  rooms.forEach((told, n) => {
    let room = shown.get(told.code);
    if (!room) shown.set(told.code, (room = newRoom(told.code)));
    // Moving an element takes the focus from it: none is moved that is in its place, and the focus is given back below.
    if (list.children[n] !== room.item) list.insertBefore(room.item, list.children[n] || null);
    showRoom(room, told);
  });
  if (list.contains(focused) && document.activeElement !== focused) focused.focus({ preventScroll: true });
  byId("no-rooms").hidden = rooms.length > 0;
  put(byId("no-rooms"), state.rooms.length ? "No room fits." : "Nobody is here yet: players come in with `softlan join` and an invite, which `softlan invite` makes.");
}

// Asking -------------------------------------------------------------------------------------------------------------

function told(words, kind) {
  put(byId("connection"), words);
  byId("connection").className = `connection ${kind}`;
}

async function ask(path) {
  const answer = await fetch(path, { headers: { accept: "application/json" }, signal: AbortSignal.timeout(5000) });
  if (answer.status === 401) location.assign("/login");
  if (!answer.ok) throw new Error(`${answer.status}`);
  return answer.json();
}

async function remember() {
  const history = await ask("/api/history");
  points = history.points;
  roomPoints = history.rooms;
  interval = history.interval_s;
}

function show(state) {
  const news = !latest || state.at !== latest.at;
  latest = state;
  if (news) {
    moved = performance.now();
    const last = points[points.length - 1];
    if (!last || Math.abs(last[0] - state.at) > interval / 4) {
      points.push([state.at, state.rates.in_bits, state.rates.out_bits, state.rates.drops, state.peer_count]);
      points = points.slice(-KEPT);
      for (const room of state.rooms)
        roomPoints[room.code] = [...(roomPoints[room.code] || []), [room.rates.in_bits, room.rates.out_bits]].slice(-ROOM_KEPT);
    }
    const there = new Set(state.rooms.map((room) => room.code));
    for (const code of Object.keys(roomPoints)) if (!there.has(code)) delete roomPoints[code];
  }
  showWhole(state);
  showCurve();
  showDrops(state);
  showRooms(state);
}

let stale = true;
let asked = 0;
let moved = 0; // when the relay last had new numbers

async function round() {
  try {
    // At first, and after a silence or a time in the background: the relay may be another one, the curves have holes.
    const now = performance.now();
    if (stale || now - asked > 4000 * interval) await remember();
    asked = now;
    show(await ask("/api/state"));
    const still = performance.now() - moved > 4000 * interval;
    told(still ? "the relay answers, but its numbers stand still: its log says why" : "live", still ? "stale" : "live");
    stale = false;
  } catch {
    if (!stale || !latest) told(latest ? "the relay does not answer; these are its last numbers" : "the relay does not answer", "stale");
    stale = true;
  }
}

async function watch() {
  for (;;) {
    if (!document.hidden) await round();
    await new Promise((again) => {
      setTimeout(again, 1000 * interval);
      if (document.hidden) document.addEventListener("visibilitychange", again, { once: true });
    });
  }
}

byId("find").addEventListener("input", () => latest && showRooms(latest));
byId("order").addEventListener("change", () => latest && showRooms(latest));
watch();
