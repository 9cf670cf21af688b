// The page: what is known, what was asked for, and how both are shown.
import { Connection, sentence } from "./connection.js";
import { $, duration, make, milliseconds, percent, refill, say } from "./dom.js";
import { fillGestures, repaint } from "./gestures.js";
import { Pad } from "./pad.js";
import { CurvePlot, MapPlot, ShapePlot, describe } from "./plots.js";
import { SHAPES } from "./shapes.js";
import { Wave } from "./wave.js";

const FRESH = () => ({ gestures: [], busy: "", ready: false, trouble: "", map: { points: [], explained: 0 }, curves: { series: [], running: false }, shape: null, here: null, unknown: false });
const known = { pointer: FRESH(), phone: FRESH() };
let limits = { needed: 3, examples: 12, name_length: 40, stroke_samples: 4096, stroke_seconds: 30 };
let input = "pointer", mode = "teach", chosen = "", unnamed = null, advice = "", entered = false, count = 0;

const connection = new Connection();
const here = () => known[input];
const gesture = (name) => here().gestures.find((one) => one.name === name);
const taught = () => here().gestures.filter((one) => one.learnt);

const pad = new Pad($("pad"), {
  onStroke: (rows) => made(rows),
  onTap: () => coach("That was a tap. Draw a longer stroke."),
  onBegin: () => coach(""),
});
const shapePlot = new ShapePlot($("shape")), curvePlot = new CurvePlot($("curves"));
const mapPlot = new MapPlot($("map"), (name, index) => look(name, index));
const wave = new Wave(pad, connection, { made: (rows) => made(rows), mode: () => mode, ready: () => (mode === "teach" ? Boolean(chosen) : taught().length > 0), coach });

// ---- a gesture is made ----------------------------------------------------------------------------
function made(rows) {
  const stroke = shorten(rows);
  if (mode === "teach") teachExample(stroke);
  else recognize(stroke);
}

/** Leave samples out where a fast pen gave more than the server takes; round them, for short messages. */
function shorten(rows) {
  const most = Math.min(1500, limits.stroke_samples), step = Math.max(1, (rows.length - 1) / (most - 1));
  const kept = rows.length <= most ? rows : Array.from({ length: most }, (_, i) => rows[Math.round(i * step)]);
  return kept.map(([t, ...values]) => [Number((t - kept[0][0]).toFixed(4)), ...values.map((value) => Number(value.toFixed(5)))]);
}

async function teachExample(stroke) {
  if (!chosen) {
    // Who draws first and names afterwards has given an example as well.
    unnamed = stroke;
    coach("What is it called? Type a name: this is its first example.");
    $("name").focus();
    return;
  }
  const name = chosen;
  try {
    await connection.ask({ type: "example", input, name, stroke });
    setTimeout(() => pad.rows.length || pad.clear(), 450);
    const index = (gesture(name)?.examples.length ?? 0) - 1;
    if (index >= 0 && here().ready) look(name, index);
  } catch (error) {
    coach(error.message);
    pad.clear();
  }
}

async function recognize(stroke) {
  const number = ++count, asked = performance.now(), kind = input;
  try {
    const answer = await connection.ask({ type: "recognize", input, stroke });
    if (number !== count) return;
    showAnswer(answer, performance.now() - asked);
    Object.assign(known[kind], { shape: answer, here: answer.place, unknown: answer.label === null });
    known[kind].shapeOf = { name: answer.label, index: null };
    pad.tint(colourOf(answer.label) ?? -1);
    showLook();
  } catch (error) {
    coach(error.message);
    pad.clear();
  }
}

const colourOf = (name) => (name === null ? null : gesture(name)?.colour ?? null);

async function look(name, index) {
  const kind = input;
  try {
    const answer = await connection.ask({ type: "look", input, name, index });
    Object.assign(known[kind], { shape: answer, shapeOf: { name, index }, here: null });
    showLook();
  } catch (error) {
    if (error.code !== "absent") coach(error.message);
  }
}

