"use strict";
// From a pose to vertices in the camera's frame, and to the box that the networks paint: fitting/body/skinning.py,
// rendering/avatar.py and rendering/crops.py, line by line.  Matrices (3, 4) are flat, row by row.  Metres, radians.

class Body {
  /** arrays: rest_vertices (V, 3), rest_joints (J, 3), parents (J,), skin_joints and skin_values (V, K), faces (F, 3),
   * uv (U, 2), face_uv (F, 3), and pose_basis (9 (J0 - 1), V, 3) where the body has one, of the J0 <= J joints
   * that are no bones of a skirt. */
  constructor(arrays) {
    Object.assign(this, arrays);
    this.numVertices = this.rest_vertices.length / 3;
    this.numJoints = this.parents.length;
    this.influences = this.skin_joints.length / this.numVertices;
    this.vertices = new Float32Array(this.rest_vertices.length); // of the last pose, camera frame
    this.normals = new Float32Array(this.rest_vertices.length);
  }

  /** Vertices of pose (J, 3) in the frame of toFromBody (3, 4); kept in this.vertices. */
  pose(pose, toFromBody) {
    const joints = kinematics(pose, this.rest_joints, this.parents, toFromBody);
    const rest = this.pose_basis ? this.corrected(pose) : this.rest_vertices;
    const { rest_joints: at, skin_joints, skin_values, influences, vertices } = this;
    const matrix = Float32Array.from(joints);
    for (let j = 0; j < this.numJoints; j++) {
      for (let r = 0; r < 3; r++) {
        const m = 12 * j + 4 * r;
        matrix[m + 3] = joints[m + 3] - joints[m] * at[3 * j] - joints[m + 1] * at[3 * j + 1] - joints[m + 2] * at[3 * j + 2];
      }
    }
    for (let v = 0; v < this.numVertices; v++) {
      const x = rest[3 * v], y = rest[3 * v + 1], z = rest[3 * v + 2];
      let a = 0, b = 0, c = 0;
      for (let k = influences * v; k < influences * (v + 1); k++) {
        const w = skin_values[k], m = 12 * skin_joints[k];
        if (w === 0) break;
        a += w * (matrix[m] * x + matrix[m + 1] * y + matrix[m + 2] * z + matrix[m + 3]);
        b += w * (matrix[m + 4] * x + matrix[m + 5] * y + matrix[m + 6] * z + matrix[m + 7]);
        c += w * (matrix[m + 8] * x + matrix[m + 9] * y + matrix[m + 10] * z + matrix[m + 11]);
      }
      vertices[3 * v] = a;
      vertices[3 * v + 1] = b;
      vertices[3 * v + 2] = c;
    }
    return vertices;
  }

  /** Rest vertices with SMPL's pose correctives. */
  corrected(pose) {
    const found = Float64Array.from(this.rest_vertices), local = new Float64Array(9), size = found.length;
    for (let j = 1; j <= this.pose_basis.length / (9 * size); j++) {
      rotation(pose, 3 * j, local);
      for (let n = 0; n < 9; n++) {
        const amount = local[n] - (n % 4 === 0 ? 1 : 0), from = (9 * (j - 1) + n) * size;
        if (amount !== 0) for (let i = 0; i < size; i++) found[i] += amount * this.pose_basis[from + i];
      }
    }
    return found;
  }

  /** Unit normals of this.vertices, area-weighted; kept in this.normals. */
  findNormals() {
    const { vertices: p, normals: out, faces } = this;
    out.fill(0);
    for (let f = 0; f < faces.length; f += 3) {
      const a = 3 * faces[f], b = 3 * faces[f + 1], c = 3 * faces[f + 2];
      const ux = p[b] - p[a], uy = p[b + 1] - p[a + 1], uz = p[b + 2] - p[a + 2];
      const wx = p[c] - p[a], wy = p[c + 1] - p[a + 1], wz = p[c + 2] - p[a + 2];
      const nx = uy * wz - uz * wy, ny = uz * wx - ux * wz, nz = ux * wy - uy * wx;
      for (const i of [a, b, c]) {
        out[i] += nx;
        out[i + 1] += ny;
        out[i + 2] += nz;
      }
    }
    for (let i = 0; i < out.length; i += 3) {
      const length = Math.sqrt(out[i] ** 2 + out[i + 1] ** 2 + out[i + 2] ** 2);
      if (length > 0) for (let d = 0; d < 3; d++) out[i + d] /= length;
    }
    return out;
  }
}

