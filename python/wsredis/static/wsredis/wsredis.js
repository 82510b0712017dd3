/*
 * wsredis.js: the browser's end of a wsredis websocket. One file, no dependencies, ES2017.
 *
 *   const socket = new WSRedis("/ws/room/lobby/");
 *   socket.on("room:lobby", (data) => show(data));
 *   socket.send("room:lobby", { text: "hello" });
 *   socket.addEventListener("status", (event) => paint(event.detail.status));
 *
 * It comes back by itself after a lost connection, spread out in time so that thousands of browsers
 * do not come back at once, and it stays away where the server said so. It never stores a message:
 * `send` is false while there is no connection, and what the server could not deliver is told by
 * the events `gap`, `dropped` and `lost`. Works in a window and in a worker.
 *
 * Events, each with its facts in `event.detail`:
 *   open     { socket, again }   connected, with the id that the server gave this socket; `again`:
 *                                it was before, so messages may have been missed
 *   close    { code, reason }    the connection ended
 *   message  { channel, data }   every message (raw mode: { data })
 *   gap, dropped, lost  { channel, count }     messages of this channel may be missing; `count` says
 *                how many, where the server knows
 *   status   { status, reason, code, delay }   connecting, open, waiting, offline or stopped; why,
 *                in words; an HTTP status or close code; the milliseconds until the next try
 */
