"use strict";
// A person in a picture: texture read at the covered pixels (rendering/texels.py), the two networks by ONNX Runtime, and
// the crop pasted back (rendering/avatar.py); the head a second time, larger (rendering/close_up.py); and what both are
// too coarse for, from a texture of its own (rendering/detail.py).

const WORTH = 1.15, RAMP = 0.15; // rendering/close_up.py
const FADE = 0.25; // rendering/detail.py
const CRISPER = 0.25, MOST_TIMES = 2; // rendering/pasting.py

class Avatar {
  /** description: avatar.json; arrays: by name; sessions: of renderer.onnx and, where there is one, of the close-up; ort: the runtime. */
  constructor(description, arrays, sessions, ort) {
    this.body = new Body(arrays);
    this.person = new Crop(description, this.body, arrays, sessions[0], ort);
    this.detail = arrays.detail ? new Detail(arrays.detail, description.detail_per_m, this.body, arrays.light ?? null) : null;
    this.closeUp = null;
    if (!description.close_up) return;
    const { close_up_texels: texels, close_up_light: light, head_vertices: framed } = arrays;
    this.closeUp = new Crop(description.close_up, this.body, { texels, light, framed }, sessions[1], ort);
  }

  /** What camera sees of the person, lit by the axes of camera.litFromCamera (3, 3), where it is given: {person, head} of
   * Crop.paint, head null where a close-up shows nothing more, and detail of Detail.find, null likewise; null when he is
   * nowhere in it. */
  async paint(pose, cameraFromBody, camera) {
    this.body.pose(pose, cameraFromBody);
    this.body.findNormals();
    const person = await this.person.paint(camera);
    if (person === null) return null;
    const enlarged = (person.box[3] - person.box[1]) / this.person.height, isWorth = enlarged >= WORTH;
    const head = isWorth && this.closeUp !== null ? await this.closeUp.paint(camera) : null;
    return { person, head, detail: isWorth && this.detail !== null ? this.detail.find(camera, enlarged) : null };
  }

  /** Put what was painted over pixels (H, W, 4), a Float32Array or Uint8ClampedArray of values up to scale. */
  paste({ person, head, detail }, pixels, imageWidth, imageHeight, scale) {
    if (detail) {
      const layer = this.detail.layer(imageWidth * imageHeight); // alone, as detail is of the colours before they are mixed
      this.paste({ person, head, detail: null }, layer, imageWidth, imageHeight, 1);
      addDetail(layer, detail);
      putOver(layer, pixels, scale);
      return;
    }
    if (head === null) {
      this.person.paste(person, pixels, imageWidth, imageHeight, scale);
      return;
    }
    // Over the same background, so that mixing both is mixing their premultiplied colours.
    const left = Math.max(0, Math.floor(head.box[0])), top = Math.max(0, Math.floor(head.box[1]));
    const width = Math.min(imageWidth, Math.ceil(head.box[2])) - left, height = Math.min(imageHeight, Math.ceil(head.box[3])) - top;
    const close = new pixels.constructor(4 * width * height), rowOf = (row) => 4 * ((top + row) * imageWidth + left);
    for (let row = 0; row < height; row++) close.set(pixels.subarray(rowOf(row), rowOf(row) + 4 * width), 4 * row * width);
    this.person.paste(person, pixels, imageWidth, imageHeight, scale);
    const box = head.box.map((side, n) => side - (n % 2 === 0 ? left : top));
    this.closeUp.paste({ ...head, box }, close, width, height, scale);
    const columns = ramp(width, box[0], box[2]), rows = ramp(height, box[1], box[3]);
    for (let row = 0, from = 0; row < height; row++) {
      for (let column = 0, at = rowOf(row); column < width; column++) {
        const share = rows[row] * columns[column];
        for (let n = 0; n < 4; n++, at++, from++) pixels[at] += (close[from] - pixels[at]) * share;
      }
    }
  }
}

