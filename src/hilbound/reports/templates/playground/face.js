// The page: what the controls say, the worker that computes, and the loop that draws.

const $ = (id) => document.getElementById(id);

const ABOUT = {
  nuclear: "The nuclear norm of the cross Gram matrix is a fidelity: 1 only if both sets agree, in any order. On small batches it prefers centres between the points.",
  debiased: "The nuclear norm minus half of the model against itself. The bias of small batches cancels, so centres keep apart. Its tightness is that of the nuclear norm.",
  scalar: "The squared inner product of data and model over the model’s own norm. By Cauchy-Schwarz it cannot pass the data’s norm. It is cheap.",
  likelihood: "Maximum likelihood, the usual baseline. It has no term that keeps centres apart, so many of them pile up. Its limit is estimated.",
  trace: "Every centre owns one data point, and their overlap is summed. Far from its own point a centre feels nothing: widen the kernel.",
};
const COST = {
  nuclear: "fidelity", debiased: "fidelity", scalar: "log cost", likelihood: "log-likelihood", trace: "overlap",
};
const LOGARITHMIC = ["scalar", "likelihood"];

const state = {
  data: new Float64Array(0), centres: new Float64Array(0), trails: [], cursor: null, contours: "model",
  history: [], measured: null, playing: true, busy: false, waiting: [], owed: 0, steps: 0, millis: 0, frameTime: 1 / 60, dirty: true,
  stale: true, shadedAt: 0,
};
let palette = readPalette();

const checked = (name) => document.querySelector(`input[name="${name}"]:checked`).value;
const varianceOf = (slider) => 0.005 * 200 ** (slider / 100);
const speedOf = (slider) => Math.round(2 * 120 ** (slider / 100));

function settings() {
  return {
    objective: checked("objective"),
    centres: Number($("centres").value),
    variance: varianceOf(Number($("variance").value)),
    batch: Number($("batch").value),
  };
}

// ---------------------------------------------------------------- the engine, beside or here

// A worker made from this page's own text, or the same object here where workers are forbidden.
function createEngine(onState) {
  const source = $("engine").textContent;
  const listen = "const sim = createSimulation(11); onmessage = ({ data }) => { const answer = sim.receive(data); if (answer) postMessage(answer); };";
  try {
    const url = URL.createObjectURL(new Blob([`${source}\n${listen}`], { type: "text/javascript" }));
    const worker = new Worker(url);
    worker.onmessage = ({ data }) => onState(data);
    return { send: (type, value) => worker.postMessage({ type, value }) };
  } catch {
    const sim = createSimulation(11);
    return { send: (type, value) => { const answer = sim.receive({ type, value }); if (answer) onState(answer); } };
  }
}

const engine = createEngine((answer) => {
  const { centres, steps, millis, measured } = answer;
  state.busy = false;
  if (steps !== state.steps) state.trails = [...state.trails.slice(-9), centres];
  Object.assign(state, { centres, steps, millis, dirty: true });
  if (measured && count(state.data) > 1) {
    state.measured = measured;
    // With a request waiting, this is the answer to former settings: not the start of a new curve.
    if (state.waiting.length === 0) state.history.push({ step: steps, tightness: measured.tightness });
    if (state.history.length > 400) state.history = state.history.filter((_, k) => k % 2 === 1);
    sayNumbers();
  }
  if (state.waiting.length > 0) request(state.waiting.shift());
});

// Asks for steps and a measurement. While the engine computes, the request waits for its answer:
// dropped, a change made meanwhile would never be measured.
function request(steps) {
  if (state.busy) {
    if (steps > 0 || !state.waiting.includes(0)) state.waiting.push(steps);
    return;
  }
  state.busy = true;
  engine.send("advance", steps);
}

// ---------------------------------------------------------------- what the page says

const percent = (share) => `${(100 * share).toFixed(1)} %`;

// Writes only what changed: setting a text makes the browser lay out the page.
function say(id, text) {
  if ($(id).textContent !== text) $(id).textContent = text;
}

function sayNumbers() {
  const { logCost, logLimit, tightness, values, rank, reference, ownValues } = state.measured;
  const readable = (log) => (LOGARITHMIC.includes(checked("objective")) ? log : Math.exp(log)).toFixed(4);
  $("tightness").textContent = percent(tightness);
  $("cost").textContent = readable(logCost);
  $("limit").textContent = readable(logLimit);
  $("gap").textContent = (logLimit - logCost).toFixed(4);
  $("reference").textContent = percent(reference);
  $("rank").textContent = `${rank.toFixed(1)} of ${values.length}`;
  drawHistory($("history"), state.history, reference, palette);
  drawSpectrum($("spectrum"), [...values], [...ownValues], palette);
  $("history").setAttribute("aria-label", `Tightness over the steps, now ${percent(tightness)}`);
  $("spectrum").setAttribute("aria-label", `Singular values in descending order, effective rank ${rank.toFixed(1)}`);
}

function sayNothing() {
  for (const id of ["tightness", "cost", "limit", "gap", "reference", "rank"]) $(id).textContent = "–";
  drawHistory($("history"), [], null, palette);
  drawSpectrum($("spectrum"), [], [], palette);
}

function saySettings() {
  const { objective, centres, variance, batch } = settings();
  const n = count(state.data);
  $("variance-value").textContent = variance.toPrecision(2);
  $("centres-value").textContent = String(centres);
  $("batch-value").textContent = batch >= n ? "all points" : `${batch} of ${n}`;
  $("speed-value").textContent = `${speedOf(Number($("speed").value))} steps/s`;
  $("about").textContent = ABOUT[objective];
  $("cost-name").textContent = COST[objective];
}

