"use strict";
// The page: fetches the avatar, plays its motions, follows the mouse.  Everything comes from beside the page, or from
// within it where it was exported as one file.

const HEIGHT = 800, VERTICAL_FOV = 28 * Math.PI / 180, ELEVATION = 7 * Math.PI / 180, FILL = 0.74; // rendering/viewpoints.py
const ELEVATION_RANGE = [-0.25, 1.2], ZOOM_RANGE = [0.35, 2.5], NEAR_LIFT = 0.36;

/** The bytes of a file of this export. */
async function bytesOf(name) {
  const inside = document.querySelector(`script[data-file="${name}"]`);
  if (inside === null) {
    const answer = await fetch(name);
    if (!answer.ok) throw new Error(`${name}: ${answer.status} ${answer.statusText}`);
    return new Uint8Array(await answer.arrayBuffer());
  }
  const text = atob(inside.textContent.trim()), packed = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) packed[i] = text.charCodeAt(i);
  inside.remove();
  const unpacked = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(unpacked).arrayBuffer());
}

const isInside = (name) => document.querySelector(`script[data-file="${name}"]`) !== null;

/** ONNX Runtime and a session on it for every model {crop_wh, texture_channels, bytes}: WebGPU where there is one, else WebAssembly. */
async function openRuntime({ webgpu, wasm }, models) {
  const asked = new URLSearchParams(location.hash.slice(1)).get("on"), failures = [];
  if (!isInside(wasm.script) && asked !== "wasm" && (asked === "webgpu" || await hasGpu())) {
    try {
      return await openBackend(webgpu, "webgpu", models);
    } catch (error) {
      failures.push(`WebGPU: ${error.message}`);
    }
  }
  try {
    return { ...await openBackend(wasm, "wasm", models), failures };
  } catch (error) {
    throw new Error([...failures, `WebAssembly: ${error.message}`].join("; "));
  }
}

async function openBackend(files, provider, models) {
  const address = isInside(files.script)
    ? URL.createObjectURL(new Blob([await bytesOf(files.script)], { type: "text/javascript" }))
    : new URL(files.script, location.href).href;
  const ort = await import(address), sessions = [];
  ort.env.wasm.wasmBinary = (await bytesOf(files.binary)).buffer;
  // Threads need shared memory, which browsers give to cross-origin isolated pages only.
  ort.env.wasm.numThreads = self.crossOriginIsolated ? Math.min(4, navigator.hardwareConcurrency || 1) : 1;
  for (const model of models) sessions.push(await openSession(ort, provider, model));
  return { ort, sessions, provider, failures: [] };
}

async function openSession(ort, provider, { crop_wh: [width, height], texture_channels, bytes }) {
  const options = { executionProviders: [provider], freeDimensionOverrides: { pictures: 1, width, height } };
  const session = await ort.InferenceSession.create(bytes, options);
  const empty = (channels) => new ort.Tensor("float32", new Float32Array(channels * height * width), [1, channels, height, width]);
  await session.run({ features: empty(texture_channels), normals: empty(3) }); // a backend that cannot must say so now
  return session;
}

/** Whether there is a graphics processor, not a processor that imitates one. */
async function hasGpu() {
  try {
    const adapter = await navigator.gpu?.requestAdapter();
    return Boolean(adapter) && !(adapter.info?.isFallbackAdapter ?? adapter.isFallbackAdapter ?? false);
  } catch {
    return false;
  }
}

/** The arrays of avatar.bin by name. */
function arraysOf(table, data) {
  const kinds = { float32: Float32Array, int32: Int32Array, int8: Int8Array }, found = {};
  for (const [name, { dtype, offset, count }] of Object.entries(table)) {
    found[name] = new kinds[dtype](data.buffer, data.byteOffset + offset, count);
  }
  return found;
}

/** The unit vector to a camera at an angle around the vertical and above the horizon. */
const away = (angle, elevation) => [Math.cos(elevation) * Math.cos(angle), Math.cos(elevation) * Math.sin(angle), Math.sin(elevation)];

class Viewer {
  constructor(canvas, description, arrays, runtime) {
    Object.assign(this, { canvas, description, arrays });
    this.avatar = new Avatar(description, arrays, runtime.sessions, runtime.ort);
    this.provider = runtime.provider;
    this.context = canvas.getContext("2d");
    this.azimuth = 0;
    this.elevation = ELEVATION;
    this.zoom = 1;
    this.isPlaying = true;
    this.isTurning = false;
    this.times = []; // when the last pictures were finished
    this.choose(0);
  }