/** A part of the picture that networks paint: the person, or the head. */
class Crop {
  /** framing: crop_wh, margins, texture_px and texture_channels; arrays: texels, light or none, and framed, the vertices
   * of body around which the part lies, by default all; session: of the networks; ort: the runtime. */
  constructor(framing, body, arrays, session, ort) {
    [this.width, this.height] = framing.crop_wh;
    this.framing = framing;
    this.body = body;
    this.framed = arrays.framed ?? null;
    this.texels = arrays.texels;
    this.light = arrays.light ?? null;
    this.texturePx = framing.texture_px;
    this.channels = framing.texture_channels;
    this.raster = new Rasterizer(body, this.width, this.height);
    this.session = session;
    this.ort = ort;
    this.features = new Float32Array(this.channels * this.width * this.height);
    this.normals = new Float32Array(3 * this.width * this.height);
  }

  /** The body as camera sees it: {rgb (3, h, w), mask (h, w), box}, colours in [0, 1]; null when it is nowhere in it. */
  async paint(camera) {
    const box = this.box(camera);
    if (box === null) return null;
    this.raster.draw(cropCamera(camera, box, this.width, this.height));
    if (this.raster.count === 0) return null;
    this.fillPlanes(camera.litFromCamera ?? [1, 0, 0, 0, 1, 0, 0, 0, 1]);
    const { ort, width, height, channels } = this;
    const painted = await this.session.run({
      features: new ort.Tensor("float32", this.features, [1, channels, height, width]),
      normals: new ort.Tensor("float32", this.normals, [1, 3, height, width]),
    });
    return { rgb: await painted.rgb.getData(), mask: await painted.mask.getData(), box };
  }

  /** The part of camera's picture, as personBox. */
  box(camera) {
    const { vertices } = this.body;
    return personBox(this.framed === null ? vertices : rowsOf(vertices, this.framed), camera, this.framing);
  }

  /** What the networks eat, from the rasteriser's covered pixels; lit (3, 3) turns their normals to the axes of the light. */
  fillPlanes(lit) {
    const { features, normals, raster, texels, channels, light, texturePx: size } = this, area = this.width * this.height;
    const gains = new Float64Array(3);
    features.fill(0);
    normals.fill(0);
    for (let k = 0; k < raster.count; k++) {
      const at = raster.pixel[k];
      for (let d = 0; d < 3; d++) normals[d * area + at] = raster.normal[3 * k + d];
      const x = Math.min(Math.max(raster.uv[2 * k] * size - 0.5, 0), size - 1);
      const y = Math.min(Math.max(raster.uv[2 * k + 1] * size - 0.5, 0), size - 1);
      const column = Math.min(Math.floor(x), size - 2), row = Math.min(Math.floor(y), size - 2);
      const right = x - column, down = y - row;
      const a = (1 - right) * (1 - down), b = right * (1 - down), c = (1 - right) * down, d = right * down;
      let upper = (row * size + column) * channels, lower = upper + size * channels;
      for (let channel = 0; channel < channels; channel++, upper++, lower++) {
        features[channel * area + at] = a * texels[upper] + b * texels[upper + channels] + c * texels[lower] + d * texels[lower + channels];
      }
      if (light === null) continue;
      lightGains(light, lit, raster.normal, 3 * k, gains);
      for (let channel = 0; channel < 3; channel++) {
        const to = channel * area + at;
        features[to] = (features[to] + 1) * gains[channel] - 1;
      }
    }
  }