function sayStatus() {
  const pace = state.playing ? ` · ${Math.round(1 / state.frameTime)} frames/s` : "";
  say("status", `${count(state.data)} points · step ${state.steps}${pace}`);
}

const announce = (text) => ($("announcement").textContent = text);

// ---------------------------------------------------------------- what users change

function newSettings() {
  saySettings();
  state.history = [];
  engine.send("settings", settings());
  remember();
  request(0);
}

function setData(points) {
  state.data = points;
  state.dirty = true;
  $("empty").hidden = points.length > 0;
  engine.send("data", points);
  saySettings();
  if (count(points) < 2) {
    Object.assign(state, { measured: null, history: [] });
    sayNothing();
  } else request(0);
}

function startAgain() {
  Object.assign(state, { history: [], trails: [] });
  engine.send("scatter");
  request(0);
}

function usePreset(name) {
  for (const button of document.querySelectorAll("[data-preset]")) {
    button.setAttribute("aria-pressed", String(button.dataset.preset === name));
  }
  if (name === null) return;
  setData(preset(name, 5));
  startAgain();
}

function setPlaying(playing) {
  state.playing = playing;
  $("play").textContent = playing ? "Pause" : "Play";
}

// Settings live in the address, so that a link can show a state.
function remember() {
  const parts = ["objective", "contours"].map((name) => `${name}=${checked(name)}`);
  for (const id of ["variance", "centres", "batch", "speed"]) parts.push(`${id}=${$(id).value}`);
  try {
    history.replaceState(null, "", `#${parts.join("&")}`);
  } catch {
    // Some browsers forbid it for files. The page works without.
  }
}

function recall() {
  for (const [name, value] of new URLSearchParams(location.hash.slice(1))) {
    const option = document.querySelector(`input[name="${CSS.escape(name)}"][value="${CSS.escape(value)}"]`);
    const slider = document.querySelector(`input[type="range"]#${CSS.escape(name)}`);
    if (option) option.checked = true;
    else if (slider && Number.isFinite(Number(value))) slider.value = value;
  }
}

function setTheme(dark) {
  document.documentElement.dataset.theme = dark ? "dark" : "light";
  $("theme").setAttribute("aria-label", dark ? "Use light colours" : "Use dark colours");
  palette = readPalette();
  state.dirty = true;
  if (state.measured) sayNumbers();
}

function connect() {
  const editor = createEditor($("plane"), {
    get data() { return state.data; },
    setData(points) { usePreset(null); setData(points); },
    setCursor(cursor) { Object.assign(state, { cursor, dirty: true }); },
    chooseTool(name) {
      document.querySelector(`input[name="tool"][value="${name}"]`).checked = true;
      editor.setTool(name);
      announce(`Tool: ${name}.`);
    },
    announce,
  });
  for (const input of document.querySelectorAll('input[name="tool"]')) input.addEventListener("change", () => editor.setTool(input.value));
  for (const input of document.querySelectorAll('input[name="objective"]')) input.addEventListener("change", newSettings);
  for (const id of ["variance", "centres", "batch"]) $(id).addEventListener("input", newSettings);
  for (const input of document.querySelectorAll('input[name="contours"]')) {
    input.addEventListener("change", () => { Object.assign(state, { contours: checked("contours"), dirty: true }); remember(); });
  }
  $("speed").addEventListener("input", () => { saySettings(); remember(); });
  for (const button of document.querySelectorAll("[data-preset]")) button.addEventListener("click", () => usePreset(button.dataset.preset));
  $("clear").addEventListener("click", () => { usePreset(null); setData(new Float64Array(0)); });
  $("play").addEventListener("click", () => setPlaying(!state.playing));
  $("step").addEventListener("click", () => { setPlaying(false); request(1); });
  $("scatter").addEventListener("click", startAgain);
  const system = matchMedia("(prefers-color-scheme: dark)");
  $("theme").addEventListener("click", () => setTheme(document.documentElement.dataset.theme !== "dark"));
  system.addEventListener("change", () => setTheme(system.matches));
  setTheme(system.matches);
  new ResizeObserver(() => { state.dirty = true; if (state.measured) sayNumbers(); }).observe($("plane"));
}

// ---------------------------------------------------------------- the loop

const SHADE_EVERY = 60; // milliseconds between two pictures of the density
let before = performance.now();

// The engine computes while this draws. A frame asks for as many steps as time has passed.
function frame(now) {
  const seconds = Math.min(0.1, (now - before) / 1000);
  before = now;
  state.frameTime += 0.05 * (seconds - state.frameTime);
  if (state.playing && count(state.data) > 1) {
    state.owed = Math.min(8, state.owed + seconds * speedOf(Number($("speed").value)));
    if (!state.busy && state.owed >= 1) {
      request(Math.floor(state.owed));
      state.owed %= 1;
    }
  }
  if (state.dirty) {
    drawPlane($("plane"), state, palette);
    state.dirty = false;
    state.stale = true;
  }
  if (state.stale && now - state.shadedAt > SHADE_EVERY) {
    const { objective, variance } = settings();
    const componentVariance = objective === "likelihood" ? variance : variance / 2;
    drawDensity($("density"), { ...state, componentVariance }, palette);
    Object.assign(state, { stale: false, shadedAt: now });
  }
  sayStatus();
  // For whoever waits for the page, as tests do: all that was asked is computed and drawn.
  document.body.dataset.settled = !(state.playing || state.busy || state.stale);
  requestAnimationFrame(frame);
}

recall();
connect();
state.contours = checked("contours");
engine.send("settings", settings());
usePreset("moons");
saySettings();
setPlaying(!matchMedia("(prefers-reduced-motion: reduce)").matches);
requestAnimationFrame(frame);