// ---- recognise ------------------------------------------------------------------------------------
function showAnswer(answer, trip) {
  const { label, confidence, probabilities = [] } = answer;
  const element = $("label");
  element.dataset.state = label === null ? "unknown" : "known";
  element.style.color = label === null ? "" : `var(--g${(colourOf(label) ?? 11) % 12})`;
  say(element, label === null ? "Unknown" : label);
  const best = probabilities[0]?.[0];
  say($("verdict"), label !== null ? "" : best ? `Not like any gesture it knows; ${best} comes closest.` : "Not like any gesture it knows.");
  say($("confidence"), confidence == null || label === null ? "–" : percent(confidence));
  say($("latency"), answer.latency_ms == null ? "–" : milliseconds(answer.latency_ms));
  say($("trip"), trip == null ? "–" : milliseconds(trip));
  $("shares").replaceChildren(...probabilities.slice(0, 4).map(([name, share]) => {
    const bar = make("span", { className: "bar" });
    bar.style.setProperty("--share", String(share));
    bar.style.setProperty("--tint", label === null ? "var(--faint)" : `var(--g${(colourOf(name) ?? 11) % 12})`);
    return make("li", {}, make("span", { className: "share-name", textContent: name }), bar, make("span", { className: "share", textContent: percent(share ?? 0) }));
  }));
}

function forgetAnswer() {
  const element = $("label");
  element.dataset.state = "empty";
  element.style.color = "";
  say(element, taught().length ? "Ready" : "Nothing yet");
  say($("verdict"), taught().length
    ? `It knows ${listed(taught().map((one) => one.name))}. ${mode === "recognize" ? "Make one of them, or something else." : "Switch to Recognise and make one."}`
    : "Teach a gesture first; what you make afterwards is named here.");
  for (const id of ["confidence", "latency", "trip"]) say($(id), "–");
  $("shares").replaceChildren();
}

function listed(names) {
  if (names.length > 6) return `${names.length} gestures`;
  return names.length < 2 ? names.join("") : `${names.slice(0, -1).join(", ")} and ${names.at(-1)}`;
}

// ---- teach ----------------------------------------------------------------------------------------
function choose(name) {
  chosen = name.trim().replace(/\s+/g, " ").slice(0, limits.name_length);
  $("name").value = chosen;
  setMode("teach");
  advice = "";
  const first = unnamed;
  unnamed = null;
  if (first && chosen) teachExample(first);
  else pad.clear();
  render();
}

function coach(text) {
  advice = text;
  showCoach();
}

function showCoach() {
  const verb = input === "pointer" ? "draw" : "wave", state = here();
  let text = advice;
  if (!text && state.trouble) text = sentence(state.trouble);
  else if (!text && state.busy === "preparing") text = "Preparing the recogniser: it practises on motion without names first.";
  else if (!text && state.busy === "training") text = "Training anew on all examples; see the learning curves.";
  else if (!text && mode === "recognize") text = taught().length ? `Now ${verb} a gesture.` : "Nothing is learnt yet. Teach a gesture first.";
  else if (!text && !chosen) text = state.gestures.length ? "Name another gesture, or switch to Recognise." : `Name a gesture, then ${verb} it ${limits.needed} times.`;
  else if (!text) {
    const n = gesture(chosen)?.examples.length ?? 0, left = limits.needed - n;
    if (gesture(chosen)?.pending && left <= 0) text = `Learning ${chosen}.`;
    else if (n === 0 && !gesture(chosen)?.brought) text = `${sentence(verb)} “${chosen}” here.`;
    else if (left > 1) text = `Good. ${left} more, each a little different.`;
    else if (left === 1) text = "Good. Once more.";
    else text = state.learntIn?.name === chosen ? `Learnt “${chosen}” in ${duration(state.learntIn.seconds)}. Teach another one, or switch to Recognise.` : `“${chosen}” is learnt. More examples make it surer.`;
  }
  say($("coach"), text);
}

function showTeach() {
  const state = here(), used = new Set(state.gestures.map((one) => one.name));
  const ideas = input === "pointer" ? Object.keys(SHAPES) : ["shake", "circle", "chop", "flip"];
  const open = ideas.filter((name) => !used.has(name)).slice(0, 4);
  refill($("ideas"), open.map((name) => {
    const button = make("button", { type: "button", className: "chip", textContent: name, "data-key": name, "aria-pressed": String(name === chosen) });
    button.addEventListener("click", () => {
      choose(name);
      (input === "pointer" ? $("pad") : $("wave-button")).focus({ preventScroll: true });
    });
    return button;
  }), $("name"));
  $("ideas").hidden = !open.length || state.gestures.length >= 3;
  const own = gesture(chosen), n = own?.examples.length ?? 0;
  $("steps").hidden = !chosen || mode !== "teach";
  $("steps").replaceChildren(...Array.from({ length: Math.max(limits.needed, n) }, (_, i) => make("li", { className: i < n ? "done" : i === n ? "next" : "", textContent: i < n ? `Example ${i + 1} given` : `Example ${i + 1}` })));
  $("steps").style.setProperty("--tint", `var(--g${(own?.colour ?? state.gestures.length) % 12})`);
  $("gestures-empty").hidden = state.gestures.length > 0;
  fillGestures($("gestures"), state, { needed: limits.needed, chosen, act, fallback: $("name") });
  const ghosts = mode === "teach" && own && n < limits.needed ? own.examples : [];
  const hint = mode === "teach" && input === "pointer" && n === 0 ? (chosen ? chosen.toLowerCase() : state.gestures.length ? null : "circle") : null;
  pad.show({ hint, ghosts, ghostColour: own?.colour ?? 0 });
}

