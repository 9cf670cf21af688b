// The list of gestures: what each has, its examples as small pictures, and what can be done with it.
import { make, refill } from "./dom.js";
import { curve, gestureColour, prepare } from "./paint.js";

const SIZE = 34;

function thumbnail(points, number) {
  const canvas = make("canvas", { className: "thumb", "aria-hidden": "true" });
  // Drawn when it is in the document: its size and colours come from the style sheet.
  canvas.paint = () => {
    const { context } = prepare(canvas);
    context.strokeStyle = gestureColour(number);
    context.lineWidth = 1.75;
    const scale = (SIZE - 10) / 100;
    if (points[0].length === 2) {
      curve(context, points.map(([x, y]) => [5 + x * scale, 5 + y * scale]));
    } else {
      for (let channel = 0; channel < points[0].length; channel++) {
        context.globalAlpha = 1 - 0.28 * channel;
        curve(context, points.map((row, i) => [4 + (i / (points.length - 1)) * (SIZE - 8), SIZE - 5 - row[channel] * scale]));
      }
    }
  };
  return canvas;
}

/** What can be said of a gesture in two words. */
function standing(gesture, needed) {
  const n = gesture.examples.length;
  if (gesture.brought && !n) return "from the model";
  if (gesture.pending) return "learning";
  if (gesture.learnt) return `learnt from ${n}`;
  return `${n} of ${needed} examples`;
}

/** Fill the list. act: {teach, undo, forget, look}, each called with the name (look also with the index). */
export function fillGestures(list, state, { needed, chosen, act, fallback }) {
  const rows = state.gestures.map((gesture) => {
    const { name, colour: number } = gesture;
    const forget = make("button", { type: "button", className: "quiet danger", textContent: "Delete", "data-key": `forget ${name}`, "aria-label": `Delete ${name}` });
    const calm = () => {
      forget.dataset.sure = "";
      forget.textContent = "Delete";
      forget.setAttribute("aria-label", `Delete ${name}`);
    };
    forget.addEventListener("click", () => {
      if (forget.dataset.sure) act.forget(name);
      else {
        forget.dataset.sure = "yes";
        forget.textContent = "Really delete";
        forget.setAttribute("aria-label", `Really delete ${name}`);
      }
    });
    forget.addEventListener("blur", calm);
    const add = make("button", { type: "button", className: "quiet", textContent: "Add", "data-key": `add ${name}`, "aria-label": `Add examples of ${name}` });
    add.addEventListener("click", () => act.teach(name));
    const undo = make("button", { type: "button", className: "quiet", textContent: "Undo last", "data-key": `undo ${name}`, disabled: !gesture.examples.length, "aria-label": `Undo the last example of ${name}` });
    undo.addEventListener("click", () => act.undo(name));
    const thumbs = gesture.examples.map((points, index) => {
      const button = make("button", { type: "button", className: "example", "data-key": `look ${name} ${index}`, title: `Look at example ${index + 1}`, "aria-label": `Look at example ${index + 1} of ${name}` }, thumbnail(points, number));
      button.addEventListener("click", () => act.look(name, index));
      return button;
    });
    const swatch = make("span", { className: "swatch", "aria-hidden": "true" });
    swatch.style.backgroundColor = `var(--g${number % 12})`;
    const head = make("div", { className: "gesture-head" }, swatch, make("span", { className: "gesture-name", textContent: name }), make("span", { className: "standing", textContent: standing(gesture, needed) }));
    const foot = make("div", { className: "gesture-foot" }, add, undo, forget);
    const parts = thumbs.length ? [head, make("div", { className: "examples" }, ...thumbs), foot] : [head, foot];
    return make("li", { className: name === chosen ? "gesture chosen" : "gesture" }, ...parts);
  });
  refill(list, rows, fallback);
  repaint(list);
}

export function repaint(list) {
  for (const canvas of list.querySelectorAll("canvas")) canvas.paint();
}