  /** Put what was painted over pixels, as Avatar.paste. */
  paste(painted, pixels, imageWidth, imageHeight, scale) {
    let crop = premultiplied(painted.rgb, painted.mask), { width, height } = this;
    const [left, top, right, bottom] = painted.box, shrink = Math.floor(height / Math.max(bottom - top, 1));
    const contrast = 1 + CRISPER * Math.min(Math.max((bottom - top) / height - 1, 0), MOST_TIMES);
    if (shrink > 1) { // mean over the footprint, so that a small figure does not alias
      const small = [Math.floor(width / shrink), Math.floor(height / shrink)];
      crop = areaResized(crop, width, height, ...small);
      [width, height] = small;
    }
    const stepX = width / (right - left), stepY = height / (bottom - top);
    const part = opaquePart(crop, width, height); // most of a crop is empty
    const firstX = Math.max(0, Math.floor(left + (part[0] - 1) / stepX)), endX = Math.min(imageWidth, Math.ceil(left + (part[2] + 1) / stepX));
    const firstY = Math.max(0, Math.floor(top + (part[1] - 1) / stepY)), endY = Math.min(imageHeight, Math.ceil(top + (part[3] + 1) / stepY));
    for (let row = firstY; row < endY; row++) {
      const y = (row + 0.5 - top) * stepY - 0.5, y0 = Math.floor(y), down = y - y0;
      const upper = y0 >= 0 && y0 < height ? 1 - down : 0, lower = y0 >= -1 && y0 < height - 1 ? down : 0;
      const above = Math.min(Math.max(y0, 0), height - 1) * width, below = Math.min(Math.max(y0 + 1, 0), height - 1) * width;
      for (let column = firstX; column < endX; column++) {
        const x = (column + 0.5 - left) * stepX - 0.5, x0 = Math.floor(x), rightward = x - x0;
        const near = x0 >= 0 && x0 < width ? 1 - rightward : 0, far = x0 >= -1 && x0 < width - 1 ? rightward : 0;
        const i = Math.min(Math.max(x0, 0), width - 1), j = Math.min(Math.max(x0 + 1, 0), width - 1);
        const a = 4 * (above + i), b = 4 * (above + j), c = 4 * (below + i), d = 4 * (below + j);
        const wa = near * upper, wb = far * upper, wc = near * lower, wd = far * lower;
        const alpha = wa * crop[a + 3] + wb * crop[b + 3] + wc * crop[c + 3] + wd * crop[d + 3];
        if (alpha <= 1e-4) continue;
        const crisp = Math.min(Math.max((alpha - 0.5) * contrast + 0.5, 0), 1), amount = crisp / alpha * scale;
        const at = 4 * (row * imageWidth + column);
        for (let n = 0; n < 3; n++) {
          const colour = wa * crop[a + n] + wb * crop[b + n] + wc * crop[c + n] + wd * crop[d + n];
          pixels[at + n] = colour * amount + pixels[at + n] * (1 - crisp);
        }
        pixels[at + 3] = crisp * scale + pixels[at + 3] * (1 - crisp);
      }
    }
  }
}

/** What a person's crop is too coarse for. */
class Detail {
  /** texels (D, D, 3), an Int8Array of steps of a 255th of colour; perM of them lie on a metre of body; light or none. */
  constructor(texels, perM, body, light) {
    const px = Math.round(Math.sqrt(texels.length / 3));
    this.levels = [{ px, texels }]; // each half as fine as the one before
    this.perM = perM;
    this.body = body;
    this.light = light;
    this.raster = null;
  }

  /** Which pixels of camera's picture, which the painting is enlarged for, show body, and what to add to their colours in
   * [0, 1]: {pixel, added, count}; valid until it is asked again. */
  find(camera, enlarged) {
    const { body, light } = this;
    if (this.raster === null || this.raster.width !== camera.width || this.raster.height !== camera.height) {
      this.raster = new Rasterizer(body, camera.width, camera.height);
      this.added = new Float32Array(3 * camera.width * camera.height);
    }
    const { raster, added } = this, gains = new Float64Array([1, 1, 1]);
    const one = new Float64Array(3), other = new Float64Array(3);
    raster.draw(camera);
    const tooFine = this.perM * visibleDepth(body.vertices, camera) / camera.fy;
    const blurred = Math.log2(Math.max(tooFine, 1)), level = Math.floor(blurred), coarser = blurred - level;
    const fine = this.level(level), coarse = this.level(level + 1), amount = Math.min((enlarged - WORTH) / FADE, 1) / 255;
    const lit = camera.litFromCamera ?? [1, 0, 0, 0, 1, 0, 0, 0, 1];
    for (let k = 0; k < raster.count; k++) {
      if (light !== null) lightGains(light, lit, raster.normal, 3 * k, gains);
      read(fine, raster.uv, k, one);
      if (coarser > 0) read(coarse, raster.uv, k, other);
      for (let n = 0; n < 3; n++) added[3 * k + n] = (one[n] + coarser * (other[n] - one[n])) * amount * gains[n];
    }
    return { pixel: raster.pixel, added, count: raster.count };
  }