  choose(index) {
    this.motion = this.description.motions[index];
    this.seconds = 0;
  }

  get duration() {
    return this.motion.frames / this.motion.frames_per_second;
  }

  get frame() {
    return Math.floor(this.seconds * this.motion.frames_per_second + 1e-6) % this.motion.frames;
  }

  /** The part of an array that belongs to a frame. */
  of(array, frame) {
    const values = this.arrays[this.motion[array]], size = values.length / this.motion.frames;
    return values.subarray(frame * size, (frame + 1) * size);
  }

  camera() {
    const { height_m: tall } = this.description, width = this.canvas.width, height = this.canvas.height;
    const widest = Math.max(tall, 0.8 * tall * height / width), focal = height / 2 / Math.tan(VERTICAL_FOV / 2);
    const distance = widest / FILL / 2 / Math.tan(VERTICAL_FOV / 2) * this.zoom;
    const angle = this.motion.facing + this.azimuth, target = [...this.of("targets", this.frame)];
    target[2] += Math.max(0, 1 - this.zoom) * NEAR_LIFT * tall; // who comes nearer wants to see the face
    return this.lit(lookAt(away(angle, this.elevation).map((value, d) => target[d] + distance * value), target, focal, width, height));
  }

  /** The camera and how the light, which stands still in the motion's world, is known from it. */
  lit(camera) {
    return { ...camera, litFromCamera: axesBetween(camera, this.motion.lit_from_world) };
  }

  resize() {
    const aspect = this.canvas.clientWidth / Math.max(this.canvas.clientHeight, 1);
    const width = Math.round(HEIGHT * Math.min(Math.max(aspect, 0.4), 2.4));
    if (width === this.canvas.width && this.canvas.height === HEIGHT) return;
    Object.assign(this.canvas, { width, height: HEIGHT });
    this.picture = this.context.createImageData(width, HEIGHT);
    this.empty = new Uint8ClampedArray(this.picture.data.length);
    this.horizon = null; // of the backdrop in this.empty
  }

  /** Draw the present frame, where it is not shown already. */
  async draw() {
    this.resize();
    const camera = this.camera();
    const shown = `${[...camera.fromWorld, camera.width].join()} ${this.motion.name} ${this.frame}`;
    if (shown === this.shown) return false;
    const horizon = horizonOf(camera);
    if (Math.abs(horizon - this.horizon) * camera.height > 0.2 || this.horizon === null) {
      backdrop(horizon, camera.width, camera.height, this.empty);
      this.horizon = horizon;
    }
    const placed = compose(camera.fromWorld, this.of("world_from_body", this.frame));
    const painted = await this.avatar.paint(this.of("pose", this.frame), placed, camera);
    this.picture.data.set(this.empty);
    dropShadow(camera, this.avatar.body.vertices, this.picture.data);
    if (painted !== null) this.avatar.paste(painted, this.picture.data, camera.width, camera.height, 255);
    this.context.putImageData(this.picture, 0, 0);
    this.shown = shown;
    return true;
  }

  /** Draw for ever; onPicture(rate) after each picture. */
  async run(onPicture) {
    for (let before = performance.now(); ;) {
      const now = await new Promise(requestAnimationFrame), passed = Math.max(0, Math.min(now - before, 200)) / 1000;
      before = now;
      if (this.isPlaying) this.seconds = (this.seconds + passed) % this.duration;
      if (this.isTurning) this.azimuth += passed * 2 * Math.PI / 10;
      if (await this.draw()) {
        this.times = [...this.times.filter((time) => time > performance.now() - 2000), performance.now()];
        onPicture(this.times.length > 1 ? 1000 * (this.times.length - 1) / (this.times.at(-1) - this.times[0]) : 0);
      }
    }
  }
}