/** Rodrigues: the axis-angle vector at pose[at...] to out (9). */
function rotation(pose, at, out) {
  const x = pose[at], y = pose[at + 1], z = pose[at + 2], squared = x * x + y * y + z * z;
  let s = 1 - squared / 6, c1 = 0.5 - squared / 24;
  if (squared >= 1e-12) {
    const angle = Math.sqrt(squared);
    s = Math.sin(angle) / angle;
    c1 = (1 - Math.cos(angle)) / squared;
  }
  const c = 1 - c1 * squared;
  out[0] = c + c1 * x * x; out[1] = c1 * x * y - s * z; out[2] = c1 * x * z + s * y;
  out[3] = c1 * x * y + s * z; out[4] = c + c1 * y * y; out[5] = c1 * y * z - s * x;
  out[6] = c1 * x * z - s * y; out[7] = c1 * y * z + s * x; out[8] = c + c1 * z * z;
}

/** (J, 12) toFromJoint of every joint. */
function kinematics(pose, joints, parents, toFromBody) {
  const out = new Float64Array(12 * parents.length), local = new Float64Array(9);
  for (let j = 0; j < parents.length; j++) {
    rotation(pose, 3 * j, local);
    const p = parents[j], from = p < 0 ? toFromBody : out.subarray(12 * p, 12 * p + 12);
    for (let r = 0; r < 3; r++) {
      let position = from[4 * r + 3];
      for (let k = 0; k < 3; k++) position += from[4 * r + k] * (joints[3 * j + k] - (p < 0 ? 0 : joints[3 * p + k]));
      for (let c = 0; c < 3; c++) {
        out[12 * j + 4 * r + c] = from[4 * r] * local[c] + from[4 * r + 1] * local[3 + c] + from[4 * r + 2] * local[6 + c];
      }
      out[12 * j + 4 * r + 3] = position;
    }
  }
  return out;
}

/** The product of two rigid (3, 4). */
function compose(first, second) {
  const out = new Float64Array(12);
  for (let r = 0; r < 3; r++) {
    for (let c = 0; c < 4; c++) {
      let total = c === 3 ? first[4 * r + 3] : 0;
      for (let k = 0; k < 3; k++) total += first[4 * r + k] * second[4 * k + c];
      out[4 * r + c] = total;
    }
  }
  return out;
}

/** A camera {width, height, fx, fy, cx, cy} of the part box = [left, top, right, bottom], resampled to width x height. */
function cropCamera(camera, box, width, height) {
  const sx = width / (box[2] - box[0]), sy = height / (box[3] - box[1]);
  return {
    width, height, fx: camera.fx * sx, fy: camera.fy * sy,
    cx: (camera.cx - box[0]) * sx, cy: (camera.cy - box[1]) * sy,
  };
}

/** Of values (N, 3) the rows at indices. */
function rowsOf(values, indices) {
  const out = new Float32Array(3 * indices.length);
  indices.forEach((index, row) => out.set(values.subarray(3 * index, 3 * index + 3), 3 * row));
  return out;
}

/** (V, 2) pixels of vertices (V, 3); NaN at or behind the camera. */
function projectPoints(camera, vertices) {
  const out = new Float64Array(vertices.length / 3 * 2);
  for (let v = 0, at = 0; v < vertices.length; v += 3, at += 2) {
    const z = vertices[v + 2] > 1e-6 ? vertices[v + 2] : NaN;
    out[at] = vertices[v] / z * camera.fx + camera.cx;
    out[at + 1] = vertices[v + 1] / z * camera.fy + camera.cy;
  }
  return out;
}

/** [left, top, right, bottom] px around vertices, framed as the networks learned; null when none is in the picture. */
function personBox(vertices, camera, framing) {
  const points = projectPoints(camera, vertices);
  let left = Infinity, top = Infinity, right = -Infinity, bottom = -Infinity;
  for (let i = 0; i < points.length; i += 2) {
    if (!Number.isFinite(points[i]) || !Number.isFinite(points[i + 1])) continue;
    left = Math.min(left, points[i]);
    right = Math.max(right, points[i]);
    top = Math.min(top, points[i + 1]);
    bottom = Math.max(bottom, points[i + 1]);
  }
  if (!(right > 0 && bottom > 0 && left < camera.width && top < camera.height)) return null;
  const clip = (value, high) => Math.min(Math.max(value, 0), high);
  left = clip(left, camera.width);
  right = clip(right, camera.width);
  top = clip(top, camera.height);
  bottom = clip(bottom, camera.height);
  const [marginLeft, marginTop, marginRight, marginBottom] = framing.margins, size = Math.max(bottom - top, 1);
  left -= marginLeft * size;
  top -= marginTop * size;
  right += marginRight * size;
  bottom += marginBottom * size;
  const aspect = framing.crop_wh[0] / framing.crop_wh[1], height = Math.max(bottom - top, (right - left) / aspect);
  const x = (left + right) / 2, y = (top + bottom) / 2;
  return [x - height * aspect / 2, y - height / 2, x + height * aspect / 2, y + height / 2];
}
