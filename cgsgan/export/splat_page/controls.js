// Mouse, touch, pen and keyboard, as changes of a pose.

import { panned, turned, zoomed } from "./camera.js";

const STEP = 40; // pixels that an arrow key turns by
const TAP = { milliseconds: 320, pixels: 12 };

// One finger or the left button turns; two fingers, the right button or Shift move; wheel and pinch zoom; a double tap resets.
export class Controls {
  // change(function from pose to pose), reset(), play(), framing(), and side(): pixels of the smaller side of a picture
  constructor(canvas, actions) {
    Object.assign(this, { canvas, ...actions });
    this.pointers = new Map();
    this.lastTap = { time: -Infinity, x: 0, y: 0 };
    const listen = (name, handler, options) => canvas.addEventListener(name, handler.bind(this), options);
    listen("pointerdown", this.press);
    listen("pointermove", this.move);
    listen("pointerup", this.release);
    listen("pointercancel", this.release);
    listen("wheel", this.wheel, { passive: false });
    listen("contextmenu", (event) => event.preventDefault());
    listen("keydown", this.key);
  }

  press(event) {
    this.canvas.setPointerCapture(event.pointerId);
    this.moved = this.pointers.size > 0 ? Infinity : 0;
    this.pointers.set(event.pointerId, { x: event.clientX, y: event.clientY });
    this.change((pose) => pose); // whatever plays stops
  }

  move(event) {
    const before = this.pointers.get(event.pointerId);
    if (!before) return;
    const now = { x: event.clientX, y: event.clientY };
    const [dx, dy] = [now.x - before.x, now.y - before.y];
    this.moved += Math.hypot(dx, dy);
    if (this.pointers.size === 2) this.pinch(event.pointerId, before, now);
    const slides = event.buttons & 6 || event.shiftKey;
    if (this.pointers.size === 1) this.change((pose) => (slides ? panned : turned)(pose, this.framing(), dx, dy, this.side()));
    this.pointers.set(event.pointerId, now);
  }

  pinch(moving, before, now) {
    const [, other] = [...this.pointers].find(([id]) => id !== moving);
    const distance = (point) => Math.max(1, Math.hypot(point.x - other.x, point.y - other.y));
    const half = [(now.x - before.x) / 2, (now.y - before.y) / 2]; // the middle of both fingers moves half as far
    this.change((pose) => zoomed(panned(pose, this.framing(), ...half, this.side()), distance(now) / distance(before)));
  }

  release(event) {
    this.pointers.delete(event.pointerId);
    if (event.type !== "pointerup" || this.moved > TAP.pixels) return;
    const { lastTap } = this;
    const close = Math.hypot(event.clientX - lastTap.x, event.clientY - lastTap.y) < 2 * TAP.pixels;
    if (close && event.timeStamp - lastTap.time < TAP.milliseconds) this.reset();
    this.lastTap = { time: event.timeStamp, x: event.clientX, y: event.clientY };
  }

  wheel(event) {
    event.preventDefault();
    const pixels = event.deltaY * [1, 16, 200][event.deltaMode];
    const factor = Math.exp(-Math.max(-300, Math.min(300, pixels)) * (event.ctrlKey ? 0.01 : 0.0015));
    this.change((pose) => zoomed(pose, factor));
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const arrows = { ArrowLeft: [-STEP, 0], ArrowRight: [STEP, 0], ArrowUp: [0, -STEP], ArrowDown: [0, STEP] };
    const zooms = { "+": 1.2, "=": 1.2, "-": 1 / 1.2 };
    const move = event.shiftKey ? panned : turned;
    if (arrows[event.key]) this.change((pose) => move(pose, this.framing(), ...arrows[event.key], this.side()));
    else if (zooms[event.key]) this.change((pose) => zoomed(pose, zooms[event.key]));
    else if (event.key === "0" || event.key === "Home") this.reset();
    else if (event.key === " ") this.play();
    else return;
    event.preventDefault();
  }
}