  /** An empty picture (H, W, 4) of area pixels, the same every time. */
  layer(area) {
    if (this.empty?.length === 4 * area) this.empty.fill(0);
    else this.empty = new Float32Array(4 * area);
    return this.empty;
  }

  /** {px, texels} of the detail halved so many times, but never below 64 texels. */
  level(wanted) {
    const { levels } = this;
    while (levels.length <= wanted && levels[levels.length - 1].px >= 128) {
      const { px, texels } = levels[levels.length - 1], half = Math.floor(px / 2), mean = new Int8Array(3 * half * half);
      for (let row = 0; row < half; row++) {
        for (let column = 0; column < half; column++) {
          for (let n = 0; n < 3; n++) {
            const at = 3 * (2 * row * px + 2 * column) + n;
            const four = texels[at] + texels[at + 3] + texels[at + 3 * px] + texels[at + 3 * px + 3];
            mean[3 * (row * half + column) + n] = Math.floor((four + 2) / 4);
          }
        }
      }
      levels.push({ px: half, texels: mean });
    }
    return levels[Math.min(wanted, levels.length - 1)];
  }
}

/** Three channels of a level's texels between the four around uv[k], into out. */
function read({ px, texels }, uv, k, out) {
  const x = Math.min(Math.max(uv[2 * k] * px - 0.5, 0), px - 1), y = Math.min(Math.max(uv[2 * k + 1] * px - 0.5, 0), px - 1);
  const column = Math.min(Math.floor(x), px - 2), row = Math.min(Math.floor(y), px - 2);
  const right = x - column, down = y - row, upper = 3 * (row * px + column), lower = upper + 3 * px;
  for (let n = 0; n < 3; n++) {
    const above = texels[upper + n] * (1 - right) + texels[upper + 3 + n] * right;
    const below = texels[lower + n] * (1 - right) + texels[lower + 3 + n] * right;
    out[n] = above * (1 - down) + below * down;
  }
}

/** Add detail, of Detail.find, to a layer (H, W, 4) of premultiplied colours. */
function addDetail(layer, { pixel, added, count }) {
  for (let k = 0; k < count; k++) {
    const at = 4 * pixel[k], alpha = layer[at + 3];
    if (alpha <= 1e-4) continue;
    for (let n = 0; n < 3; n++) layer[at + n] = Math.min(Math.max(layer[at + n] / alpha + added[3 * k + n], 0), 1) * alpha;
  }
}

/** Put a layer (H, W, 4) of premultiplied colours over pixels (H, W, 4) of values up to scale. */
function putOver(layer, pixels, scale) {
  for (let at = 0; at < layer.length; at += 4) {
    const through = 1 - layer[at + 3];
    if (through === 1) continue;
    for (let n = 0; n < 4; n++) pixels[at + n] = layer[at + n] * scale + pixels[at + n] * through;
  }
}

/** Median distance, metres, of the vertices (V, 3) inside the picture; of all before the camera where none is. */
function visibleDepth(vertices, camera) {
  const points = projectPoints(camera, vertices), inside = [], before = [];
  for (let v = 0; v < vertices.length / 3; v++) {
    const depth = vertices[3 * v + 2], x = points[2 * v], y = points[2 * v + 1];
    if (depth > 0) before.push(depth);
    if (depth > NEAR_M && x >= 0 && y >= 0 && x < camera.width && y < camera.height) inside.push(depth);
  }
  const depths = Float64Array.from(inside.length ? inside : before).sort(), middle = depths.length >> 1;
  return depths.length % 2 ? depths[middle] : (depths[middle - 1] + depths[middle]) / 2;
}

/** (count,) for pixels along a side of a box from low to high: 1 inside, smoothly to 0 at both ends, 0 beyond. */
function ramp(count, low, high) {
  return Float32Array.from({ length: count }, (_, i) => {
    const inside = Math.min(Math.max(Math.min(i + 0.5 - low, high - i - 0.5) / ((high - low) * RAMP), 0), 1);
    return inside * inside * (3 - 2 * inside);
  });
}