const act = {
  teach: (name) => {
    choose(name);
    (input === "pointer" ? $("pad") : $("wave-button")).focus();
  },
  undo: (name) => {
    connection.tell({ type: "undo", input, name });
    coach(`Took the last example of “${name}” back.`);
  },
  forget: (name) => {
    connection.tell({ type: "forget", input, name });
    if (chosen === name) choose("");
    coach(`Deleted “${name}”.`);
  },
  look,
};

// ---- look and keep --------------------------------------------------------------------------------
function showLook() {
  const state = here(), { shape, shapeOf } = state;
  shapePlot.set(shape && { ...shape, colour: colourOf(shapeOf?.name ?? null) });
  $("legend").style.setProperty("--tint", shapePlot.data?.colour == null ? "var(--ink)" : `var(--g${shapePlot.data.colour % 12})`);
  $("shape").setAttribute("aria-label", shape ? describe.shape(shape) : "No motion yet");
  say($("shape-note"), shape ? (shapeOf?.index == null ? shapeOf?.name ?? "unknown" : `${shapeOf.name}, example ${shapeOf.index + 1}`) : "");
  const colours = Object.fromEntries(state.gestures.map((one) => [one.name, one.colour]));
  mapPlot.set({ points: state.map.points, colours, here: state.here, unknown: state.unknown });
  $("map").setAttribute("aria-label", describe.map(state.map.points, state.map.explained));
  say($("map-note"), state.map.points.length > 2 ? `${percent(state.map.explained)} of variance` : "");
  curvePlot.set(state.curves);
  $("curves").setAttribute("aria-label", describe.curves(state.curves.series));
  const training = state.busy === "training";
  say($("train"), training ? "Stop" : "Train anew");
  $("train").title = training ? "" : "Trains the whole network again, on all your examples";
}

async function download() {
  const note = $("keep-note");
  note.dataset.state = "";
  try {
    const response = await fetch(`/models/${input}`);
    if (!response.ok) throw new Error(sentence((await response.json()).message));
    const blob = await response.blob();
    const link = make("a", { href: URL.createObjectURL(blob), download: `gestures-${input}.gesda` });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
    say(note, `Saved gestures-${input}.gesda, ${Math.max(1, Math.round(blob.size / 1024))} kB.`);
  } catch (error) {
    failed(note, error);
  }
}

async function upload(file) {
  const note = $("keep-note");
  note.dataset.state = "";
  if (file.size > (limits.upload_bytes ?? Infinity)) {
    failed(note, new Error("This file is larger than a model can be here."));
    return;
  }
  say(note, "Uploading.");
  try {
    const response = await fetch("/models", { method: "POST", body: file, headers: { "Content-Type": "application/octet-stream" } });
    const answer = await response.json();
    if (!response.ok) throw new Error(sentence(answer.message));
    if (answer.input !== input) setInput(answer.input);
    chosen = "";
    $("name").value = "";
    say(note, `The model knows ${listed(answer.gestures) || "no gesture yet"}.`);
    setMode(answer.gestures.length ? "recognize" : "teach");
    forgetAnswer();
    render();
  } catch (error) {
    failed(note, error);
  }
}

function failed(note, error) {
  note.dataset.state = "bad";
  say(note, error instanceof TypeError ? "The server does not answer; try again." : error.message);
}

// ---- everything -----------------------------------------------------------------------------------
function setMode(next) {
  mode = next;
  document.querySelector(`input[name=mode][value=${next}]`).checked = true;
  wave.changed();
}

