// The pad: one stroke from pen down to pen up, by pointer or by keys; and the live traces of a phone's motion.
import { still } from "./dom.js";
import { colour, curve, gestureColour, ink, prepare, redrawOn } from "./paint.js";
import { SHAPES } from "./shapes.js";

const KEYS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const KEY_SECONDS = 0.03, STEP = 0.04, HINT_SECONDS = 2.6;

/** Calls onStroke(rows) with rows [t, x, y]: seconds, the shorter side as unit, y down. */
export class Pad {
  constructor(canvas, { onStroke, onTap, onBegin }) {
    this.canvas = canvas;
    this.callbacks = { onStroke, onTap, onBegin };
    this.enabled = true;
    this.kind = "pointer";
    this.rows = []; // in pixels, y down
    this.last = null; // the stroke before, {rows, colour}
    this.ghosts = []; // thumbnails of the examples before
    this.hint = null;
    this.traces = []; // [t, x, y, z] of the phone
    this.recordFrom = null;
    this.pointer = null;
    this.pen = null; // the keyboard's pen, {x, y, down, t}, in pixels
    this.held = new Set();
    this.frame = 0;
    this.#listen();
    redrawOn(canvas, () => this.draw());
  }

  get size() {
    const { width, height } = this.canvas.getBoundingClientRect();
    return { width, height, unit: Math.max(1, Math.min(width, height)) };
  }

  /** Show a dotted shape to draw over, the examples before, or nothing. */
  show({ hint = null, ghosts = [], ghostColour = 0 }) {
    if (hint !== this.hint) this.hintStart = performance.now();
    this.hint = SHAPES[hint] ? hint : null;
    this.ghosts = ghosts;
    this.ghostColour = ghostColour;
    this.draw();
  }

  /** Give the stroke that was drawn last a gesture's colour, or grey for none. */
  tint(number) {
    if (this.last) this.last.colour = number;
    this.draw();
  }

  clear() {
    this.rows = [];
    this.last = null;
    this.draw();
  }

  // ---- pointer and keys ---------------------------------------------------------------------------
  #listen() {
    const canvas = this.canvas;
    canvas.addEventListener("pointerdown", (event) => {
      if (this.kind !== "pointer" || !this.enabled || this.pointer !== null || event.button !== 0) return;
      this.pointer = event.pointerId;
      canvas.setPointerCapture(event.pointerId);
      this.pen = null;
      this.#begin();
      this.#add(event);
    });
    canvas.addEventListener("pointermove", (event) => {
      if (event.pointerId !== this.pointer) return;
      const all = event.getCoalescedEvents?.() ?? [];
      for (const one of all.length ? all : [event]) this.#add(one);
      this.draw();
    });
    const up = (event) => {
      if (event.pointerId !== this.pointer) return;
      this.pointer = null;
      this.#end();
    };
    canvas.addEventListener("pointerup", up);
    canvas.addEventListener("pointercancel", (event) => {
      if (event.pointerId !== this.pointer) return;
      this.pointer = null;
      this.#discard();
    });
    canvas.addEventListener("keydown", (event) => this.#key(event));
    canvas.addEventListener("keyup", (event) => this.held.delete(event.key));
    canvas.addEventListener("focus", () => this.draw());
    canvas.addEventListener("blur", () => {
      this.held.clear();
      if (this.pen?.down) this.#discard();
      this.pen = null;
      this.draw();
    });
  }

