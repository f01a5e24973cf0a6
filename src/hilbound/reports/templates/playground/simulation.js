// The flow: centres follow the objective's gradient on batches of the data. Runs in a worker, so
// that drawing never waits for it; without workers it runs between two frames.

const MOMENTUM = 0.8;
const RATE = 0.06;
// A centre moves at most this share of the kernel's width in one step.
const LONGEST = 0.25;
const DRAWS = 400;
const BUDGET = 14; // milliseconds for the steps of one frame
const MEASURED_SHARE = 4; // a measurement may take a quarter of the time

function random32(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

function normalOf(random) {
  return () => Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random());
}

const PRESETS = {
  moons(random, normal) {
    const points = [];
    for (let i = 0; i < 256; i++) {
      const angle = Math.PI * random();
      const upper = i % 2 === 0;
      const x = upper ? Math.cos(angle) - 0.5 : 0.5 - Math.cos(angle);
      const y = upper ? Math.sin(angle) - 0.25 : 0.25 - Math.sin(angle);
      points.push(x + 0.06 * normal(), y + 0.06 * normal());
    }
    return points;
  },
  rings(random, normal) {
    const points = [];
    for (let i = 0; i < 256; i++) {
      const angle = 2 * Math.PI * random();
      const radius = (i % 3 === 0 ? 0.42 : 1.1) + 0.04 * normal();
      points.push(radius * Math.cos(angle), radius * Math.sin(angle));
    }
    return points;
  },
  grid(random, normal) {
    const points = [];
    for (let i = 0; i < 256; i++) {
      const column = (i % 4) - 1.5;
      const row = (Math.floor(i / 4) % 4) - 1.5;
      points.push(0.66 * column + 0.05 * normal(), 0.66 * row + 0.05 * normal());
    }
    return points;
  },
};

function preset(name, seed) {
  const random = random32(seed);
  return Float64Array.from(PRESETS[name](random, normalOf(random)));
}

// Chosen points, as one array.
function rowsOf(points, indices) {
  const rows = new Float64Array(2 * indices.length);
  indices.forEach((i, k) => {
    rows[2 * k] = points[2 * i];
    rows[2 * k + 1] = points[2 * i + 1];
  });
  return rows;
}

function shuffled(n, random) {
  const order = Array.from({ length: n }, (_, i) => i);
  for (let i = n - 1; i > 0; i--) {
    const j = Math.floor(random() * (i + 1));
    [order[i], order[j]] = [order[j], order[i]];
  }
  return order;
}

