"use strict";
// Triangles to pixels, as fitting/zbuffer.py and rendering/rasterize.py do it: the same spans in the same order, hence
// the same pixels as the networks were trained on, on every machine and without a graphics driver.

const NEAR_M = 0.05, MIN_AREA_PX2 = 1e-9, SETUP = 16, PLANES = 22;

class Rasterizer {
  constructor(body, width, height) {
    const faces = body.faces.length / 3;
    this.body = body;
    this.width = width;
    this.height = height;
    this.setups = new Float64Array(SETUP * faces);
    this.planes = new Float32Array(PLANES * faces);
    this.faceIndex = new Int32Array(width * height);
    this.inverseZ = new Float32Array(width * height);
    this.pixel = new Int32Array(width * height); // of the last picture: its covered pixels, this.count of them
    this.uv = new Float32Array(2 * width * height);
    this.normal = new Float32Array(3 * width * height);
    this.count = 0;
  }

  /** Draw body.vertices with their body.normals as camera sees them, whose size is this one's. */
  draw(camera) {
    const { body, setups, width, height } = this;
    const points = projectPoints(camera, body.vertices), vertices = body.vertices;
    this.faceIndex.fill(-1);
    this.inverseZ.fill(0);
    for (let f = 0; f < body.faces.length / 3; f++) {
      const rows = faceSetup(points, vertices, body.faces, f, width, height, setups);
      if (rows === null) continue;
      this.drawFace(f, rows[0], rows[1]);
      interpolants(f, setups, body, this.planes);
    }
    this.shade();
  }

  drawFace(f, firstRow, endRow) {
    const { setups: s, width, faceIndex, inverseZ } = this, o = SETUP * f;
    const xa = s[o], xb = s[o + 1], xc = s[o + 2], ya = s[o + 3], yb = s[o + 4], yc = s[o + 5];
    const slope = Math.fround(s[o + 7]), longSlope = (xc - xa) / (yc - ya);
    const upper = yb > ya ? (xb - xa) / (yb - ya) : 0, lower = yc > yb ? (xc - xb) / (yc - yb) : 0;
    for (let row = firstRow; row < endRow; row++) {
      const y = row + 0.5, longX = xa + (y - ya) * longSlope;
      const shortX = y < yb ? xa + (y - ya) * upper : xb + (y - yb) * lower;
      const leftX = s[o + 15] > 0 ? shortX : longX, rightX = s[o + 15] > 0 ? longX : shortX;
      const begin = Math.ceil(Math.min(Math.max(leftX - 0.5, 0), width));
      const end = Math.ceil(Math.max(Math.min(rightX - 0.5, width), 0));
      if (begin >= end) continue;
      const start = Math.fround(s[o + 6] + (begin + 0.5 - xa) * s[o + 7] + (y - ya) * s[o + 8]);
      for (let i = 0, at = row * width + begin; i < end - begin; i++, at++) {
        const value = Math.fround(start + Math.fround(i * slope));
        if (value > inverseZ[at]) {
          inverseZ[at] = value;
          faceIndex[at] = f;
        }
      }
    }
  }

  /** uv and normal at the covered pixels. */
  shade() {
    const { faceIndex, setups, planes, width, pixel, uv, normal } = this;
    let count = 0;
    for (let at = 0; at < faceIndex.length; at++) {
      const f = faceIndex[at];
      if (f < 0) continue;
      const p = PLANES * f, column = at % width, row = (at - column) / width;
      const dx = Math.fround(column + 0.5 - setups[SETUP * f]), dy = Math.fround(row + 0.5 - setups[SETUP * f + 3]);
      const plane = (n) => planes[p + n] + dx * planes[p + n + 1] + dy * planes[p + n + 2];
      const depth = 1 / plane(0);
      pixel[count] = at;
      // Rounding must not carry uv outside the face: texels of a neighbouring chart lie there.
      uv[2 * count] = Math.min(Math.max(plane(3) * depth, planes[p + 18]), planes[p + 19]);
      uv[2 * count + 1] = Math.min(Math.max(plane(6) * depth, planes[p + 20]), planes[p + 21]);
      const x = plane(9), y = plane(12), z = plane(15), scale = 1 / Math.max(Math.sqrt(x * x + y * y + z * z), 1e-12);
      normal[3 * count] = x * scale;
      normal[3 * count + 1] = y * scale;
      normal[3 * count + 2] = z * scale;
      count++;
    }
    this.count = count;
  }
}