/** Drag to turn, wheel or two fingers to come nearer. */
function listen(viewer, canvas, onChange) {
  const fingers = new Map(), clip = (value, [low, high]) => Math.min(Math.max(value, low), high);
  const span = () => {
    const [a, b] = [...fingers.values()];
    return Math.hypot(a[0] - b[0], a[1] - b[1]);
  };
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    fingers.set(event.pointerId, [event.clientX, event.clientY]);
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!fingers.has(event.pointerId)) return;
    const before = fingers.get(event.pointerId), apart = fingers.size === 2 ? span() : 0;
    fingers.set(event.pointerId, [event.clientX, event.clientY]);
    if (fingers.size === 2) {
      viewer.zoom = clip(viewer.zoom * apart / Math.max(span(), 1), ZOOM_RANGE);
    } else {
      viewer.azimuth -= (event.clientX - before[0]) * 0.008;
      viewer.elevation = clip(viewer.elevation + (event.clientY - before[1]) * 0.006, ELEVATION_RANGE);
    }
  });
  for (const kind of ["pointerup", "pointercancel"]) canvas.addEventListener(kind, (event) => fingers.delete(event.pointerId));
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    viewer.zoom = clip(viewer.zoom * Math.exp(event.deltaY * 0.001), ZOOM_RANGE);
  }, { passive: false });
  addEventListener("keydown", (event) => {
    if (event.code !== "Space" || event.target instanceof HTMLButtonElement) return;
    event.preventDefault();
    viewer.isPlaying = !viewer.isPlaying;
    onChange();
  });
}

/** The buttons, and what the address asks for: #motion=NAME&azimuth=30&elevation=10&zoom=1&time=2&paused&turning */
function controls(viewer) {
  const list = document.getElementById("motions"), play = document.getElementById("play"), turn = document.getElementById("turn");
  document.addEventListener("click", (event) => {
    if (event.detail > 0) event.target.blur?.(); // clicked, not typed: the space bar goes back to Play and Pause
  });
  const show = () => {
    for (const button of list.children) button.setAttribute("aria-pressed", button.textContent === viewer.motion.name);
    play.textContent = viewer.isPlaying ? "Pause" : "Play";
    turn.setAttribute("aria-pressed", viewer.isTurning);
  };
  viewer.description.motions.forEach((motion, index) => {
    const button = document.createElement("button");
    button.textContent = motion.name;
    button.addEventListener("click", () => { viewer.choose(index); show(); });
    list.append(button);
  });
  play.addEventListener("click", () => { viewer.isPlaying = !viewer.isPlaying; show(); });
  turn.addEventListener("click", () => { viewer.isTurning = !viewer.isTurning; show(); });
  const asked = new URLSearchParams(location.hash.slice(1)), radians = (name) => Number(asked.get(name)) * Math.PI / 180;
  const index = viewer.description.motions.findIndex((motion) => motion.name === asked.get("motion"));
  if (index >= 0) viewer.choose(index);
  if (asked.has("azimuth")) viewer.azimuth = radians("azimuth");
  if (asked.has("elevation")) viewer.elevation = radians("elevation");
  if (Number(asked.get("zoom")) > 0) viewer.zoom = Number(asked.get("zoom"));
  if (Number(asked.get("time")) > 0) viewer.seconds = Number(asked.get("time")) % viewer.duration;
  viewer.isPlaying = !asked.has("paused");
  viewer.isTurning = asked.has("turning");
  show();
  return show;
}

async function main() {
  const says = document.getElementById("says"), canvas = document.getElementById("picture");
  try {
    says.textContent = "Loading …";
    const description = JSON.parse(new TextDecoder().decode(await bytesOf("avatar.json")));
    document.title = description.name;
    document.getElementById("name").textContent = description.name;
    const data = await bytesOf("avatar.bin"), models = [{ ...description, bytes: await bytesOf("renderer.onnx") }];
    const { close_up } = description;
    if (close_up) models.push({ ...close_up, bytes: await bytesOf(close_up.model) });
    const runtime = await openRuntime(description.runtime, models);
    const viewer = new Viewer(canvas, description, arraysOf(description.arrays, data), runtime);
    globalThis.viewer = viewer; // for people at the console, and for tests
    listen(viewer, canvas, controls(viewer));
    const where = { webgpu: "WebGPU", wasm: "WebAssembly" }[runtime.provider];
    if (runtime.failures.length) console.warn(runtime.failures.join("\n"));
    await viewer.run((rate) => {
      says.textContent = rate > 0 ? `${rate < 9.95 ? rate.toFixed(1) : Math.round(rate)} pictures/s, ${where}` : where;
    });
  } catch (error) {
    const isFile = location.protocol === "file:" && !isInside("avatar.bin");
    says.textContent = isFile
      ? "Browsers load a folder only from a web server: run  python3 -m http.server  in it and open http://localhost:8000"
      : `This avatar cannot be shown here: ${error.message}`;
    document.body.className = "failed";
    console.error(error);
  }
}

main();
