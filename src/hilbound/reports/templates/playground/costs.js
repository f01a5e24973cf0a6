// The objectives of two sets of points in the plane, as in hilbound.functional. Points are a
// Float64Array x0, y0, x1, y1, ... `variance` is the kernel's variance between a point and a centre:
// each side carries half of it, and for the likelihood, which does not smooth the data, the centres
// carry all of it.

const count = (points) => points.length / 2;

function squaredDistance(x, i, y, j) {
  const dx = x[2 * i] - y[2 * j];
  const dy = x[2 * i + 1] - y[2 * j + 1];
  return dx * dx + dy * dy;
}

// The overlaps of normalised components with the roots of their weights: the cross Gram matrix.
function crossGram(x, y, variance) {
  const n = count(x);
  const m = count(y);
  const scale = 1 / Math.sqrt(n * m);
  const matrix = new Float64Array(n * m);
  for (let i = 0; i < n; i++) {
    for (let j = 0; j < m; j++) {
      matrix[i * m + j] = scale * Math.exp(-squaredDistance(x, i, y, j) / (2 * variance));
    }
  }
  return matrix;
}

// Adds to `gradient` the slope of sum_ij weights_ij matrix_ij with respect to the points y.
function pull(x, y, variance, weights, matrix, share, gradient) {
  const n = count(x);
  const m = count(y);
  for (let i = 0; i < n; i++) {
    for (let j = 0; j < m; j++) {
      const force = (share * weights[i * m + j] * matrix[i * m + j]) / variance;
      gradient[2 * j] += force * (x[2 * i] - y[2 * j]);
      gradient[2 * j + 1] += force * (x[2 * i + 1] - y[2 * j + 1]);
    }
  }
}

const total = (values) => values.reduce((sum, value) => sum + value, 0);

// The fidelity of two sets, the singular values, and the gradient with respect to the second set.
// The gradient with respect to the first set is computed where it is asked for.
function fidelity(x, y, variance) {
  const n = count(x);
  const m = count(y);
  const matrix = crossGram(x, y, variance);
  const { values, polar } = nuclear(matrix, n, m);
  const gradient = new Float64Array(y.length);
  pull(x, y, variance, polar, matrix, 1, gradient);
  const gradientOfFirst = () => {
    const slope = new Float64Array(x.length);
    pull(y, x, variance, transposed(polar, n, m), transposed(matrix, n, m), 1, slope);
    return slope;
  };
  return { value: total(values), values, gradient, gradientOfFirst };
}

// log mean_ij N(x_i - y_j; variance), and its gradient with respect to y.
function logInner(x, y, variance) {
  const n = count(x);
  const m = count(y);
  const logs = new Float64Array(n * m);
  let top = -Infinity;
  for (let i = 0; i < n; i++) {
    for (let j = 0; j < m; j++) {
      const log = -squaredDistance(x, i, y, j) / (2 * variance);
      logs[i * m + j] = log;
      if (log > top) top = log;
    }
  }
  let sum = 0;
  for (let k = 0; k < n * m; k++) sum += logs[k] = Math.exp(logs[k] - top);
  const gradient = new Float64Array(y.length);
  pull(x, y, variance, logs, new Float64Array(n * m).fill(1), 1 / sum, gradient);
  const constant = Math.log(2 * Math.PI * variance) + Math.log(n * m);
  return { value: top + Math.log(sum) - constant, gradient };
}

// Mean log density of the points x under components of this variance around y.
function meanLogDensity(x, y, variance) {
  const n = count(x);
  const m = count(y);
  const gradient = new Float64Array(y.length);
  const logs = new Float64Array(m);
  let value = 0;
  for (let i = 0; i < n; i++) {
    let top = -Infinity;
    for (let j = 0; j < m; j++) {
      logs[j] = -squaredDistance(x, i, y, j) / (2 * variance);
      if (logs[j] > top) top = logs[j];
    }
    let sum = 0;
    for (let j = 0; j < m; j++) sum += logs[j] = Math.exp(logs[j] - top);
    for (let j = 0; j < m; j++) {
      const force = logs[j] / sum / n / variance;
      gradient[2 * j] += force * (x[2 * i] - y[2 * j]);
      gradient[2 * j + 1] += force * (x[2 * i + 1] - y[2 * j + 1]);
    }
    value += (top + Math.log(sum)) / n;
  }
  return { value: value - Math.log(2 * Math.PI * variance * m), gradient };
}

