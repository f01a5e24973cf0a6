// Pictures: the plane with its contours, and the two small charts. They only read.

const EXTENT = [1.75, 1.4]; // half the width and height of the part that is always visible
const CELLS = 96; // of the density's grid along the longer side
const BANDS = 9;

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

function readPalette() {
  const names = ["plane", "data", "centre", "ring", "density", "grid", "ink", "soft", "accent", "line"];
  return Object.fromEntries(names.map((name) => [name, colour(`--${name}`)]));
}

// Sizes a canvas to its box in device pixels, and returns its context in CSS pixels.
function fitted(canvas) {
  const ratio = Math.min(2, window.devicePixelRatio || 1);
  const width = canvas.clientWidth;
  const height = canvas.clientHeight;
  if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
  }
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  return { context, width, height };
}

// Between the plane's coordinates and pixels. One unit is the same length on both axes.
function viewOf(width, height) {
  const scale = Math.min(width / (2 * EXTENT[0]), height / (2 * EXTENT[1]));
  return {
    scale,
    x: (value) => width / 2 + scale * value,
    y: (value) => height / 2 - scale * value,
    back: (px, py) => [(px - width / 2) / scale, (height / 2 - py) / scale],
  };
}

function axisOf(length, view, cells, flipped) {
  return Float64Array.from({ length: cells + 1 }, (_, i) => {
    const pixel = (i / cells) * length;
    return flipped ? view.back(0, pixel)[1] : view.back(pixel, 0)[0];
  });
}

function densityGrid(points, variance, view, width, height) {
  const cell = Math.max(width, height) / CELLS;
  const columns = Math.max(8, Math.round(width / cell));
  const rows = Math.max(8, Math.round(height / cell));
  const xs = axisOf(width, view, columns, false);
  const ys = axisOf(height, view, rows, true);
  return { values: densityOnGrid(points, variance, xs, ys), columns, rows };
}

// Levels that leave the same share of the peak's root between them show the tails too.
const levelOf = (share, peak) => peak * share * share;

const shade = document.createElement("canvas");

function drawShade(context, grid, peak, rgb, width, height) {
  const wide = grid.columns + 1;
  const high = grid.rows + 1;
  shade.width = wide;
  shade.height = high;
  const image = new ImageData(wide, high);
  const [r, g, b] = rgb.split(" ").map(Number);
  for (let k = 0; k < wide * high; k++) {
    image.data[4 * k] = r;
    image.data[4 * k + 1] = g;
    image.data[4 * k + 2] = b;
    image.data[4 * k + 3] = 105 * Math.sqrt(grid.values[k] / peak);
  }
  shade.getContext("2d").putImageData(image, 0, 0);
  context.imageSmoothingQuality = "low"; // linear: much faster than "high" without a graphics card
  // The values belong to the corners of cells, so half a pixel of the image lies outside.
  const dx = width / grid.columns;
  const dy = height / grid.rows;
  context.drawImage(shade, -dx / 2, -dy / 2, width + dx, height + dy);
}

// Marching squares: one straight piece for each cell that a level crosses. Every cell is looked at
// once, and only the levels between its lowest and its highest corner are traced.
function drawContours(context, grid, peak, rgb, width, height) {
  const { values, columns, rows } = grid;
  const dx = width / columns;
  const dy = height / rows;
  const levels = Array.from({ length: BANDS }, (_, band) => levelOf(band / BANDS, peak));
  const paths = levels.map(() => new Path2D());
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++) {
      const at = row * (columns + 1) + column;
      const a = values[at];
      const b = values[at + 1];
      const c = values[at + columns + 2];
      const d = values[at + columns + 1];
      const high = Math.max(a, b, c, d);
      if (high < levels[1]) continue;
      const low = Math.min(a, b, c, d);
      for (let band = 1; band < BANDS && levels[band] <= high; band++) {
        if (levels[band] >= low) traceCell(paths[band], levels[band], a, b, c, d, row, column, dx, dy);
      }
    }
  }
  context.lineWidth = 1;
  for (let band = 1; band < BANDS; band++) {
    context.strokeStyle = `rgb(${rgb} / ${0.16 + (0.5 * band) / BANDS})`;
    context.stroke(paths[band]);
  }
}

const ends = new Float64Array(8);

// Adds the pieces at which a level crosses the edges of a cell with corners a, b, c and d.
function traceCell(path, level, a, b, c, d, row, column, dx, dy) {
  let k = 0;
  const add = (x, y) => {
    ends[k++] = x * dx;
    ends[k++] = y * dy;
  };
  if (a > level !== b > level) add(column + (a - level) / (a - b), row);
  if (b > level !== c > level) add(column + 1, row + (b - level) / (b - c));
  if (c > level !== d > level) add(column + (d - level) / (d - c), row + 1);
  if (d > level !== a > level) add(column, row + (a - level) / (a - d));
  for (let j = 0; j + 3 < k; j += 4) {
    path.moveTo(ends[j], ends[j + 1]);
    path.lineTo(ends[j + 2], ends[j + 3]);
  }
}

