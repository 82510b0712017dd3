/*
 * The chat's page: one websocket by wsredis.js, what it says as lines of a log, and the server's
 * numbers beside it. Everything that others wrote is put in as text, never as HTML.
 */
"use strict";

const { room, name } = document.body.dataset;
const channel = `room:${room}`;
const $ = (id) => document.getElementById(id);
const token = document.querySelector("[name=csrfmiddlewaretoken]").value;

const MAX_LINES = 500; // An old line is taken out for a new one: a page may stay open for weeks.
const TOGETHER = 120000; // Lines of one person within this many ms stand under one name.
const STATS_EVERY = 2000;
const DICE = "·⚀⚁⚂⚃⚄⚅";

// --- the websocket ---

const socket = new WSRedis(`/ws/${room}/?as=${encodeURIComponent(name)}`);

// What a browser sent has the sender that its grant names; what the server published has none.
socket.on(channel, (message) => {
  const { sender, data } = message && message.sender ? message : { sender: null, data: message };
  if (sender) fromPerson(String(sender.name), data || {});
  else if (data && data.roll) note(`${data.name} let the server roll: ${data.roll}`, DICE[data.roll]);
  else note(typeof data === "string" ? data : JSON.stringify(data));
});

socket.addEventListener("open", (event) => {
  openedAt = Date.now();
  $("connection").title = `since ${new Date(openedAt).toLocaleTimeString()}`;
  tick();
  if (event.detail.again) note("Connected again. What was said meanwhile is not shown.");
  else socket.send(channel, { came: true });
});
socket.addEventListener("gap", () => note("Some messages may be missing here."));
socket.addEventListener("status", (event) => paintStatus(event.detail));

function fromPerson(who, data) {
  if (data.typing) return who === name ? undefined : showTyping(who);
  if (data.came) return note(who === name ? "You came in." : `${who} came in.`);
  if (typeof data.text !== "string") return undefined;
  showTyping(null, who);
  return say(who, data.text);
}

// --- the log ---

const log = $("log");
let last = { who: null, at: 0 };

function say(who, text) {
  const line = document.createElement("div");
  const now = new Date();
  line.className = "line";
  line.classList.toggle("mine", who === name);
  line.classList.toggle("more", last.who === who && now - last.at < TOGETHER);
  line.append(avatar(who));
  const bubble = element("div", "bubble");
  const by = element("p", "by");
  const time = element("time", "", now.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" }));
  time.dateTime = now.toISOString();
  by.append(element("b", "", who), " ", time);
  bubble.append(by, element("p", "text", text));
  line.append(bubble);
  last = { who, at: now };
  append(line);
  if (document.hidden) document.title = `(${(unread += 1)}) ${room} · wsredis chat`;
}

function note(text, sign) {
  last = { who: null, at: 0 };
  const line = element("p", "note", text);
  if (sign) line.append(element("b", "", sign));
  append(line);
}

function append(node) {
  // Whoever reads further up is not pulled down.
  const below = log.scrollHeight - log.scrollTop - log.clientHeight < 120;
  if ($("empty") && node.classList.contains("line")) $("empty").remove();
  log.append(node);
  while (log.children.length > MAX_LINES) log.firstElementChild.remove();
  if (below || node.classList.contains("mine")) log.scrollTop = log.scrollHeight;
}

function avatar(who) {
  const circle = element("span", "avatar", [...who][0].toUpperCase());
  let hue = 0;
  for (const character of who) hue = (hue * 31 + character.codePointAt(0)) % 360;
  circle.style.setProperty("--hue", hue);
  circle.setAttribute("aria-hidden", "true");
  return circle;
}

function element(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

let unread = 0;
document.addEventListener("visibilitychange", () => {
  if (document.hidden) return;
  unread = 0;
  document.title = `${room} · wsredis chat`;
});

// --- who is typing ---

const typers = new Map(); // name -> the timer that forgets it

function showTyping(who, spoke) {
  const gone = who || spoke;
  clearTimeout(typers.get(gone));
  typers.delete(gone);
  if (who) typers.set(who, setTimeout(() => showTyping(null, who), 3000));
  const names = [...typers.keys()];
  const people = names.length > 2 ? "Several people" : names.join(" and ");
  $("typing").textContent = people && `${people} ${names.length > 1 ? "are" : "is"} typing…`;
}

// --- the composer ---

const text = $("text");
let toldTyping = 0;

text.addEventListener("input", () => {
  fit();
  if (!text.value || Date.now() - toldTyping < 2000) return;
  toldTyping = Date.now();
  socket.send(channel, { typing: true });
});

text.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  $("composer").requestSubmit();
});