(function (scope) {
  "use strict";

  const ENVELOPE = "wsredis.v1";
  // The close codes after which coming back would only be refused again.
  const STAY_AWAY = { 1000: "closed", 1008: "not granted", 4403: "kicked" };
  // But for this 1008: a connection that was too slow for its message may be a better one next time.
  const UNFINISHED = "message not finished";
  const RATE_LIMITED = 4029;
  const RATE_LIMIT_DELAY = 30000; // At least; milliseconds.
  const EXPIRED = 4401;
  const SILENT = 4012; // The server's own code for a peer that does not answer.
  const LOSSES = ["gap", "dropped", "lost"];

  // The options. Times are milliseconds.
  const DEFAULTS = {
    protocol: ENVELOPE, // null, or another subprotocol, is raw mode: bare payloads, no channels.
    heartbeat: null, // The grant's `heartbeat`: it is swallowed here, and
    heartbeatTimeout: 15000, // so much silence counts as a lost connection.
    connectTimeout: 15000, // How long a handshake may take.
    minDelay: 1000, // The first try comes within this time, each further one within twice as much,
    maxDelay: 30000, // up to this.
    stableAfter: 5000, // A connection this old is a good one: delays start anew after it.
  };

  const bytes = (base64) => Uint8Array.from(atob(base64), (c) => c.charCodeAt(0));

  function envelope(channel, data) {
    if (data instanceof ArrayBuffer) data = new Uint8Array(data);
    if (!ArrayBuffer.isView(data)) return JSON.stringify({ channel, data });
    const octets = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
    // One by one: String.fromCharCode(...octets) overflows the stack from some 100 KB on.
    const text = Array.from(octets, (octet) => String.fromCharCode(octet)).join("");
    return JSON.stringify({ channel, data: btoa(text), encoding: "base64" });
  }

  class WSRedis extends EventTarget {
    constructor(url, options) {
      super();
      this.options = Object.assign({}, DEFAULTS, options);
      const absolute = new URL(url, scope.location.href);
      absolute.protocol = absolute.protocol.replace(/^http/, "ws");
      absolute.hash = ""; // A websocket's URL with a fragment is a SyntaxError.
      this.url = absolute.href;
      this._channels = this.options.protocol === ENVELOPE;
      this.status = null;
      this.id = null; // The socket's id while open, unique across all servers.
      this._handlers = new Map(); // channel -> Set of functions
      this._attempt = 0; // Tries since the last good connection.
      this._notBefore = 0; // What the server asked for; not even `online` may hurry past it.
      this._expired = false; // A 4401 is followed at once, but only once.
      this._timers = {};
      this._hurry = this._hurry.bind(this);
      this.connect();
    }

    /** Calls `fn(data, channel)` for each message of `channel`. */
    on(channel, fn) {
      if (!this._handlers.has(channel)) this._handlers.set(channel, new Set());
      this._handlers.get(channel).add(fn);
      return this;
    }

    off(channel, fn) {
      if (this._handlers.has(channel)) this._handlers.get(channel).delete(fn);
      return this;
    }

    /** In raw mode `send(data)`. False if there is no open connection: then nothing was sent. */
    send(channel, data) {
      if (this.status !== "open") return false;
      this._ws.send(this._channels ? envelope(channel, data) : channel);
      return true;
    }

    /** Connects now. Needed only after `stopped`, for instance once the user has logged in. */
    connect() {
      if (this.status === "connecting" || this.status === "open") return;
      this._watchPage(true);
      this._clear();
      this._asked = null;
      this._status("connecting");
      const protocol = this.options.protocol;
      const ws = protocol ? new WebSocket(this.url, protocol) : new WebSocket(this.url);
      ws.binaryType = "arraybuffer";
      let wasOpen = false;
      this._ws = ws;
      // An old socket may still speak after a new one took its place: each looks whether it is it.
      const current = (fn) => (event) => ws === this._ws && fn(event);
      ws.onopen = current(() => {
        wasOpen = true;
        if (!this._channels) this._opened(null); // Else the server's hello says so.
      });
      ws.onmessage = current((event) => {
        this._listen();
        this._receive(event.data);
      });
      ws.onclose = current((event) => this._lost(wasOpen, event.code, event.reason));
      // A server that takes the connection and says nothing would be waited for by the minute.
      this._timer("connect", this.options.connectTimeout, () => this._abandon(wasOpen, 1006));
    }

    /** Closes for good. */
    close(code = 1000, reason = "") {
      const ws = this._ws;
      this._ws = null;
      this._stop("closed", code);
      if (ws) {
        ws.close(code, reason);
        this._emit("close", { code, reason });
      }
    }

    _receive(text) {
      if (this.options.heartbeat !== null && text === this.options.heartbeat) return;
      if (!this._channels) {
        this._emit("message", { data: text });
        return;
      }
      const { type, channel, data, encoding, socket, count } = JSON.parse(text);
      if (type === "hello") this._opened(socket);
      else if (LOSSES.includes(type))
        this._emit(type, count === undefined ? { channel } : { channel, count });
      else if (type === undefined) this._deliver(channel, encoding ? bytes(data) : data);
      // Any other type is of a later version, and no message.
    }

    _deliver(channel, data) {
      this._emit("message", { channel, data });
      (this._handlers.get(channel) || []).forEach((fn) => {
        // One handler's mistake is reported as uncaught, and keeps no other from the message.
        new Promise((resolve) => resolve(fn(data, channel)));
      });
    }

    _opened(id) {
      this.id = id;
      this._clear();
      this._listen();
      this._timer("stable", this.options.stableAfter, () => {
        this._attempt = 0;
        this._expired = this._refused = false;
      });
      this._status("open");
      this._emit("open", { socket: id, again: !!this._again });
      this._again = true;
    }

    /** Something was heard. With a heartbeat, silence from now on is a lost connection. */
    _listen() {
      if (this.options.heartbeat === null) return;
      const wait = this.options.heartbeatTimeout;
      const due = Date.now() + wait;
      this._timer("silence", wait, () => {
        // A timer far behind its time slept with the computer or the tab, and what was heard
        // meanwhile is only now read: give it one more turn.
        if (Date.now() - due > 1000) this._listen();
        else this._abandon(true, SILENT);
      });
    }

    /** Gives the socket up without waiting for a peer that may be gone. */
    _abandon(wasOpen, code) {
      const ws = this._ws;
      this._ws = null;
      ws.close();
      this._lost(wasOpen, code, "");
    }

    _lost(wasOpen, code, reason) {
      this._ws = this.id = this.status = null;
      this._clear();
      if (!wasOpen) this._ask();
      else if (code in STAY_AWAY && reason !== UNFINISHED) this._stop(STAY_AWAY[code], code);
      else if (code === RATE_LIMITED) this._wait("rate limited", code, RATE_LIMIT_DELAY);
      else if (code === EXPIRED && !this._expired) {
        // The view decides again. A second 4401 before a good connection has no such hurry.
        this._expired = true;
        this.connect();
      } else this._wait("lost", code);
      // After the status: whoever hears `close` can see what comes of it.
      if (wasOpen) this._emit("close", { code, reason });
    }

    /**
     * A script is not told why a handshake failed. The same URL is asked once by plain HTTP: the
     * plugin answers 426 where the view would have granted, else the view's own refusal shows.
     */
    _ask() {
      this._status("waiting", { reason: "asking" });
      const abort = new AbortController();
      this._timer("ask", this.options.connectTimeout, () => abort.abort());
      const asked = (this._asked = {});
      const current = (fn) => (answer) => asked === this._asked && fn(answer);
      const how = { credentials: "include", cache: "no-store", redirect: "manual" };
      fetch(this.url.replace(/^ws/, "http"), Object.assign(how, { signal: abort.signal })).then(
        current((response) => this._answered(response)),
        current(() => this._wait("unreachable", 0)),
      );
    }

    _answered(response) {
      const code = response.status;
      if (code === 401) this._stop("unauthorized", code);
      else if (code === 403) this._stop("forbidden", code);
      // A handshake follows no redirect: a login page, or a URL without its slash.
      else if (response.type === "opaqueredirect") this._stop("redirected", code);
      else if (code === 503 || code === 429) {
        // Retry-After may also be a date, which is too rare here to read: then our own delay.
        const seconds = parseInt(response.headers.get("Retry-After"), 10) || 0;
        this._wait("busy", code, Math.min(Math.max(seconds, 0), 3600) * 1000);
      } else if (code === 426) {
        // Maybe the server came up just now: soon, then. If it refuses again it is full, and asking
        // costs it a request more: twice the usual delay makes up for that.
        this._attempt = this._refused ? this._attempt + 1 : 0;
        this._refused = true;
        this._wait("refused", code);
      } else {
        this._attempt = 31; // 404, 500, 501: when somebody has repaired it, we shall see it.
        this._wait("failed", code);
      }
    }

    /** Tries again after `atLeast` ms and a random time: full jitter spreads a herd best. */
    _wait(reason, code, atLeast = 0) {
      const { minDelay, maxDelay } = this.options;
      const spread = Math.min(maxDelay, minDelay * Math.pow(2, Math.min(this._attempt, 31)));
      this._attempt += 1;
      this._notBefore = Date.now() + atLeast;
      const offline = scope.navigator && scope.navigator.onLine === false;
      // `online` will hurry us; but browsers err about being offline, so it is not "never".
      const delay = Math.round(atLeast + (offline ? maxDelay : Math.random() * spread));
      this._clear();
      this._timer("retry", delay, () => this.connect());
      this._status(offline ? "offline" : "waiting", { reason, code, delay });
    }

    /** The network is back, or somebody looks at the page: do not wait for the delay to end. */
    _hurry(event) {
      if (event.type === "visibilitychange" && scope.document.hidden) return;
      const waits = this.status === "offline" || this.status === "waiting";
      if (waits && this._timers.retry && Date.now() >= this._notBefore) this.connect();
    }

    _stop(reason, code) {
      this._clear();
      this._watchPage(false);
      this.id = this._asked = null;
      this._status("stopped", { reason, code });
    }

    _watchPage(on) {
      const change = on ? "addEventListener" : "removeEventListener";
      scope[change]("online", this._hurry);
      if (scope.document) scope.document[change]("visibilitychange", this._hurry);
    }

    _timer(name, delay, fn) {
      clearTimeout(this._timers[name]);
      this._timers[name] = setTimeout(fn, delay);
    }

    _clear() {
      Object.values(this._timers).forEach(clearTimeout);
      this._timers = {};
    }

    _status(status, facts) {
      this.status = status;
      this._emit("status", Object.assign({ status, reason: "", code: 0, delay: 0 }, facts));
    }

    _emit(type, detail) {
      this.dispatchEvent(new CustomEvent(type, { detail }));
    }
  }

  scope.WSRedis = WSRedis;
})(self);