function drawDots(context, points, view, radius, style, ring) {
  context.beginPath();
  for (let i = 0; i < points.length; i += 2) {
    const x = view.x(points[i]);
    const y = view.y(points[i + 1]);
    context.moveTo(x + radius, y);
    context.arc(x, y, radius, 0, 2 * Math.PI);
  }
  if (ring) {
    context.lineWidth = 3;
    context.strokeStyle = ring;
    context.stroke();
  }
  context.fillStyle = style;
  context.fill();
}

function drawTrails(context, trails, view, style) {
  context.lineWidth = 1.25;
  context.strokeStyle = style;
  for (let k = 1; k < trails.length; k++) {
    if (trails[k].length !== trails[k - 1].length) continue;
    context.globalAlpha = (0.5 * k) / trails.length;
    context.beginPath();
    for (let i = 0; i < trails[k].length; i += 2) {
      context.moveTo(view.x(trails[k - 1][i]), view.y(trails[k - 1][i + 1]));
      context.lineTo(view.x(trails[k][i]), view.y(trails[k][i + 1]));
    }
    context.stroke();
  }
  context.globalAlpha = 1;
}

function drawGridLines(context, view, width, height, style) {
  context.beginPath();
  const [left, top] = view.back(0, 0);
  for (let k = Math.ceil(2 * left); k <= -2 * left; k++) {
    context.moveTo(view.x(k / 2), 0);
    context.lineTo(view.x(k / 2), height);
  }
  for (let k = Math.ceil(-2 * top); k <= 2 * top; k++) {
    context.moveTo(0, view.y(k / 2));
    context.lineTo(width, view.y(k / 2));
  }
  context.lineWidth = 1;
  context.strokeStyle = style;
  context.stroke();
}

function drawCursor(context, cursor, view, style) {
  const x = view.x(cursor.x);
  const y = view.y(cursor.y);
  context.strokeStyle = style;
  context.lineWidth = 1.5;
  context.beginPath();
  if (cursor.radius > 0) context.arc(x, y, cursor.radius * view.scale, 0, 2 * Math.PI);
  if (cursor.cross) {
    context.moveTo(x - 9, y);
    context.lineTo(x + 9, y);
    context.moveTo(x, y - 9);
    context.lineTo(x, y + 9);
  }
  context.stroke();
}

// The lower layer: grid lines and density. It changes slowly, so it is drawn less often.
function drawDensity(canvas, scene, palette) {
  const { context, width, height } = fitted(canvas);
  const view = viewOf(width, height);
  drawGridLines(context, view, width, height, palette.grid);
  const shown = { model: scene.centres, data: scene.data }[scene.contours];
  if (!shown || shown.length === 0) return;
  const grid = densityGrid(shown, scene.componentVariance, view, width, height);
  const peak = grid.values.reduce((a, b) => Math.max(a, b), 1e-300);
  drawShade(context, grid, peak, palette.density, width, height);
  drawContours(context, grid, peak, palette.density, width, height);
}

// The upper layer: points, centres and the cursor.
function drawPlane(canvas, scene, palette) {
  const { context, width, height } = fitted(canvas);
  const view = viewOf(width, height);
  drawDots(context, scene.data, view, 2.4, palette.data, null);
  drawTrails(context, scene.trails, view, palette.centre);
  drawDots(context, scene.centres, view, 3.8, palette.centre, palette.ring);
  if (scene.cursor) drawCursor(context, scene.cursor, view, palette.ink);
}

function drawHistory(canvas, history, reference, palette) {
  const { context, width, height } = fitted(canvas);
  const bottom = height - 1;
  const y = (value) => 6 + (1 - value) * (bottom - 8);
  line(context, [0, y(1), width, y(1)], palette.soft, 1, []);
  line(context, [0, bottom, width, bottom], palette.line, 1, []);
  if (reference !== null) line(context, [0, y(reference), width, y(reference)], palette.soft, 1, [4, 4]);
  if (history.length < 2) return;
  const last = history[history.length - 1].step;
  const first = history[0].step;
  const x = (step) => ((step - first) / Math.max(1, last - first)) * (width - 4);
  const path = history.flatMap(({ step, tightness }) => [x(step), y(tightness)]);
  line(context, path, palette.accent, 2, []);
  drawDots(context, [path[path.length - 2], path[path.length - 1]], { x: (v) => v, y: (v) => v }, 3, palette.accent, null);
}

function line(context, path, style, width, dash) {
  context.beginPath();
  for (let k = 0; k < path.length; k += 2) context.lineTo(path[k], path[k + 1]);
  context.setLineDash(dash);
  context.lineWidth = width;
  context.strokeStyle = style;
  context.stroke();
  context.setLineDash([]);
}

// Bars on the scale of logarithms: six decades, because the tail is the quality.
function drawSpectrum(canvas, values, own, palette) {
  const { context, width, height } = fitted(canvas);
  const share = (value) => Math.max(0, 1 + Math.log10(Math.max(value, 1e-300)) / 6);
  const wide = width / Math.max(values.length, 1);
  context.fillStyle = palette.accent;
  values.forEach((value, k) => {
    const high = share(value) * (height - 2);
    context.fillRect(k * wide, height - 1 - high, Math.max(1, wide - 1), high);
  });
  line(context, own.flatMap((value, k) => [(k + 0.5) * wide, height - 1 - share(value) * (height - 2)]), palette.soft, 1.5, [4, 4]);
  line(context, [0, height - 0.5, width, height - 0.5], palette.line, 1, []);
}
