// The conversation with the server: a session, a WebSocket, and what to do when either is lost.

const FIRST_DELAY = 500, LONGEST_DELAY = 10_000, PING_EVERY = 20_000, PATIENCE = 12_000;
const REASONS = {
  4400: "The server closed the connection: it got messages that make no sense. Reload the page.",
  4408: "Nothing happened for a long time, so the connection was closed.",
  4429: "This session is open in too many tabs. Close one of them.",
  4431: "The connection was too slow for what the server sent.",
};

/** Take the token out of the address, so that it is neither shown nor bookmarked. */
function readToken() {
  const found = /(?:^#|&)token=([^&]*)/.exec(location.hash);
  try {
    if (found) {
      sessionStorage.setItem("token", decodeURIComponent(found[1]));
      history.replaceState(null, "", location.pathname + location.search);
    }
    return sessionStorage.getItem("token");
  } catch {
    return found ? found[1] : null;
  }
}

export class Refused extends Error {
  constructor(code, message) {
    super(message);
    this.code = code;
  }
}

/** Events: "open" {kept, limits}, "message" {data}, "trouble" {text, retryAt}. */
export class Connection extends EventTarget {
  #token = readToken();
  #socket = null;
  #asked = new Map();
  #next = 1;
  #attempt = 0;
  #timer = 0;
  #ping = 0;
  #heard = 0;
  #opening = false;

  get isOpen() {
    return this.#socket?.readyState === WebSocket.OPEN;
  }

  start() {
    addEventListener("online", () => this.retry());
    addEventListener("offline", () => this.#lost("This device is offline."));
    document.addEventListener("visibilitychange", () => document.hidden || this.retry());
    addEventListener("hashchange", () => {
      this.#token = readToken();
      this.retry();
    });
    this.#open();
  }

  /** Try at once, unless connected. */
  retry() {
    if (this.isOpen || this.#opening) return;
    clearTimeout(this.#timer);
    this.#open();
  }

  /** Send a message that has no answer of its own. */
  tell(message) {
    if (this.isOpen) this.#socket.send(JSON.stringify(message));
  }

  /** Send a message; resolves to its answer, rejects with Refused. */
  ask(message) {
    if (!this.isOpen) return Promise.reject(new Refused("offline", "Not connected: that was not sent."));
    const id = this.#next++;
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        this.#asked.delete(id);
        reject(new Refused("slow", "The server did not answer; try again."));
      }, 30_000);
      this.#asked.set(id, { resolve, reject, timer });
      this.#socket.send(JSON.stringify({ ...message, id }));
    });
  }

  async #open() {
    this.#opening = true;
    let session;
    try {
      const headers = this.#token ? { Authorization: `Bearer ${this.#token}` } : {};
      const stop = AbortSignal.timeout ? AbortSignal.timeout(PATIENCE) : undefined;
      const response = await fetch("/session", { method: "POST", headers, signal: stop });
      session = await response.json();
      if (!response.ok) {
        this.#opening = false;
        this.#lost(sentence(session.message), response.status !== 401 && response.status !== 403);
        return;
      }
    } catch {
      this.#opening = false;
      this.#lost(navigator.onLine === false ? "This device is offline." : "The server does not answer.");
      return;
    }
    const socket = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/ws`);
    this.#socket = socket;
    socket.addEventListener("open", () => {
      this.#opening = false;
      this.#attempt = 0;
      this.#heard = Date.now();
      clearInterval(this.#ping);
      this.#ping = setInterval(() => this.#check(), PING_EVERY / 4);
      this.dispatchEvent(new CustomEvent("open", { detail: session }));
    });
    socket.addEventListener("message", (event) => this.#receive(event.data));
    socket.addEventListener("close", (event) => {
      if (socket !== this.#socket) return;
      this.#opening = false;
      this.#lost(REASONS[event.code] ?? "The connection was lost.", ![4400, 4429].includes(event.code));
    });
  }

  /** A line that broke without a word is noticed by its silence. */
  #check() {
    const silence = Date.now() - this.#heard;
    if (silence > PING_EVERY + PATIENCE) this.#lost("The server does not answer.");
    else if (silence > PING_EVERY) this.tell({ type: "ping" });
  }

  #receive(text) {
    this.#heard = Date.now();
    const data = JSON.parse(text);
    const asked = this.#asked.get(data.reply_to);
    if (asked) {
      this.#asked.delete(data.reply_to);
      clearTimeout(asked.timer);
      if (data.type === "error") asked.reject(new Refused(data.code, sentence(data.message)));
      else asked.resolve(data);
    }
    if (!asked || data.type !== "error") this.dispatchEvent(new CustomEvent("message", { detail: data }));
  }

  #lost(text, again = true) {
    clearInterval(this.#ping);
    clearTimeout(this.#timer);
    const socket = this.#socket;
    this.#socket = null;
    socket?.close();
    for (const { reject, timer } of this.#asked.values()) {
      clearTimeout(timer);
      reject(new Refused("offline", "The connection broke before the server had answered."));
    }
    this.#asked.clear();
    // Twice as long each time, and not all pages of a restarted server at once.
    const delay = Math.min(LONGEST_DELAY, FIRST_DELAY * 2 ** this.#attempt++) * (0.75 + 0.5 * Math.random());
    if (again) this.#timer = setTimeout(() => this.#open(), delay);
    this.dispatchEvent(new CustomEvent("trouble", { detail: { text, retryAt: again ? Date.now() + delay : null } }));
  }
}

/** The server's sentences begin as they do in Python: small. */
export function sentence(text) {
  return text.charAt(0).toUpperCase() + text.slice(1);
}
