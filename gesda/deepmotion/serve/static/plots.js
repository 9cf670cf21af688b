// Look: the motion with its reconstruction, the map of all examples, the learning curves.
import { percent } from "./dom.js";
import { colour, curve, font, gestureColour, prepare, redrawOn } from "./paint.js";

function message(context, width, height, lines) {
  context.fillStyle = colour("soft");
  context.textAlign = "center";
  context.textBaseline = "middle";
  font(context, 13);
  lines.forEach((line, i) => context.fillText(line, width / 2, height / 2 + (i - (lines.length - 1) / 2) * 19));
}

const short = (value) => (Math.abs(value) >= 100 ? String(Math.round(value)) : value.toPrecision(2));

class Plot {
  constructor(canvas) {
    this.canvas = canvas;
    this.data = null;
    redrawOn(canvas, () => this.draw());
  }

  set(data) {
    this.data = data;
    this.draw();
  }

  draw() {
    const { context, width, height } = prepare(this.canvas);
    if (width && height) this.paint(context, width, height);
  }
}

/** data: {motion, reconstruction, colour} as the recogniser sees it. */
export class ShapePlot extends Plot {
  paint(context, width, height) {
    if (!this.data) {
      message(context, width, height, ["Make a gesture: the motion and", "its reconstruction appear here."]);
      return;
    }
    const { motion, reconstruction } = this.data;
    const tint = this.data.colour == null || this.data.colour < 0 ? colour("ink") : gestureColour(this.data.colour);
    const sets = motion[0].length === 2 ? this.#path(motion, reconstruction, width, height) : this.#channels(motion, reconstruction, width, height);
    for (const [original] of sets) {
      context.strokeStyle = tint;
      context.globalAlpha = 0.34;
      context.lineWidth = sets.length > 1 ? 5 : 9;
      curve(context, original);
    }
    context.globalAlpha = 1;
    for (const [original, again] of sets) {
      context.strokeStyle = colour("ink");
      context.lineWidth = 1.75;
      curve(context, again);
      if (sets.length > 1) continue;
      context.fillStyle = tint;
      context.beginPath();
      context.arc(...original[0], 5, 0, 2 * Math.PI);
      context.fill();
    }
  }

  #path(motion, reconstruction, width, height) {
    const all = [...motion, ...reconstruction];
    const [xs, ys] = [0, 1].map((axis) => all.map((row) => row[axis]));
    const [left, right, low, high] = [Math.min(...xs), Math.max(...xs), Math.min(...ys), Math.max(...ys)];
    const scale = Math.min((width - 36) / (right - left || 1), (height - 32) / (high - low || 1));
    const place = ([x, y]) => [width / 2 + (x - (left + right) / 2) * scale, height / 2 + (y - (low + high) / 2) * scale];
    return [[motion.map(place), reconstruction.map(place)]];
  }

  #channels(motion, reconstruction, width, height) {
    const n = motion[0].length;
    return Array.from({ length: n }, (_, channel) => {
      const values = [...motion, ...reconstruction].map((row) => row[channel]);
      const low = Math.min(...values), high = Math.max(...values);
      const top = (channel * height) / n + 8, tall = height / n - 16;
      const line = (rows) => rows.map((row, i) => [
        12 + (i / Math.max(1, rows.length - 1)) * (width - 24),
        top + tall * (1 - (row[channel] - low) / (high - low || 1)),
      ]);
      return [line(motion), line(reconstruction)];
    });
  }
}

/** data: {points: [[name, index, x, y]], colours: {name: number}, here: [x, y] or null, unknown}. */
export class MapPlot extends Plot {
  constructor(canvas, onPick) {
    super(canvas);
    this.places = [];
    canvas.addEventListener("click", (event) => {
      const box = canvas.getBoundingClientRect();
      const away = ([x, y]) => Math.hypot(x - event.clientX + box.left, y - event.clientY + box.top);
      const nearest = this.places.reduce((best, entry) => (away(entry.at) < away(best.at) ? entry : best), this.places[0]);
      if (nearest && away(nearest.at) < 24) onPick(nearest.name, nearest.index);
    });
  }

