// Nuclear norms in typed arrays. A smooth kernel has many singular values far below the largest
// one, and they matter: the tail of the spectrum is the quality. The eigenvectors of the Gram
// matrix are quick to find, but below the root of the rounding unit they are noise. So the tail is
// decomposed again on its own, and one-sided Jacobi rotations of the matrix itself correct the rest.
// Sources: EISPACK's tred2 and tql2 (public domain); Demmel and Veselic, Jacobi's method is more
// accurate than QR (1992).

const ROUNDING = 2 ** -52;
const MOST_ROUNDS = 30;
// Columns whose cosine is below this line count as orthogonal. It enters singular values squared.
const ORTHOGONAL = 1e-8;
// Shares of the largest singular value: where the tail begins, and below what nothing is corrected.
const TAIL = 1e-5;
const NOISE = 1e-12;

function dot(a, i, b, j, length) {
  let sum = 0;
  for (let k = 0; k < length; k++) sum += a[i + k] * b[j + k];
  return sum;
}

function rotate(a, i, j, length, cosine, sine) {
  for (let k = 0; k < length; k++) {
    const x = a[i + k];
    const y = a[j + k];
    a[i + k] = cosine * x - sine * y;
    a[j + k] = sine * x + cosine * y;
  }
}

// Householder's reduction of a symmetric matrix (m x m, in place) to a tridiagonal one. Afterwards
// the rows of `a` hold the reflectors, `diagonal` and `beside` the new matrix.
function tridiagonalise(a, m, diagonal, beside) {
  const w = new Float64Array(m);
  for (let i = m - 1; i > 0; i--) {
    const row = i * m;
    const size = Math.sqrt(dot(a, row, a, row, i));
    const last = a[row + i - 1];
    const pivot = last > 0 ? -size : size;
    beside[i] = pivot;
    diagonal[i] = a[row + i];
    const h = size * size - last * pivot;
    a[row + i] = h;
    if (!(h > 0)) continue;
    a[row + i - 1] = last - pivot;
    w.fill(0, 0, i);
    for (let j = 0; j < i; j++) {
      // Only the lower triangle is kept true.
      const u = a[row + j];
      let sum = a[j * m + j] * u;
      for (let k = 0; k < j; k++) {
        sum += a[j * m + k] * a[row + k];
        w[k] += a[j * m + k] * u;
      }
      w[j] += sum;
    }
    const half = dot(w, 0, a, row, i) / (2 * h * h);
    for (let j = 0; j < i; j++) w[j] = w[j] / h - half * a[row + j];
    for (let j = 0; j < i; j++) {
      const u = a[row + j];
      const g = w[j];
      for (let k = 0; k <= j; k++) a[j * m + k] -= u * w[k] + g * a[row + k];
    }
  }
  diagonal[0] = a[0];
}

// The product of the reflectors, transposed: its rows become the eigenvectors.
function collectReflectors(a, m) {
  const v = new Float64Array(m * m);
  for (let j = 0; j < m; j++) v[j * m + j] = 1;
  for (let i = 1; i < m; i++) {
    const row = i * m;
    const h = a[row + i];
    if (!(h > 0)) continue;
    for (let j = 0; j < i; j++) {
      const sum = dot(v, j * m, a, row, i) / h;
      for (let k = 0; k < i; k++) v[j * m + k] -= sum * a[row + k];
    }
  }
  return v;
}

// QL steps with implicit shifts: the tridiagonal matrix becomes diagonal, rows of v its eigenvectors.
function diagonalise(diagonal, beside, v, m) {
  beside.copyWithin(0, 1);
  beside[m - 1] = 0;
  for (let l = 0; l < m; l++) {
    for (let round = 0; round < MOST_ROUNDS; round++) {
      let end = l;
      while (end < m - 1 && !negligible(diagonal, beside, end)) end++;
      if (end === l) break;
      qlStep(diagonal, beside, v, m, l, end);
    }
  }
}

function negligible(diagonal, beside, k) {
  const scale = Math.abs(diagonal[k]) + Math.abs(diagonal[k + 1]);
  return Math.abs(beside[k]) <= ROUNDING * scale;
}

function qlStep(diagonal, beside, v, m, l, end) {
  let g = (diagonal[l + 1] - diagonal[l]) / (2 * beside[l]);
  const far = Math.sqrt(g * g + 1);
  g = diagonal[end] - diagonal[l] + beside[l] / (g + (g < 0 ? -far : far));
  let sine = 1;
  let cosine = 1;
  let shift = 0;
  for (let i = end - 1; i >= l; i--) {
    const f = sine * beside[i];
    const b = cosine * beside[i];
    const r = Math.sqrt(f * f + g * g);
    beside[i + 1] = r;
    if (r === 0) {
      diagonal[i + 1] -= shift;
      beside[end] = 0;
      return;
    }
    sine = f / r;
    cosine = g / r;
    g = diagonal[i + 1] - shift;
    const t = (diagonal[i] - g) * sine + 2 * cosine * b;
    shift = sine * t;
    diagonal[i + 1] = g + shift;
    g = cosine * t - b;
    rotate(v, i * m, (i + 1) * m, m, cosine, sine);
  }
  diagonal[l] -= shift;
  beside[l] = g;
  beside[end] = 0;
}