  #begin() {
    this.rows = [];
    this.last = null;
    this.callbacks.onBegin?.();
  }

  #add(event) {
    const box = this.canvas.getBoundingClientRect();
    this.#row(event.timeStamp / 1000, event.clientX - box.left, event.clientY - box.top);
  }

  #row(t, x, y) {
    const before = this.rows.at(-1);
    if (before && (t < before[0] || (x === before[1] && y === before[2]))) return;
    this.rows.push([t, x, y]);
  }

  #discard() {
    this.rows = [];
    if (this.pen) this.pen.down = false;
    this.draw();
  }

  #end() {
    const rows = this.rows;
    this.rows = [];
    const { unit } = this.size;
    const length = rows.slice(1).reduce((sum, [, x, y], i) => sum + Math.hypot(x - rows[i][1], y - rows[i][2]), 0);
    if (rows.length < 3 || length < 0.06 * unit) {
      this.draw();
      this.callbacks.onTap?.();
      return;
    }
    this.last = { rows, colour: null };
    this.draw();
    const [start] = rows[0];
    this.callbacks.onStroke(rows.map(([t, x, y]) => [t - start, x / unit, y / unit]));
  }

  #key(event) {
    if (this.kind !== "pointer" || event.ctrlKey || event.metaKey || event.altKey) return;
    const { width, height, unit } = this.size;
    if (event.key === "Escape" && (this.rows.length || this.pen?.down)) {
      event.preventDefault();
      this.#discard();
    } else if (event.key === " " || event.key === "Enter") {
      event.preventDefault();
      if (event.repeat || !this.enabled) return;
      this.pen ??= { x: width / 2, y: height / 2, t: 0 };
      if (this.pen.down) {
        this.pen.down = false;
        this.#end();
      } else {
        this.#begin();
        this.pen.down = true;
        this.pen.t = 0;
        this.#row(0, this.pen.x, this.pen.y);
        this.draw();
      }
    } else if (KEYS[event.key]) {
      event.preventDefault();
      this.held.add(event.key);
      this.pen ??= { x: width / 2, y: height / 2, t: 0 };
      const step = STEP * unit * (event.shiftKey ? 0.25 : 1);
      // Two arrows held go diagonally.
      let [dx, dy] = [0, 0];
      for (const key of this.held) {
        dx += KEYS[key][0];
        dy += KEYS[key][1];
      }
      this.pen.x = Math.min(width - 4, Math.max(4, this.pen.x + Math.sign(dx) * step));
      this.pen.y = Math.min(height - 4, Math.max(4, this.pen.y + Math.sign(dy) * step));
      if (this.pen.down) this.#row((this.pen.t += KEY_SECONDS), this.pen.x, this.pen.y);
      this.draw();
    }
  }

  // ---- drawing ------------------------------------------------------------------------------------
  /** Draw with the next frame, however often it is asked for. */
  draw() {
    if (!this.frame) this.frame = requestAnimationFrame((now) => this.#paint(now));
  }

  #paint(now) {
    this.frame = 0;
    this.canvas.dataset.ink = this.rows.length || this.last ? "yes" : "no"; // the help makes room
    const { context, width, height } = prepare(this.canvas);
    if (!width || !height) return;
    const unit = Math.min(width, height);
    this.#grid(context, width, height);
    if (this.kind === "phone") {
      this.#traces(context, width, height);
      return;
    }
    const place = ([x, y]) => [width / 2 + (x - 0.5) * unit * 0.86, height / 2 + (y - 0.5) * unit * 0.86];
    const drawing = this.rows.length > 0;
    if (!drawing && !this.last) for (const ghost of this.ghosts) this.#ghost(context, ghost, place);
    if (this.hint && !drawing && !this.last) this.#hint(context, place, now);
    const thick = Math.max(5, unit / 62);
    if (this.last) {
      const { rows, colour: number } = this.last;
      context.strokeStyle = number === null ? colour("ink") : number < 0 ? colour("faint") : gestureColour(number);
      ink(context, rows, thick);
    }
    if (drawing) {
      context.strokeStyle = colour("ink");
      ink(context, this.rows, thick);
    }
    if (this.pen && document.activeElement === this.canvas) this.#cross(context);
  }

  #grid(context, width, height) {
    const gap = 28;
    context.fillStyle = colour("grid");
    for (let x = (width / 2) % gap; x < width; x += gap) {
      for (let y = (height / 2) % gap; y < height; y += gap) context.fillRect(x - 0.75, y - 0.75, 1.5, 1.5);
    }
  }

  #ghost(context, points, place) {
    context.strokeStyle = gestureColour(this.ghostColour);
    context.globalAlpha = 0.22;
    context.lineWidth = 5;
    curve(context, points.map(([x, y]) => place([0.5 + (x - 50) / 140, 0.5 + (y - 50) / 140])));
    context.globalAlpha = 1;
  }

  #hint(context, place, now) {
    const shape = SHAPES[this.hint];
    const done = still() ? 1 : ((now - this.hintStart) / 1000 % (HINT_SECONDS + 0.9)) / HINT_SECONDS;
    const points = Array.from({ length: 97 }, (_, i) => place(shape(i / 96)));
    context.strokeStyle = colour("faint");
    context.lineWidth = 2.5;
    context.setLineDash([0.1, 9]);
    curve(context, points);
    context.setLineDash([]);
    const accent = colour("accent");
    context.strokeStyle = context.fillStyle = accent;
    if (!still()) {
      context.lineWidth = 4;
      curve(context, points.slice(0, Math.max(2, Math.round(Math.min(1, done) * 96) + 1)));
      context.beginPath();
      context.arc(...place(shape(Math.min(1, done))), 7, 0, 2 * Math.PI);
      context.fill();
      this.draw();
      return;
    }
    // A still picture tells the direction: a dot where to begin, an arrow where to end.
    context.beginPath();
    context.arc(...points[0], 7, 0, 2 * Math.PI);
    context.fill();
    const [x, y] = points.at(-4), [u, v] = points.at(-1);
    const angle = Math.atan2(v - y, u - x);
    context.lineWidth = 3;
    context.beginPath();
    context.moveTo(u - 14 * Math.cos(angle - 0.5), v - 14 * Math.sin(angle - 0.5));
    context.lineTo(u, v);
    context.lineTo(u - 14 * Math.cos(angle + 0.5), v - 14 * Math.sin(angle + 0.5));
    context.stroke();
  }

  #cross(context) {
    const { x, y, down } = this.pen;
    context.strokeStyle = context.fillStyle = colour("accent");
    context.lineWidth = 2;
    context.beginPath();
    context.arc(x, y, down ? 5 : 11, 0, 2 * Math.PI);
    if (down) context.fill();
    context.moveTo(x - 20, y);
    context.lineTo(x - 13, y);
    context.moveTo(x + 13, y);
    context.lineTo(x + 20, y);
    context.moveTo(x, y - 20);
    context.lineTo(x, y - 13);
    context.moveTo(x, y + 13);
    context.lineTo(x, y + 20);
    context.stroke();
  }

  #traces(context, width, height) {
    const shown = 4, end = this.traces.at(-1)?.[0] ?? 0;
    const x = (t) => width * (1 - (end - t) / shown);
    const middle = Math.max(height * 0.25, (height - 130) / 2); // above the button and its text
    if (this.recordFrom !== null) {
      context.fillStyle = colour("wash");
      context.fillRect(Math.max(0, x(this.recordFrom)), 0, width, height);
    }
    const largest = Math.max(1.5, ...this.traces.map((row) => Math.max(...row.slice(1).map(Math.abs))));
    for (let channel = 1; channel <= 3; channel++) {
      context.strokeStyle = gestureColour([0, 1, 4][channel - 1]);
      context.lineWidth = 2.5;
      curve(context, this.traces.map((row) => [x(row[0]), middle - (row[channel] / largest) * middle * 0.88]));
    }
  }

  /** Take one sample of the phone, [t, x, y, z]. */
  trace(row) {
    this.traces.push(row);
    while (this.traces.length && this.traces[0][0] < row[0] - 4.2) this.traces.shift();
    this.draw();
  }
}