  paint(context, width, height) {
    const points = this.data?.points ?? [];
    this.places = [];
    if (!points.length) {
      message(context, width, height, ["Each example will be a point,", "close to those it resembles."]);
      return;
    }
    const reach = Math.max(1, ...(this.data.here ?? []).map(Math.abs));
    const place = ([x, y]) => [width / 2 + (x / reach) * (width / 2 - 20), height / 2 - (y / reach) * (height / 2 - 18)];
    context.strokeStyle = colour("line");
    context.lineWidth = 1;
    context.beginPath();
    context.moveTo(width / 2, 8);
    context.lineTo(width / 2, height - 8);
    context.moveTo(8, height / 2);
    context.lineTo(width - 8, height / 2);
    context.stroke();
    const groups = new Map();
    for (const [name, index, x, y] of points) {
      const at = place([x, y]);
      this.places.push({ name, index, at });
      groups.set(name, [...(groups.get(name) ?? []), at]);
      context.fillStyle = gestureColour(this.data.colours[name] ?? 11);
      context.strokeStyle = colour("surface");
      context.lineWidth = 1.5;
      context.beginPath();
      context.arc(...at, 6, 0, 2 * Math.PI);
      context.fill();
      context.stroke();
    }
    // The name of a cloud, where colours cannot be told apart.
    font(context, 12.5, 600);
    context.textBaseline = "middle";
    context.textAlign = "center";
    context.lineJoin = "round";
    for (const [name, places] of groups) {
      const centre = [0, 1].map((axis) => places.reduce((sum, at) => sum + at[axis], 0) / places.length);
      const top = Math.min(...places.map((at) => at[1]));
      const half = context.measureText(name).width / 2 + 6;
      const x = Math.min(width - half, Math.max(half, centre[0])), y = top > 26 ? top - 15 : Math.max(...places.map((at) => at[1])) + 16;
      context.strokeStyle = colour("surface");
      context.lineWidth = 4;
      context.strokeText(name, x, y);
      context.fillStyle = gestureColour(this.data.colours[name] ?? 11);
      context.fillText(name, x, y);
    }
    if (this.data.here) {
      context.strokeStyle = colour("ink");
      context.lineWidth = 2;
      context.beginPath();
      context.arc(...place(this.data.here), 10, 0, 2 * Math.PI);
      if (this.data.unknown) context.setLineDash([4, 4]);
      context.stroke();
      context.setLineDash([]);
    }
  }
}

/** data: {series: [{name, phase, points: [[epoch, loss]]}], running}. */
export class CurvePlot extends Plot {
  paint(context, width, height) {
    const series = (this.data?.series ?? []).filter((one) => one.points.length);
    if (!series.length) {
      message(context, width, height, [this.data?.running ? "The first epochs are under way." : "Losses appear here while it trains."]);
      return;
    }
    const losses = series.flatMap((one) => one.points.map((point) => point[1]));
    const epochs = Math.max(2, ...series.map((one) => one.points.at(-1)[0]));
    const low = Math.min(...losses), high = Math.max(...losses);
    const left = 12, right = width - 84, top = 12, bottom = height - 22;
    // Losses of the phases are of different kinds: each curve has its own height, and tells its values.
    context.strokeStyle = colour("line");
    context.lineWidth = 1;
    context.beginPath();
    context.moveTo(left, bottom + 0.5);
    context.lineTo(right, bottom + 0.5);
    context.stroke();
    font(context, 12);
    const labels = [];
    series.forEach((one, i) => {
      const span = one.points.map((point) => point[1]);
      const [least, most] = series.length > 1 ? [Math.min(...span), Math.max(...span)] : [low, high];
      const place = ([epoch, loss]) => [
        left + ((epoch - 1) / (epochs - 1)) * (right - left),
        bottom - 3 - ((loss - least) / (most - least || 1)) * (bottom - top - 6),
      ];
      const points = one.points.map(place);
      context.strokeStyle = context.fillStyle = gestureColour([0, 1, 4, 2, 3, 5][i % 6]);
      context.lineWidth = 2;
      curve(context, points);
      context.beginPath();
      context.arc(...points.at(-1), 3.5, 0, 2 * Math.PI);
      context.fill();
      labels.push({ text: `${one.name} ${short(one.points.at(-1)[1])}`, y: points.at(-1)[1], fill: context.fillStyle });
    });
    context.textBaseline = "middle";
    context.textAlign = "left";
    labels.sort((a, b) => a.y - b.y);
    // Names are pushed apart, upwards from the axis.
    for (let i = labels.length - 1, floor = bottom; i >= 0; i--, floor -= 15) labels[i].y = Math.min(labels[i].y, floor);
    for (const { text, y, fill } of labels) {
      context.fillStyle = fill;
      context.fillText(text, right + 8, Math.max(8, y), width - right - 10);
    }
    context.fillStyle = colour("soft");
    context.textBaseline = "alphabetic";
    context.fillText("epoch 1", left, height - 6);
    context.textAlign = "right";
    context.fillText(String(epochs), right, height - 6);
  }
}

/** Texts for those who cannot see the pictures. */
export const describe = {
  shape: (data) => `The motion and its reconstruction, which differs by ${data.error} on average.`,
  map: (points, explained) => {
    if (!points.length) return "No examples yet";
    const counts = new Map();
    for (const [name] of points) counts.set(name, (counts.get(name) ?? 0) + 1);
    return `Map of ${points.length} examples: ${[...counts].map(([name, n]) => `${n} of ${name}`).join(", ")}. It shows ${percent(explained)} of their variance.`;
  },
  curves: (series) => series.length
    ? series.map((one) => `${one.name}: loss ${one.points[0][1]} at first, ${one.points.at(-1)[1]} after ${one.points.at(-1)[0]} epochs`).join(". ")
    : "No training yet",
};