const negated = (values) => values.map((value) => -value);

// The two halves of a set, one point left out if their number is odd.
function halves(points) {
  const half = 2 * Math.floor(count(points) / 2);
  return [points.slice(0, half), points.slice(half, 2 * half)];
}

function nuclearLoss(x, y, variance) {
  const { value, gradient } = fidelity(x, y, variance);
  return { loss: -value, gradient: negated(gradient) };
}

// Half of the model against the other half has the role of <q, q>: it holds the centres apart.
function debiasedLoss(x, y, variance) {
  const [data] = halves(x);
  const [first, second] = halves(y);
  const toFirst = fidelity(data, first, variance);
  const toSecond = fidelity(data, second, variance);
  const own = fidelity(first, second, variance);
  const ownOfFirst = own.gradientOfFirst();
  const gradient = new Float64Array(y.length);
  for (let k = 0; k < first.length; k++) {
    gradient[k] = 0.5 * (ownOfFirst[k] - toFirst.gradient[k]);
    gradient[first.length + k] = 0.5 * (own.gradient[k] - toSecond.gradient[k]);
  }
  return { loss: 0.5 * (own.value - toFirst.value - toSecond.value), gradient };
}

function scalarLoss(x, y, variance) {
  const cross = logInner(x, y, variance);
  const own = logInner(y, y, variance);
  // Each centre stands on both sides of <q, q>, hence the factor of two.
  const gradient = own.gradient.map((slope, k) => 2 * (slope - cross.gradient[k]));
  return { loss: own.value - 2 * cross.value, gradient };
}

function likelihoodLoss(x, y, variance) {
  const { value, gradient } = meanLogDensity(x, y, variance);
  return { loss: -value, gradient: negated(gradient) };
}

function traceLoss(x, y, variance) {
  const n = count(x);
  const gradient = new Float64Array(y.length);
  let value = 0;
  for (let i = 0; i < n; i++) {
    const overlap = Math.exp(-squaredDistance(x, i, y, i) / (2 * variance)) / n;
    value += overlap;
    gradient[2 * i] = (overlap * (y[2 * i] - x[2 * i])) / variance;
    gradient[2 * i + 1] = (overlap * (y[2 * i + 1] - x[2 * i + 1])) / variance;
  }
  return { loss: -value, gradient };
}

const LOSSES = {
  nuclear: nuclearLoss,
  debiased: debiasedLoss,
  scalar: scalarLoss,
  likelihood: likelihoodLoss,
  trace: traceLoss,
};

// The loss to be minimised, and its gradient with respect to the centres y.
const lossAndGradient = (name, x, y, variance) => LOSSES[name](x, y, variance);

// The logarithm of the cost and that of its limit. The likelihood has no closed form: it is
// measured at `draws` from the smoothed data.
function bound(name, x, y, variance, draws) {
  if (name === "scalar") {
    return { logCost: -scalarLoss(x, y, variance).loss, logLimit: logInner(x, x, variance).value };
  }
  if (name === "likelihood") {
    const logCost = meanLogDensity(draws, y, variance).value;
    return { logCost, logLimit: meanLogDensity(draws, x, variance).value };
  }
  const value = name === "trace" ? -traceLoss(x, y, variance).loss : fidelity(x, y, variance).value;
  return { logCost: Math.log(value), logLimit: 0 };
}

// How many singular values count: the exponential of the entropy of their shares.
function effectiveRank(values) {
  const sum = total(values);
  return Math.exp(-total(values.map((s) => (s > 0 ? (s / sum) * Math.log(s / sum) : 0))));
}

// The model's density on a grid. A Gaussian is a product of one factor for each axis, so the
// exponentials are few.
function densityOnGrid(y, variance, xs, ys) {
  const m = count(y);
  const along = new Float64Array(xs.length);
  const grid = new Float64Array(xs.length * ys.length);
  const scale = 1 / (2 * Math.PI * variance * m);
  for (let j = 0; j < m; j++) {
    for (let c = 0; c < xs.length; c++) {
      along[c] = scale * Math.exp(-((xs[c] - y[2 * j]) ** 2) / (2 * variance));
    }
    for (let r = 0; r < ys.length; r++) {
      const across = Math.exp(-((ys[r] - y[2 * j + 1]) ** 2) / (2 * variance));
      if (across < 1e-12) continue;
      for (let c = 0; c < xs.length; c++) grid[r * xs.length + c] += across * along[c];
    }
  }
  return grid;
}
