// Waving: the permission, one example while a button is held, and listening without end.
import { $, say } from "./dom.js";
import { Motion, obstacle } from "./motion.js";

const HOLD = 400, SEND_EVERY = 120, LONGEST = 20;

export class Wave {
  #motion;
  #record = null; // samples of the example being recorded
  #pressed = 0;
  #batch = [];
  #timer = 0;
  #trouble = "";

  /** page: {made(rows), mode(), ready(), coach(text)}. */
  constructor(pad, connection, page) {
    this.pad = pad;
    this.connection = connection;
    this.page = page;
    this.active = false;
    this.running = false; // whether motion is sent to be recognised
    this.#motion = new Motion({
      onSample: (row) => this.#sample(row),
      onSilence: () => {
        this.#trouble = "No motion arrives: this device seems to have no sensor. Open the page on a phone, or draw instead.";
        this.changed();
      },
    });
    const button = $("wave-button");
    button.addEventListener("pointerdown", () => this.#down());
    button.addEventListener("pointerup", () => this.#up());
    button.addEventListener("pointercancel", () => this.#up());
    // Keys come as clicks without a pointer; they start and end.
    button.addEventListener("click", (event) => event.detail === 0 && this.#toggle());
    document.addEventListener("visibilitychange", () => document.hidden && this.#pause());
  }

  use(active) {
    this.active = active;
    this.#trouble = obstacle() ?? "";
    if (!active) {
      this.#pause();
      this.#motion.stop();
      this.pad.traces = [];
    }
    this.changed();
  }

  /** Show what can be done now. */
  changed() {
    $("wave").hidden = !this.active;
    $("pad-help").hidden = this.active;
    if (!this.active) return;
    const teaching = this.page.mode() === "teach";
    if (teaching && this.running) this.#pause();
    const flowing = this.#motion.running && !this.#trouble;
    $("wave-button").hidden = Boolean(obstacle());
    $("wave-button").disabled = flowing && !this.page.ready();
    $("wave-button").setAttribute("aria-pressed", String(this.#record !== null || this.running));
    say($("wave-button"), !flowing ? "Allow motion" : teaching ? (this.#record ? "Recording" : "Hold to record") : this.running ? "Stop listening" : "Start listening");
    say($("wave-text"), this.#trouble || (!flowing ? "Hold the phone in your hand and wave it." : teaching ? "Hold the button, make the gesture, let go." : "Wave the phone; gestures are named as they come."));
  }

  async #allow() {
    try {
      await this.#motion.start();
      this.#trouble = "";
    } catch (error) {
      this.#trouble = error.message;
    }
    this.changed();
  }

  #down() {
    if (!this.#motion.running || this.#trouble) return;
    this.#pressed = Date.now();
    if (this.page.mode() === "teach" && this.#record === null) this.#begin();
    else this.#pressed = 0;
  }

  #up() {
    if (!this.#motion.running || this.#trouble) this.#allow();
    else if (this.page.mode() === "recognize") this.#toggle();
    // A short press begins a recording that the next press ends.
    else if (this.#record && (this.#pressed === 0 || Date.now() - this.#pressed > HOLD)) this.#end();
  }

  #toggle() {
    if (!this.#motion.running || this.#trouble) this.#allow();
    else if (this.page.mode() === "teach") this.#record ? this.#end() : this.#begin();
    else if (this.running) this.#pause();
    else {
      this.running = true;
      this.#batch = [];
      this.#timer = setInterval(() => this.#send(), SEND_EVERY);
      this.changed();
    }
  }

  #begin() {
    if (!this.page.ready()) {
      this.page.coach("Name the gesture first.");
      return;
    }
    this.#record = [];
    this.pad.recordFrom = performance.now() / 1000;
    this.changed();
  }

  #end() {
    const rows = this.#record;
    this.#record = null;
    this.pad.recordFrom = null;
    this.changed();
    if (rows.length < 8) this.page.coach("That was too short. Hold the button while you make the gesture.");
    else this.page.made(rows);
  }

  #sample(row) {
    this.pad.trace(row);
    if (this.#record) {
      this.#record.push(row);
      if (row[0] - this.#record[0][0] > LONGEST) this.#end();
    }
    if (this.running) this.#batch.push(row);
  }

  #send() {
    if (this.#batch.length) this.connection.tell({ type: "samples", input: "phone", samples: this.#batch.splice(0, 512) });
  }

  #pause() {
    if (!this.running) return;
    this.#send();
    clearInterval(this.#timer);
    this.running = false;
    this.connection.tell({ type: "rest", input: "phone" });
    this.changed();
  }
}
