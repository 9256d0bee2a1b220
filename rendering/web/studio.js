"use strict";
// The neutral studio of rendering/studio.py: a seamless backdrop, and the person's shadow on the floor.  World: z up,
// floor at 0.  The shadow's grid is half as fine as in Python: it is soft, and drawn for every picture.

const WALL_TOP = [0.80, 0.81, 0.83], WALL_LOW = [0.93, 0.93, 0.94], FLOOR_NEAR = [0.86, 0.86, 0.87];
const SHADOW_DARKNESS = 0.42, SHADOW_REACH_M = 0.10, SHADOW_SIZE_M = 3, CELLS = 96;

/** The upright camera {width, height, fx, fy, cx, cy, fromWorld (3, 4)} at position that looks at target. */
function lookAt(position, target, focal, width, height) {
  const forward = unit([target[0] - position[0], target[1] - position[1], target[2] - position[2]]);
  const right = unit([forward[1], -forward[0], 0]), down = cross(forward, right);
  const rows = [right, down, forward].map((axis) => [...axis, -dot(axis, position)]);
  return { width, height, fx: focal, fy: focal, cx: width / 2, cy: height / 2, fromWorld: Float64Array.from(rows.flat()), position };
}

const dot = (a, b) => a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
const cross = (a, b) => [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]];
const unit = (a) => a.map((value) => value / Math.hypot(...a));

/** (3, 3) from the axes of camera to those of another one that stands as the rows otherFromWorld (3, 3) say. */
function axesBetween(camera, otherFromWorld) {
  const m = camera.fromWorld, axes = [m.slice(0, 3), m.slice(4, 7), m.slice(8, 11)];
  return otherFromWorld.flatMap((row) => axes.map((axis) => dot(row, axis)));
}

/** Where the floor meets the wall, as a fraction of the picture's height, nine metres ahead of the camera. */
function horizonOf(camera) {
  const { height, fromWorld: m, position } = camera, ahead = [position[0] + 9 * m[8], position[1] + 9 * m[9], 0];
  const depth = dot(ahead, m.subarray(8, 11)) + m[11];
  return depth <= 0.1 ? 1 : ((dot(ahead, m.subarray(4, 7)) + m[7]) / depth * camera.fy + camera.cy) / height;
}

/** Paint the backdrop into pixels (height, width, 4) uint8. */
function backdrop(horizon, width, height, pixels) {
  const middle = Math.min(Math.max(horizon, 0.3), 0.9);
  const lamp = Float32Array.from({ length: width }, (_, column) => 255 * (1 - 0.308 * ((column + 0.5) / width - 0.5) ** 2));
  for (let row = 0, at = 0; row < height; row++) {
    const y = (row + 0.5) / height, isWall = y < middle;
    const share = isWall ? y / middle : (y - middle) / (1 - middle);
    const [from, to] = isWall ? [WALL_TOP, WALL_LOW] : [WALL_LOW, FLOOR_NEAR];
    const colour = from.map((value, n) => value + (to[n] - value) * share);
    for (let column = 0; column < width; column++, at += 4) {
      // A faint pattern breaks the bands that eight bits leave in a slow gradient.
      const grain = ((column * 7 + row * 13) % 16) / 16 - 0.5;
      for (let n = 0; n < 3; n++) pixels[at + n] = colour[n] * lamp[column] + grain;
      pixels[at + 3] = 255;
    }
  }
}

/** Darken pixels (H, W, 4) where the vertices (V, 3), in the camera's frame, take the lamp away from the floor. */
function dropShadow(camera, vertices, pixels) {
  const world = worldPoints(camera, vertices), count = world.length / 3;
  const median = (axis) => Float64Array.from({ length: count }, (_, v) => world[3 * v + axis]).sort()[count >> 1];
  const corner = [median(0) - SHADOW_SIZE_M / 2, median(1) - SHADOW_SIZE_M / 2], perM = CELLS / SHADOW_SIZE_M;
  const contact = new Float32Array(CELLS * CELLS), outline = new Float32Array(CELLS * CELLS);
  for (let v = 0; v < count; v++) {
    const column = Math.floor((world[3 * v] - corner[0]) * perM), row = Math.floor((world[3 * v + 1] - corner[1]) * perM);
    if (column < 0 || row < 0 || column >= CELLS || row >= CELLS) continue;
    const at = row * CELLS + column;
    contact[at] = Math.max(contact[at], Math.exp(-Math.max(world[3 * v + 2], 0) / SHADOW_REACH_M));
    outline[at] = 1;
  }
  const soft = blurred(contact, 0.045 * perM), solid = spread(spread(outline, 1, Math.max), 1, Math.min);
  const wide = blurred(solid, 0.16 * perM), floor = soft.map((value, i) => Math.min(1, value * 1.1 + 0.45 * wide[i]));
  const gridFromImage = inverse3(gridToImage(camera, corner, perM));
  const [left, top, right, bottom] = shadowBox(camera, floor, corner, perM);
  for (let row = top; row < bottom; row++) {
    for (let column = left; column < right; column++) {
      const x = column + 0.5, y = row + 0.5, g = gridFromImage;
      const w = g[6] * x + g[7] * y + g[8];
      const u = (g[0] * x + g[1] * y + g[2]) / w - 0.5, v = (g[3] * x + g[4] * y + g[5]) / w - 0.5;
      const i = Math.floor(u), j = Math.floor(v);
      if (!(i >= 0 && j >= 0 && i < CELLS - 1 && j < CELLS - 1)) continue;
      const k = j * CELLS + i, a = u - i, b = v - j;
      const upper = floor[k] * (1 - a) + floor[k + 1] * a, lower = floor[k + CELLS] * (1 - a) + floor[k + CELLS + 1] * a;
      const light = 1 - SHADOW_DARKNESS * (upper * (1 - b) + lower * b), at = 4 * (row * camera.width + column);
      for (let n = 0; n < 3; n++) pixels[at + n] *= light;
    }
  }
}

