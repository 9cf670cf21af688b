// Canvas: its size in device pixels, the colours of the style sheet, and strokes that look like ink.

export function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

export const N_COLOURS = 12;
export const gestureColour = (number) => colour(`g${number % N_COLOURS}`);

/** Fit a canvas to its box; returns the context, scaled to CSS pixels, and the size. */
export function prepare(canvas) {
  const { width, height } = canvas.getBoundingClientRect();
  const ratio = Math.min(3, devicePixelRatio || 1);
  const wide = Math.max(1, Math.round(width * ratio)), high = Math.max(1, Math.round(height * ratio));
  if (canvas.width !== wide || canvas.height !== high) {
    canvas.width = wide;
    canvas.height = high;
  }
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  context.lineCap = context.lineJoin = "round";
  return { context, width, height };
}

/** Redraw when the size or the colours change. */
export function redrawOn(canvas, draw) {
  new ResizeObserver(draw).observe(canvas);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
}

/** A smooth line through points [[x, y], ...]. */
export function curve(context, points) {
  if (points.length < 2) return;
  context.beginPath();
  context.moveTo(...points[0]);
  for (let i = 1; i < points.length - 1; i++) {
    const [x, y] = points[i], [u, v] = points[i + 1];
    context.quadraticCurveTo(x, y, (x + u) / 2, (y + v) / 2);
  }
  context.lineTo(...points.at(-1));
  context.stroke();
}

/** Ink: thinner where the pen was fast. Rows are [t, x, y] in pixels. */
export function ink(context, rows, width) {
  if (rows.length === 1) {
    context.beginPath();
    context.arc(rows[0][1], rows[0][2], width / 2, 0, 2 * Math.PI);
    context.fillStyle = context.strokeStyle;
    context.fill();
    return;
  }
  let thick = width;
  for (let i = 1; i < rows.length; i++) {
    const [t, x, y] = rows[i - 1], [u, v, w] = rows[i];
    const speed = Math.hypot(v - x, w - y) / Math.max(1e-3, u - t);
    thick += 0.18 * (width * (0.45 + 0.75 / (1 + speed / 700)) - thick);
    context.lineWidth = thick;
    context.beginPath();
    const before = rows[i - 2] ?? rows[i - 1];
    context.moveTo((before[1] + x) / 2, (before[2] + y) / 2);
    context.quadraticCurveTo(x, y, (x + v) / 2, (y + w) / 2);
    if (i === rows.length - 1) context.lineTo(v, w);
    context.stroke();
  }
}

export function font(context, size, weight = 400) {
  context.font = `${weight} ${size}px ${getComputedStyle(document.body).fontFamily}`;
}
