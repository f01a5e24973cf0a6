// The data under the pointer and under the keyboard: drawing, dragging, erasing.

const MOST_POINTS = 512;
const SPACING = 0.05;
const REACH = { draw: 0, drag: 0.28, erase: 0.16 };
const KEYS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };

function createEditor(canvas, store) {
  const cursor = { x: 0, y: 0, radius: 0, cross: false };
  let tool = "draw";
  let held = null;

  const place = (event) => {
    const box = canvas.getBoundingClientRect();
    return viewOf(box.width, box.height).back(event.clientX - box.left, event.clientY - box.top);
  };

  function add(x, y) {
    if (count(store.data) >= MOST_POINTS) return store.announce(`No more than ${MOST_POINTS} points fit.`);
    store.setData(Float64Array.from([...store.data, x, y]));
  }

  function erase(x, y) {
    const kept = [];
    for (let i = 0; i < store.data.length; i += 2) {
      const away = Math.hypot(store.data[i] - x, store.data[i + 1] - y);
      if (away > REACH.erase) kept.push(store.data[i], store.data[i + 1]);
    }
    if (kept.length < store.data.length) store.setData(Float64Array.from(kept));
  }

  // Points within reach, each with the share of the movement that it follows.
  function grip(x, y) {
    const shares = [];
    for (let i = 0; i < count(store.data); i++) {
      const away = Math.hypot(store.data[2 * i] - x, store.data[2 * i + 1] - y) / REACH.drag;
      if (away < 1) shares.push([i, (1 - away * away) ** 2]);
    }
    return { x, y, shares, start: store.data };
  }

  function pullTo(x, y) {
    const moved = held.start.slice();
    for (const [i, share] of held.shares) {
      moved[2 * i] += share * (x - held.x);
      moved[2 * i + 1] += share * (y - held.y);
    }
    store.setData(moved);
  }

  function begin(x, y) {
    held = tool === "drag" ? grip(x, y) : { x, y };
    if (tool === "draw") add(x, y);
    if (tool === "erase") erase(x, y);
  }

  function go(x, y) {
    if (tool === "drag") return pullTo(x, y);
    if (tool === "erase") return erase(x, y);
    if (Math.hypot(x - held.x, y - held.y) < SPACING) return;
    const jitter = () => 0.5 * SPACING * (Math.random() - 0.5);
    add(x + jitter(), y + jitter());
    Object.assign(held, { x, y });
  }

  function show(x, y, cross) {
    Object.assign(cursor, { x, y, cross, radius: REACH[tool] });
    store.setCursor(cross || REACH[tool] > 0 ? cursor : null);
  }

  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    begin(...place(event));
    event.preventDefault();
    canvas.focus({ preventScroll: true });
  });
  canvas.addEventListener("pointermove", (event) => {
    const [x, y] = place(event);
    show(x, y, false);
    if (held) go(x, y);
  });
  const release = () => (held = null);
  canvas.addEventListener("pointerup", release);
  canvas.addEventListener("pointercancel", release);
  canvas.addEventListener("pointerleave", () => store.setCursor(null));
  canvas.addEventListener("blur", () => store.setCursor(null));
  canvas.addEventListener("focus", () => {
    if (canvas.matches(":focus-visible")) show(cursor.x, cursor.y, true);
  });

  function press() {
    const { x, y } = cursor;
    if (tool !== "drag") {
      begin(x, y);
      held = null;
    } else {
      held = held ? null : grip(x, y);
      store.announce(held ? `Holding ${held.shares.length} points: move them with the arrows.` : "Let go.");
      return;
    }
    store.announce(`${count(store.data)} points.`);
  }

  canvas.addEventListener("keydown", (event) => {
    const chosen = { d: "draw", g: "drag", e: "erase" }[event.key.toLowerCase()];
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key in KEYS) {
      const step = event.shiftKey ? 0.2 : 0.05;
      const [dx, dy] = KEYS[event.key];
      show(cursor.x + step * dx, cursor.y + step * dy, true);
      if (held) pullTo(cursor.x, cursor.y);
    } else if (event.key === " " || event.key === "Enter") {
      show(cursor.x, cursor.y, true);
      press();
    } else if (chosen) {
      store.chooseTool(chosen);
      show(cursor.x, cursor.y, true);
    } else return;
    event.preventDefault();
  });

  return {
    setTool(name) {
      tool = name;
      held = null;
    },
  };
}