/** (h, w, 4) colours times mask, and mask. */
function premultiplied(rgb, mask) {
  const area = mask.length, out = new Float32Array(4 * area);
  for (let i = 0; i < area; i++) {
    for (let n = 0; n < 3; n++) out[4 * i + n] = rgb[n * area + i] * mask[i];
    out[4 * i + 3] = mask[i];
  }
  return out;
}

/** [left, top, right, bottom) of what is not empty in (h, w, 4). */
function opaquePart(pixels, width, height) {
  const part = [width, height, 0, 0];
  for (let i = 0; i < width * height; i++) {
    if (pixels[4 * i + 3] === 0) continue;
    const column = i % width, row = (i - column) / width;
    part[0] = Math.min(part[0], column);
    part[1] = Math.min(part[1], row);
    part[2] = Math.max(part[2], column + 1);
    part[3] = Math.max(part[3], row + 1);
  }
  return part;
}

/** (h, w, 4) to a smaller size, each pixel the mean over its footprint. */
function areaResized(pixels, width, height, newWidth, newHeight) {
  const middle = new Float32Array(4 * height * newWidth), out = new Float32Array(4 * newHeight * newWidth);
  shrinkAxis(pixels, middle, height, width, newWidth, 4 * width, 4, 4 * newWidth, 4);
  shrinkAxis(middle, out, newWidth, height, newHeight, 4, 4 * newWidth, 4, 4 * newWidth);
  return out;
}

function shrinkAxis(from, to, lines, size, newSize, lineFrom, stepFrom, lineTo, stepTo) {
  const scale = size / newSize;
  for (let i = 0; i < newSize; i++) {
    const begin = i * scale, end = (i + 1) * scale;
    for (let k = Math.floor(begin); k < Math.min(Math.ceil(end - 1e-9), size); k++) {
      const share = (Math.min(end, k + 1) - Math.max(begin, k)) / scale;
      for (let line = 0; line < lines; line++) {
        for (let n = 0; n < 4; n++) to[line * lineTo + i * stepTo + n] += share * from[line * lineFrom + k * stepFrom + n];
      }
    }
  }
}

const MOST_LOG = 1.5; // fitting/light.py
const TERMS = new Float64Array(8), LOGS = new Float64Array(3);

/** By how much brighter than what faces the camera the unit normal at normals[at], turned by lit (3, 3), is, per channel,
 * into out (rendering/light.py). */
function lightGains(light, lit, normals, at, out) {
  const nx = normals[at], ny = normals[at + 1], nz = normals[at + 2];
  const facing = lit[6] * nx + lit[7] * ny + lit[8] * nz;
  lightTerms(lit[0] * nx + lit[1] * ny + lit[2] * nz, lit[3] * nx + lit[4] * ny + lit[5] * nz, facing, TERMS);
  for (let channel = 0; channel < 3; channel++) {
    LOGS[channel] = 0;
    for (let i = 0; i < TERMS.length; i++) LOGS[channel] += TERMS[i] * light[3 * i + channel];
  }
  // What faces away was not seen: its light turns grey.
  const grey = (LOGS[0] + LOGS[1] + LOGS[2]) / 3, away = Math.min(Math.max(facing, 0), 1);
  for (let channel = 0; channel < 3; channel++) {
    const log = LOGS[channel] + away * (grey - LOGS[channel]);
    out[channel] = Math.exp(Math.min(Math.max(log, -MOST_LOG), MOST_LOG));
  }
}

/** Harmonics of bands 1 and 2 of a unit normal, less those of what faces the camera, into out (fitting/light.py). */
function lightTerms(x, y, z, out) {
  out[0] = 0.48860251 * y;
  out[1] = 0.48860251 * (z + 1);
  out[2] = 0.48860251 * x;
  out[3] = 1.09254843 * x * y;
  out[4] = 1.09254843 * y * z;
  out[5] = 0.31539157 * (3 * z * z - 3);
  out[6] = 1.09254843 * x * z;
  out[7] = 0.54627422 * (x * x - y * y);
}
