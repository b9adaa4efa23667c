// The page: which heads are shown, when to draw, and what the buttons do.

import { between, front, limited, near, poseOfAddress, swing, unwound, viewOf, zoomed } from "./camera.js";
import { Controls } from "./controls.js";
import { Renderer } from "./renderer.js";
import { readHead } from "./splats.js";

const byId = (id) => document.getElementById(id);
const page = JSON.parse(byId("page").textContent);
const canvas = byId("canvas");
const everyHead = page.heads.map((_, index) => index);
const EASE = { drag: 0.05, travel: 0.3 }; // seconds until two thirds of the way
const SLOW = 1 / 22, FAST = 1 / 45; // seconds per frame where the resolution falls and rises
const DEGREES = 180 / Math.PI;

const state = {
  wanted: [0], // heads that shall be seen
  shown: [], // heads that are, since their order is known
  pose: front(),
  goal: front(), // where the pose is going
  ease: EASE.travel,
  playing: false,
  played: 0, // seconds
  background: [1, 1, 1],
  scale: 1, // of the resolution, while something moves
  frame: 0, // the frame that is asked for
  last: 0, // when the last one was
  sorting: false,
  sorted: "",
};
let renderer, worker;
const read = new Map();

function fail(error) {
  byId("message").textContent = error.message ?? String(error);
  byId("message").hidden = false;
  canvas.dataset.failed = "";
}

const framing = () => page.heads[state.wanted[0]].framing;

// Columns and rows that give the largest pictures; every head's place as shares of the canvas.
function cellsOf(heads) {
  let best = { side: 0, columns: 1, rows: 1 };
  for (let columns = 1; columns <= heads.length; columns++) {
    const rows = Math.ceil(heads.length / columns);
    const side = Math.min(canvas.width / columns, canvas.height / rows);
    if (side > best.side) best = { side, columns, rows };
  }
  const [width, height] = [1 / best.columns, 1 / best.rows];
  return heads.map((head, index) => {
    const [row, column] = [Math.floor(index / best.columns), index % best.columns];
    const filling = heads.length > 1 ? 0.9 : 1; // neighbours keep apart
    return { head, framing: page.heads[head].framing, x: column * width, y: row * height, width, height, filling };
  });
}

function sideOfPicture() { // CSS pixels
  const { width, height } = cellsOf(state.wanted)[0];
  return Math.min(canvas.clientWidth * width, canvas.clientHeight * height);
}

function requestFrame() {
  delete canvas.dataset.view;
  state.frame ||= requestAnimationFrame(frame);
}

function frame(now) {
  const seconds = Math.min(0.25, (now - state.last) / 1000);
  state.frame = 0;
  state.last = now;
  const moving = advance(Math.min(0.1, seconds));
  if (moving) adaptResolution(seconds);
  order();
  if (state.shown.length > 0) {
    renderer.draw(cellsOf(state.shown), (place) => viewOf(state.pose, place), state.background, moving ? state.scale : 1);
    byId("poster").hidden = true;
  }
  if (moving) requestFrame();
  else if (!state.sorting && state.shown.length > 0) canvas.dataset.view = described(state.pose);
}

// One step of the motion; whether there is another.
function advance(seconds) {
  if (state.playing) {
    state.played += seconds;
    state.goal = swing(state.played);
  }
  const share = calm.matches ? 1 : 1 - Math.exp(-seconds / state.ease);
  state.pose = near(state.pose, state.goal) ? state.goal : between(state.pose, state.goal, share);
  return state.playing || state.pose !== state.goal;
}

// On a slow device, fewer pixels while something moves: a sharp picture follows when it stands still.
function adaptResolution(seconds) {
  if (seconds > SLOW) state.scale = Math.max(0.4, state.scale * 0.92);
  if (seconds < FAST) state.scale = Math.min(1, state.scale * 1.04);
}

function order() {
  const { forward } = viewOf(state.pose, framing());
  const key = [...state.wanted, ...forward].join();
  if (state.sorting || key === state.sorted || !state.wanted.every((head) => renderer.heads.has(head))) return;
  state.sorting = true;
  worker.postMessage({ heads: state.wanted, direction: forward, key });
}

function takeOrder({ data }) {
  data.heads.forEach((head, index) => renderer.setOrder(renderer.heads.get(head), data.orders[index]));
  Object.assign(state, { shown: data.heads, sorted: data.key, sorting: false });
  requestFrame();
}

// What has been drawn, for whoever looks at the page from outside: yaw, pitch (degrees) and zoom.
const described = ({ yaw, pitch, zoom }) => [yaw * DEGREES, pitch * DEGREES, zoom].map((value) => value.toFixed(3)).join(" ");

function load(index) {
  if (!read.has(index)) {
    const head = page.heads[index];
    read.set(index, readHead(byId(`splats-${index}`), head).then(({ texels, means }) => {
      byId(`splats-${index}`).remove();
      renderer.add(index, texels, head.count, head.dilation);
      worker.postMessage({ head: index, means }, [means.buffer]);
    }));
  }
  return read.get(index);
}