/** Fill one face's numbers and return its rows [first, end]; null for a face that is not drawn. */
function faceSetup(points, vertices, faces, f, width, height, setups) {
  const v = [faces[3 * f], faces[3 * f + 1], faces[3 * f + 2]];
  const z = v.map((i) => vertices[3 * i + 2]), x = v.map((i) => points[2 * i]), y = v.map((i) => points[2 * i + 1]);
  if (!(z[0] > NEAR_M && z[1] > NEAR_M && z[2] > NEAR_M)) return null;
  if (!Number.isFinite(x[0] + x[1] + x[2] + y[0] + y[1] + y[2])) return null;
  if (Math.max(...x) <= 0 || Math.min(...x) >= width) return null;
  const low = Math.min(...y), high = Math.max(...y);
  if (high <= 0 || low >= height) return null;
  const firstRow = Math.ceil(Math.max(low - 0.5, 0)), endRow = Math.ceil(Math.min(high - 0.5, height));
  if (firstRow >= endRow) return null;
  const area = (x[1] - x[0]) * (y[2] - y[0]) - (x[2] - x[0]) * (y[1] - y[0]);
  if (!(Math.abs(area) > MIN_AREA_PX2 && Math.abs(area) < Infinity)) return null;
  fillSetup(x, y, z.map((depth) => 1 / depth), area, setups, SETUP * f);
  return [firstRow, endRow];
}

function fillSetup(x, y, iz, area, s, o) {
  // Corners a, b, c downwards; ties by x so that both faces of an edge agree on its direction.
  let a = 0, b = 1, c = 2;
  const isAbove = (i, j) => y[i] < y[j] || (y[i] === y[j] && x[i] < x[j]);
  if (isAbove(b, a)) [a, b] = [b, a];
  if (isAbove(c, b)) [b, c] = [c, b];
  if (isAbove(b, a)) [a, b] = [b, a];
  s[o] = x[a]; s[o + 1] = x[b]; s[o + 2] = x[c];
  s[o + 3] = y[a]; s[o + 4] = y[b]; s[o + 5] = y[c];
  s[o + 15] = (x[c] - x[a]) * (y[b] - y[a]) - (x[b] - x[a]) * (y[c] - y[a]) > 0 ? 1 : 0;
  const firstX = (y[1] - y[2]) / area * iz[0], firstY = (x[2] - x[1]) / area * iz[0];
  const secondX = (y[2] - y[0]) / area * iz[1], secondY = (x[0] - x[2]) / area * iz[1];
  const thirdX = (y[0] - y[1]) / area * iz[2], thirdY = (x[1] - x[0]) / area * iz[2];
  s[o + 6] = iz[a]; s[o + 7] = firstX + secondX + thirdX; s[o + 8] = firstY + secondY + thirdY;
  s[o + 9] = a === 0 ? iz[0] : 0; s[o + 10] = firstX; s[o + 11] = firstY;
  s[o + 12] = a === 1 ? iz[1] : 0; s[o + 13] = secondX; s[o + 14] = secondY;
}

/** A face's planes in the picture: 1/z, u/z, v/z and normal/z, each a value and two slopes; then the range of u and v. */
function interpolants(f, setups, body, out) {
  const s = SETUP * f, o = PLANES * f, { faces, face_uv, uv, normals } = body;
  for (let d = 0; d < 3; d++) {
    const inverseZ = setups[s + 6 + d], first = setups[s + 9 + d], second = setups[s + 12 + d];
    const third = inverseZ - first - second;
    out[o + d] = inverseZ;
    for (let n = 0; n < 2; n++) {
      const [a, b, c] = [uv[2 * face_uv[3 * f] + n], uv[2 * face_uv[3 * f + 1] + n], uv[2 * face_uv[3 * f + 2] + n]];
      out[o + 3 + 3 * n + d] = a * first + b * second + c * third;
      if (d === 0) {
        out[o + 18 + 2 * n] = Math.min(a, b, c);
        out[o + 19 + 2 * n] = Math.max(a, b, c);
      }
    }
    for (let n = 0; n < 3; n++) {
      const a = normals[3 * faces[3 * f] + n], b = normals[3 * faces[3 * f + 1] + n], c = normals[3 * faces[3 * f + 2] + n];
      out[o + 9 + 3 * n + d] = a * first + b * second + c * third;
    }
  }
}