function setInput(next) {
  input = next;
  document.querySelector(`input[name=input][value=${next}]`).checked = true;
  chosen = "";
  unnamed = null;
  $("name").value = "";
  pad.kind = next;
  pad.clear();
  wave.use(next === "phone");
  forgetAnswer();
  connection.tell({ type: "use", input });
  render();
}

function render() {
  showTeach();
  showLook();
  showCoach();
  wave.changed();
  const empty = !taught().length;
  $("download").disabled = empty || !connection.isOpen;
  $("upload").disabled = !connection.isOpen;
  $("train").disabled = !connection.isOpen || (here().busy !== "training" && taught().length < 2);
  if ($("label").dataset.state === "empty") forgetAnswer();
}

connection.addEventListener("open", ({ detail }) => {
  limits = { ...limits, ...detail.limits };
  $("link").dataset.state = "open";
  say($("link-text"), "Connected");
  clearInterval(countdown);
  $("banner").hidden = true;
  pad.enabled = true;
  // A server that was restarted knows nothing of what this page still shows.
  if (entered && !detail.kept) {
    const lost = known.pointer.gestures.length + known.phone.gestures.length > 0;
    Object.assign(known, { pointer: FRESH(), phone: FRESH() });
    if (lost) coach("The server was restarted and has forgotten your gestures. Upload a model you kept, or teach them again.");
  } else advice = "";
  entered = true;
  connection.tell({ type: "use", input });
  render();
});

let countdown = 0;
connection.addEventListener("trouble", ({ detail: { text, retryAt } }) => {
  clearInterval(countdown);
  $("link").dataset.state = "lost";
  pad.enabled = false;
  const show = () => {
    const seconds = retryAt === null ? 0 : Math.max(1, Math.ceil((retryAt - Date.now()) / 1000));
    say($("link-text"), retryAt === null ? "Not connected" : `Trying again in ${seconds} s`);
  };
  show();
  countdown = setInterval(show, 500);
  say($("banner-text"), `${text}${entered && retryAt !== null ? " Your gestures are kept on the server; the page connects again by itself." : ""}`);
  $("banner").hidden = false;
  render();
});

const hear = {
  state: (data) => {
    Object.assign(known[data.input], { gestures: data.gestures, busy: data.busy, ready: data.ready, trouble: data.trouble });
    if (data.input === input) render();
  },
  map: (data) => {
    known[data.input].map = data;
    if (data.input === input) showLook();
  },
  curves: (data) => {
    known[data.input].curves = data;
    if (data.input === input) showLook();
  },
  learnt: (data) => {
    known[data.input].learntIn = data;
    if (data.input === input && data.name === chosen) coach("");
  },
  trained: (data) => coach(`${data.stopped ? "Stopped after" : "Trained anew in"} ${duration(data.seconds)}.`),
  event: (data) => data.input === input && wave.running && showAnswer({ ...data, probabilities: [] }, null),
  error: (data) => coach(sentence(data.message)),
};
connection.addEventListener("message", ({ detail }) => hear[detail.type]?.(detail));

$("name-form").addEventListener("submit", (event) => {
  event.preventDefault();
  if (!$("name").value.trim()) {
    coach("Type a name first.");
    $("name").focus();
    return;
  }
  choose($("name").value);
  (input === "pointer" ? $("pad") : $("wave-button")).focus({ preventScroll: true });
});
$("name").addEventListener("input", () => {
  // What is typed counts at once, except for a stroke that waits for its name.
  if (!unnamed) chosen = $("name").value.trim().replace(/\s+/g, " ");
  if (mode !== "teach") setMode("teach");
  if (!unnamed) advice = "";
  render();
});
for (const radio of document.querySelectorAll("input[name=mode]")) {
  radio.addEventListener("change", () => {
    setMode(radio.value);
    unnamed = null;
    advice = "";
    pad.clear();
    if ($("label").dataset.state === "empty") forgetAnswer();
    render();
  });
}
for (const radio of document.querySelectorAll("input[name=input]")) radio.addEventListener("change", () => {
  advice = "";
  setInput(radio.value);
});
$("train").addEventListener("click", () => connection.tell({ type: here().busy === "training" ? "stop" : "train", input }));
$("download").addEventListener("click", download);
$("upload").addEventListener("click", () => $("file").click());
$("file").addEventListener("change", () => {
  const [file] = $("file").files;
  $("file").value = "";
  if (file) upload(file);
});
$("banner-button").addEventListener("click", () => connection.retry());
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => repaint($("gestures")));

forgetAnswer();
render();
connection.start();