async function show(heads) {
  state.wanted = heads;
  for (const button of document.querySelectorAll("[data-head]")) {
    const chosen = button.dataset.head === (heads.length > 1 ? "all" : String(heads[0]));
    button.setAttribute("aria-pressed", chosen);
    if (chosen) button.scrollIntoView({ block: "nearest", inline: "nearest" });
  }
  const count = heads.reduce((sum, head) => sum + page.heads[head].count, 0).toLocaleString("en");
  byId("caption").textContent = `${heads.length > 1 ? `${heads.length} heads` : page.heads[heads[0]].name} · ${count} Gaussians`;
  await Promise.all(heads.map(load));
  requestFrame();
}

function change(step) {
  play(false);
  state.goal = limited(step(state.goal), framing());
  state.ease = EASE.drag;
  requestFrame();
}

function reset() {
  play(false);
  Object.assign(state, { pose: unwound(state.pose), goal: front(), ease: EASE.travel });
  requestFrame();
}

function play(on) {
  if (on) Object.assign(state, { pose: unwound(state.pose), ease: EASE.travel, played: 0 });
  else if (state.playing) state.goal = state.pose;
  state.playing = on;
  byId("play").setAttribute("aria-pressed", on);
  byId("play").setAttribute("aria-label", on ? "Pause" : "Play");
  requestFrame();
}

function setBackground(color) {
  state.background = [1, 3, 5].map((at) => Number.parseInt(color.slice(at, at + 2), 16) / 255);
  byId("stage").style.backgroundColor = color;
  requestFrame();
}

function resize([{ contentRect, devicePixelContentBoxSize: exact }]) {
  const ratio = Math.min(window.devicePixelRatio, 2); // beyond, nothing is gained but heat
  const full = exact && ratio === window.devicePixelRatio;
  canvas.width = full ? exact[0].inlineSize : Math.round(contentRect.width * ratio);
  canvas.height = full ? exact[0].blockSize : Math.round(contentRect.height * ratio);
  if (state.frame) cancelAnimationFrame(state.frame);
  frame(performance.now()); // now: a canvas that was resized is blank
}

function followAddress() {
  const fields = new URLSearchParams(location.hash.slice(1));
  const asked = fields.get("head");
  const head = Number.parseInt(asked, 10) - 1;
  if (asked === "all") show(everyHead).catch(fail);
  else if (page.heads[head]) show([head]).catch(fail);
  if (fields.has("yaw") || fields.has("pitch") || fields.has("zoom") || fields.has("still")) {
    play(false);
    state.pose = state.goal = limited(poseOfAddress(fields), framing());
  }
}

function connectButtons() {
  byId("play").addEventListener("click", () => play(!state.playing));
  byId("reset").addEventListener("click", reset);
  byId("closer").addEventListener("click", () => change((pose) => zoomed(pose, 1.25)));
  byId("farther").addEventListener("click", () => change((pose) => zoomed(pose, 0.8)));
  byId("background").addEventListener("input", ({ target }) => setBackground(target.value));
  byId("full").hidden = !document.fullscreenEnabled;
  byId("full").addEventListener("click", () =>
    document.fullscreenElement ? document.exitFullscreen() : document.documentElement.requestFullscreen());
  for (const button of document.querySelectorAll("[data-head]")) {
    const { head } = button.dataset;
    button.addEventListener("click", () => show(head === "all" ? everyHead : [Number(head)]).catch(fail));
  }
}

function keepContext() {
  canvas.addEventListener("webglcontextlost", (event) => {
    event.preventDefault(); // asks for it back
    fail("The graphics card was taken away by the system; waiting for it to come back.");
  });
  canvas.addEventListener("webglcontextrestored", () => {
    renderer.restore();
    byId("message").hidden = true;
    requestFrame();
  });
}

function start() {
  if (!("DecompressionStream" in window)) throw new Error("This browser is too old to unpack the head: it needs one of 2023 or newer.");
  renderer = new Renderer(canvas, {
    splatVertex: byId("splat-vert").textContent,
    splatFragment: byId("splat-frag").textContent,
    resolveVertex: byId("resolve-vert").textContent,
    resolveFragment: byId("resolve-frag").textContent,
  });
  // A worker from a Blob: a page opened from disk may load no other file.
  worker = new Worker(URL.createObjectURL(new Blob([byId("sort-worker").textContent], { type: "text/javascript" })));
  worker.onmessage = takeOrder;
  worker.onerror = ({ message }) => fail(`the sorting of the splats failed: ${message}`);
  keepContext();
  connectButtons();
  new Controls(canvas, { change, reset, framing, play: () => play(!state.playing), side: sideOfPicture });
  setBackground(byId("background").value);
  show(state.wanted).catch(fail);
  play(!calm.matches);
  followAddress();
  window.addEventListener("hashchange", followAddress);
  new ResizeObserver(resize).observe(canvas);
}

const calm = matchMedia("(prefers-reduced-motion: reduce)");
try {
  start();
} catch (error) {
  for (const unusable of document.querySelectorAll(".tools, nav")) unusable.hidden = true; // the picture of a head stays
  fail(error);
}