function worldPoints(camera, vertices) {
  const m = camera.fromWorld, out = new Float64Array(vertices.length);
  for (let v = 0; v < vertices.length; v += 3) {
    const p = [vertices[v] - m[3], vertices[v + 1] - m[7], vertices[v + 2] - m[11]];
    for (let d = 0; d < 3; d++) out[v + d] = m[d] * p[0] + m[4 + d] * p[1] + m[8 + d] * p[2];
  }
  return out;
}

/** (9,) from cells of the grid to pixels: the floor is a plane. */
function gridToImage(camera, corner, perM) {
  const m = camera.fromWorld, out = new Float64Array(9);
  for (let c = 0; c < 3; c++) {
    const at = (r) => c < 2 ? m[4 * r + c] / perM : m[4 * r] * corner[0] + m[4 * r + 1] * corner[1] + m[4 * r + 3];
    out[c] = camera.fx * at(0) + camera.cx * at(2);
    out[3 + c] = camera.fy * at(1) + camera.cy * at(2);
    out[6 + c] = at(2);
  }
  return out;
}

/** The part of the picture in which the shadow is worth drawing. */
function shadowBox(camera, floor, corner, perM) {
  let columns = [CELLS, -1], rows = [CELLS, -1];
  for (let at = 0; at < floor.length; at++) {
    if (floor[at] < 0.004) continue; // a grey value of 1
    const column = at % CELLS, row = (at - column) / CELLS;
    columns = [Math.min(columns[0], column), Math.max(columns[1], column + 1)];
    rows = [Math.min(rows[0], row), Math.max(rows[1], row + 1)];
  }
  const g = gridToImage(camera, corner, perM), found = [[], []];
  for (const u of columns) {
    for (const v of rows) {
      const w = g[6] * u + g[7] * v + g[8];
      if (w <= 0.1) return [0, 0, camera.width, camera.height];
      found[0].push((g[0] * u + g[1] * v + g[2]) / w);
      found[1].push((g[3] * u + g[4] * v + g[5]) / w);
    }
  }
  const clip = (value, high) => Math.min(Math.max(Math.round(value), 0), high);
  return [
    clip(Math.min(...found[0]), camera.width), clip(Math.min(...found[1]), camera.height),
    clip(Math.max(...found[0]), camera.width), clip(Math.max(...found[1]), camera.height),
  ];
}

/** The grid with every cell the largest or smallest of its neighbours. */
function spread(grid, radius, choose) {
  return grid.map((_, at) => {
    const column = at % CELLS, row = (at - column) / CELLS;
    let found = grid[at];
    for (let j = Math.max(row - radius, 0); j <= Math.min(row + radius, CELLS - 1); j++) {
      for (let i = Math.max(column - radius, 0); i <= Math.min(column + radius, CELLS - 1); i++) found = choose(found, grid[j * CELLS + i]);
    }
    return found;
  });
}

/** The grid under a Gaussian of sigma cells. */
function blurred(grid, sigma) {
  const radius = Math.ceil(3 * sigma), weights = [];
  for (let k = -radius; k <= radius; k++) weights.push(Math.exp(-0.5 * (k / sigma) ** 2));
  const total = weights.reduce((sum, value) => sum + value, 0);
  let from = grid;
  for (const [step, line] of [[1, CELLS], [CELLS, 1]]) {
    const to = new Float32Array(from.length);
    for (let i = 0; i < CELLS; i++) {
      for (let j = 0; j < CELLS; j++) {
        if (from[j * step + i * line] === 0) continue;
        for (let k = Math.max(-radius, -j); k <= Math.min(radius, CELLS - 1 - j); k++) {
          to[(j + k) * step + i * line] += from[j * step + i * line] * weights[k + radius] / total;
        }
      }
    }
    from = to;
  }
  return from;
}

function inverse3(m) {
  const rows = [m.subarray(0, 3), m.subarray(3, 6), m.subarray(6, 9)];
  const columns = [cross(rows[1], rows[2]), cross(rows[2], rows[0]), cross(rows[0], rows[1])];
  const determinant = dot(rows[0], columns[0]);
  return Float64Array.from([0, 1, 2].flatMap((r) => columns.map((column) => column[r] / determinant)));
}