// The eigenvectors of the Gram matrix of the columns, as rows.
function gramEigenvectors(columns, n, m) {
  const gram = new Float64Array(m * m);
  for (let j = 0; j < m; j++) {
    for (let k = 0; k <= j; k++) gram[j * m + k] = dot(columns, j * n, columns, k * n, n);
  }
  const diagonal = new Float64Array(m);
  const beside = new Float64Array(m);
  tridiagonalise(gram, m, diagonal, beside);
  const v = collectReflectors(gram, m);
  diagonalise(diagonal, beside, v, m);
  return v;
}

// The matrix times the eigenvectors: m columns of length n.
function turned(columns, v, n, m) {
  const b = new Float64Array(n * m);
  for (let k = 0; k < m; k++) {
    for (let j = 0; j < m; j++) {
      const share = v[k * m + j];
      for (let i = 0; i < n; i++) b[k * n + i] += share * columns[j * n + i];
    }
  }
  return b;
}

// One-sided Jacobi: rotates the columns of b until all are orthogonal, and the rows of v with them.
// Columns at the level of noise stay as they are.
function orthogonalise(b, v, n, m) {
  const squares = new Float64Array(m);
  for (let round = 0; round < MOST_ROUNDS; round++) {
    for (let j = 0; j < m; j++) squares[j] = dot(b, j * n, b, j * n, n);
    const line = NOISE ** 2 * squares.reduce((a, s) => Math.max(a, s), 0);
    let rotated = false;
    for (let j = 0; j < m - 1; j++) {
      if (squares[j] <= line) continue;
      for (let k = j + 1; k < m; k++) {
        if (squares[k] <= line) continue;
        const inner = dot(b, j * n, b, k * n, n);
        if (inner * inner <= ORTHOGONAL ** 2 * squares[j] * squares[k]) continue;
        rotated = true;
        const zeta = (squares[k] - squares[j]) / (2 * inner);
        const tangent = (zeta < 0 ? -1 : 1) / (Math.abs(zeta) + Math.sqrt(1 + zeta * zeta));
        const cosine = 1 / Math.sqrt(1 + tangent * tangent);
        rotate(b, j * n, k * n, n, cosine, cosine * tangent);
        rotate(v, j * m, k * m, m, cosine, cosine * tangent);
        squares[j] -= tangent * inner;
        squares[k] += tangent * inner;
      }
    }
    if (!rotated) return;
  }
}

// Sorts the columns of b by size, and decomposes those of the tail again among themselves.
function refineTail(b, v, n, m) {
  const squares = Float64Array.from({ length: m }, (_, k) => dot(b, k * n, b, k * n, n));
  const order = Array.from(squares.keys()).sort((j, k) => squares[k] - squares[j]);
  const sortedB = new Float64Array(n * m);
  const sortedV = new Float64Array(m * m);
  order.forEach((from, to) => {
    sortedB.set(b.subarray(from * n, (from + 1) * n), to * n);
    sortedV.set(v.subarray(from * m, (from + 1) * m), to * m);
  });
  let kept = 0;
  while (kept < m && squares[order[kept]] > TAIL ** 2 * squares[order[0]]) kept++;
  if (m - kept > 1) {
    const tail = gramEigenvectors(sortedB.subarray(kept * n), n, m - kept);
    sortedB.set(turned(sortedB.slice(kept * n), tail, n, m - kept), kept * n);
    sortedV.set(turned(sortedV.slice(kept * m), tail, m, m - kept), kept * m);
  }
  b.set(sortedB);
  v.set(sortedV);
}

function transposed(matrix, n, m) {
  const columns = new Float64Array(n * m);
  for (let i = 0; i < n; i++) for (let j = 0; j < m; j++) columns[j * n + i] = matrix[i * m + j];
  return columns;
}

// The singular values of a matrix stored by rows (n x m), in descending order, and the polar factor
// U V', which is the gradient of their sum. Directions at the level of noise are left out of it.
function nuclear(matrix, n, m) {
  if (n < m) {
    const { values, polar } = nuclear(transposed(matrix, n, m), m, n);
    return { values, polar: transposed(polar, m, n) };
  }
  const columns = transposed(matrix, n, m);
  const v = gramEigenvectors(columns, n, m);
  const b = turned(columns, v, n, m);
  refineTail(b, v, n, m);
  orthogonalise(b, v, n, m);
  const sizes = Float64Array.from({ length: m }, (_, k) => Math.sqrt(dot(b, k * n, b, k * n, n)));
  const values = sizes.slice().sort().reverse();
  const polar = new Float64Array(n * m);
  for (let k = 0; k < m; k++) {
    if (sizes[k] <= NOISE * values[0]) continue;
    for (let i = 0; i < n; i++) {
      const left = b[k * n + i] / sizes[k];
      for (let j = 0; j < m; j++) polar[i * m + j] += left * v[k * m + j];
    }
  }
  return { values, polar };
}