$("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  const said = text.value.trim();
  // Without a connection nothing is sent and the text stays where it is.
  if (said && socket.send(channel, { text: said })) {
    text.value = "";
    toldTyping = 0;
    fit();
  }
  text.focus();
});

$("roll").addEventListener("click", async () => {
  const body = new URLSearchParams({ as: name, csrfmiddlewaretoken: token });
  const response = await fetch(`/room/${room}/roll/`, { method: "POST", body }).catch(() => null);
  if (!response || !response.ok) note("The server did not roll.");
});

function fit() {
  text.style.height = "auto";
  text.style.height = `${Math.min(text.scrollHeight, 160)}px`;
}

// --- the connection, and how long it has been there ---

const STOPPED = {
  unauthorized: "Pick a name first",
  forbidden: "Not allowed in here",
  redirected: "Not a websocket",
  closed: "Closed",
};
let openedAt = 0;
let retryAt = 0;

function paintStatus({ status, reason, code, delay }) {
  const words = {
    connecting: "Connecting",
    open: "Connected",
    waiting: reason === "asking" ? "Connecting" : "Reconnecting",
    offline: "You are offline",
    stopped: STOPPED[reason] || "Disconnected",
  };
  if (status === "waiting" && reason === "failed") words.waiting = `The server says ${code}`;
  $("connection").dataset.status = status;
  if ($("status").textContent !== words[status]) $("status").textContent = words[status];
  $("retry").hidden = status !== "stopped" && status !== "waiting" && status !== "offline";
  $("send").disabled = status !== "open";
  retryAt = Date.now() + delay;
  tick();
}

function tick() {
  const wait = Math.round((retryAt - Date.now()) / 1000);
  let since = "";
  if (socket.status === "open") since = clock(Math.floor((Date.now() - openedAt) / 1000));
  else if (socket.status === "waiting" && wait > 0) since = `in ${wait} s`;
  $("since").textContent = since;
}

function clock(seconds) {
  const two = (n) => String(n).padStart(2, "0");
  const [h, m, s] = [Math.floor(seconds / 3600), Math.floor(seconds / 60) % 60, seconds % 60];
  return h ? `${h}:${two(m)}:${two(s)}` : `${m}:${two(s)}`;
}

$("retry").addEventListener("click", () => socket.connect());
setInterval(tick, 1000);
paintStatus({ status: socket.status, delay: 0 });

// --- the server's numbers ---

async function refresh() {
  if (document.hidden) return;
  let numbers = {};
  try {
    numbers = await (await fetch("/stats/")).json();
  } catch (error) {
    // The server is away or says what is no JSON: the dashes tell it.
  }
  if (numbers.sockets) numbers.bytes_per_socket = Math.round(numbers.socket_bytes / numbers.sockets);
  for (const cell of document.querySelectorAll("[data-key]")) {
    const value = numbers[cell.dataset.key];
    const shown = typeof value === "number" ? value.toLocaleString("en") : value || "–";
    if (cell.textContent === shown) continue;
    cell.textContent = shown;
    cell.classList.remove("new");
    void cell.offsetWidth; // A class that comes again in the same frame would not glow again.
    cell.classList.add("new");
  }
}

setInterval(refresh, STATS_EVERY);
document.addEventListener("visibilitychange", refresh);
refresh();
