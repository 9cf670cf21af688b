// Small helpers for the document. Text goes in as text: nothing here takes markup.

export const $ = (id) => document.getElementById(id);

/** Make an element; properties starting with "aria" or "data" become attributes. */
export function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (/^(aria|data)-/.test(name) || name === "role") element.setAttribute(name, value);
    else element[name] = value;
  }
  element.append(...children);
  return element;
}

/** Replace an element's children, and give the focus back to the child that had it (by its data-key). */
export function refill(parent, children, fallback) {
  const key = parent.contains(document.activeElement) ? document.activeElement.dataset.key : undefined;
  parent.replaceChildren(...children);
  if (key === undefined) return;
  const again = [...parent.querySelectorAll("[data-key]")].find((child) => child.dataset.key === key);
  const target = again && !again.disabled ? again : fallback;
  if (target) target.focus({ preventScroll: true });
}

/** Set text only where it changes: a live region would be read out again. */
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

export const percent = (share) => `${Math.round(100 * share)} %`;

export function duration(seconds) {
  if (seconds < 0.995) return `${Math.max(1, Math.round(1000 * seconds))} ms`;
  return `${seconds.toFixed(seconds < 9.95 ? 1 : 0)} s`;
}

export const milliseconds = (ms) => `${ms < 9.95 ? ms.toFixed(1) : Math.round(ms)} ms`;

const stillness = matchMedia("(prefers-reduced-motion: reduce)");
export const still = () => stillness.matches;
