// A phone's motion: whether it can be had, the permission, and samples [t, x, y, z] in g, gravity included.

const SILENCE = 2000, GRAVITY = 9.80665;

/** Why the motion cannot be had, or null. */
export function obstacle() {
  if (!window.isSecureContext) {
    return "A phone gives its motion to secure (https) pages only. Start the server with a certificate, or draw instead.";
  }
  if (typeof DeviceMotionEvent === "undefined") return "This browser has no motion sensor. Open the page on a phone, or draw instead.";
  return null;
}

export class Motion {
  /** onSample(row), onSilence() when nothing arrives. */
  constructor({ onSample, onSilence }) {
    this.callbacks = { onSample, onSilence };
    this.running = false;
    this.listener = (event) => this.#hear(event);
    // iOS counts the directions the other way round.
    this.unit = (/iP(hone|ad|od)/.test(navigator.userAgent) ? -1 : 1) / GRAVITY;
  }

  /** Ask for the permission where there is one, and listen. Throws an Error that says why not. */
  async start() {
    const reason = obstacle();
    if (reason) throw new Error(reason);
    if (typeof DeviceMotionEvent.requestPermission === "function") {
      const answer = await DeviceMotionEvent.requestPermission().catch(() => "denied");
      if (answer !== "granted") throw new Error("The motion sensor was not allowed. Allow it in the browser's settings for this page, then try again.");
    }
    if (this.running) return;
    this.running = true;
    this.heard = false;
    addEventListener("devicemotion", this.listener);
    this.timer = setTimeout(() => this.heard || this.callbacks.onSilence(), SILENCE);
  }

  stop() {
    this.running = false;
    clearTimeout(this.timer);
    removeEventListener("devicemotion", this.listener);
  }

  #hear(event) {
    const full = event.accelerationIncludingGravity, bare = event.acceleration;
    const a = full?.x != null ? full : bare;
    if (a?.x == null || a.y == null || a.z == null) return;
    this.heard = true;
    this.callbacks.onSample([event.timeStamp / 1000, this.unit * a.x, this.unit * a.y, this.unit * a.z]);
  }
}