function createSimulation(seed) {
  const random = random32(seed);
  const normal = normalOf(random);
  const sim = {
    data: new Float64Array(0),
    centres: new Float64Array(0),
    velocity: new Float64Array(0),
    settings: { objective: "nuclear", centres: 64, variance: 0.05, batch: 128 },
    steps: 0,
    millis: 0,
    reference: null,
    measuredAt: -Infinity,
    measuredFor: 0,
  };

  // A small cloud in the middle: the objective has to spread it.
  sim.scatter = () => {
    const m = sim.settings.centres;
    sim.centres = Float64Array.from({ length: 2 * m }, () => 0.3 * normal());
    sim.velocity = new Float64Array(2 * m);
    sim.steps = 0;
    sim.measuredAt = -Infinity;
  };

  sim.setData = (points) => {
    sim.data = points;
    sim.reference = null;
    sim.measuredAt = -Infinity;
  };

  sim.setSettings = (settings) => {
    sim.settings = settings;
    sim.reference = null;
    sim.measuredAt = -Infinity;
    sim.velocity.fill(0);
    if (count(sim.centres) !== settings.centres) resize(settings.centres);
  };

  // New centres start beside old ones, so that the picture does not jump.
  function resize(m) {
    const old = sim.centres;
    if (old.length === 0) return sim.scatter();
    sim.centres = Float64Array.from({ length: 2 * m }, (_, k) =>
      k < old.length ? old[k] : old[k % old.length] + 0.05 * normal(),
    );
    sim.velocity = new Float64Array(2 * m);
  }

  sim.step = () => {
    const n = count(sim.data);
    const m = count(sim.centres);
    if (n < 2) return;
    const { objective, variance, batch } = sim.settings;
    const order = shuffled(m, random);
    const rows = objective === "trace" ? pairedRows(order, n, batch) : batchRows(n, batch);
    const chosen = objective === "trace" ? order.slice(0, rows.length) : order;
    const centres = rowsOf(sim.centres, chosen);
    const { gradient } = lossAndGradient(objective, rowsOf(sim.data, rows), centres, variance);
    // Times the number of centres and the variance the gradient is a displacement, as in a step of
    // expectation maximisation.
    const rate = RATE * chosen.length * variance;
    const longest = LONGEST * Math.sqrt(variance);
    chosen.forEach((j, k) => move(j, -rate * gradient[2 * k], -rate * gradient[2 * k + 1], longest));
    sim.steps++;
  };

  function batchRows(n, batch) {
    return batch >= n ? Array.from({ length: n }, (_, i) => i) : shuffled(n, random).slice(0, batch);
  }

  // For the trace every centre owns one data point.
  function pairedRows(order, n, batch) {
    return order.slice(0, Math.min(batch, order.length)).map((j) => ownRow(j, n));
  }

  const ownRow = (j, n) => Math.floor((j * n) / count(sim.centres)) % n;

  function move(j, dx, dy, longest) {
    const { centres, velocity } = sim;
    let vx = MOMENTUM * velocity[2 * j] + dx;
    let vy = MOMENTUM * velocity[2 * j + 1] + dy;
    const size = Math.hypot(vx, vy);
    if (size > longest) {
      vx *= longest / size;
      vy *= longest / size;
    }
    velocity[2 * j] = vx;
    velocity[2 * j + 1] = vy;
    centres[2 * j] += vx;
    centres[2 * j + 1] += vy;
  }

  // The cost and its limit on all data, and the spectrum of the cross Gram matrix.
  sim.measure = () => {
    const n = count(sim.data);
    if (n < 2) return null;
    const { objective, variance } = sim.settings;
    if (sim.reference === null) sim.reference = referenceOf(n, objective, variance);
    const { logCost, logLimit } = boundOf(sim.centres, objective, variance, n);
    const { values } = fidelity(sim.data, sim.centres, variance);
    return {
      logCost,
      logLimit,
      tightness: Math.exp(Math.min(0, logCost - logLimit)),
      values,
      rank: effectiveRank(values),
      reference: sim.reference.tightness,
      ownValues: sim.reference.values,
    };
  };

  function boundOf(centres, objective, variance, n) {
    if (objective !== "trace") return bound(objective, sim.data, centres, variance, draws(n, variance));
    const rows = Array.from({ length: count(centres) }, (_, j) => ownRow(j, n));
    return bound("trace", rowsOf(sim.data, rows), centres, variance);
  }

  function draws(n, variance) {
    const at = random32(7);
    const noise = normalOf(at);
    const spread = Math.sqrt(variance);
    return Float64Array.from({ length: 2 * DRAWS }, (_, k) => {
      const row = Math.floor(k / 2) % n;
      return sim.data[2 * row + (k % 2)] + spread * noise();
    });
  }

  // The same for data points in the place of the centres: what a perfect model would reach.
  function referenceOf(n, objective, variance) {
    const m = count(sim.centres);
    const order = shuffled(n, random32(3));
    const own = objective === "trace" ? (j) => ownRow(j, n) : (j) => order[j % n];
    const stand = rowsOf(sim.data, Array.from({ length: m }, (_, j) => own(j)));
    const { logCost, logLimit } = boundOf(stand, objective, variance, n);
    const { values } = fidelity(sim.data, stand, variance);
    return { tightness: Math.exp(Math.min(0, logCost - logLimit)), values };
  }

  // Some steps, at most as many as the budget allows, and a measurement from time to time.
  sim.advance = (steps) => {
    const start = performance.now();
    let done = 0;
    while (done < steps && (done === 0 || performance.now() - start < BUDGET)) {
      sim.step();
      done++;
    }
    const now = performance.now();
    if (done > 0) sim.millis += 0.1 * ((now - start) / done - sim.millis);
    let measured = null;
    if (now - sim.measuredAt > Math.max(60, MEASURED_SHARE * sim.measuredFor)) {
      measured = sim.measure();
      sim.measuredAt = performance.now();
      sim.measuredFor = sim.measuredAt - now;
    }
    return { centres: sim.centres.slice(), steps: sim.steps, millis: sim.millis, measured };
  };

  sim.receive = ({ type, value }) => {
    if (type === "data") sim.setData(value);
    if (type === "settings") sim.setSettings(value);
    if (type === "scatter") sim.scatter();
    if (type === "advance") return sim.advance(value);
    return null;
  };
  return sim;
}
