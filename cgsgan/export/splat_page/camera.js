// Where the picture is taken from. World: y up, the face looks along +z; the camera looks at a point from a sphere around it.

const DEGREE = Math.PI / 180;
const MOST_PITCH = 85 * DEGREE; // straight above, "up" has no direction
const ZOOM = [0.25, 16];
const SWING = { yaw: 40 * DEGREE, pitch: 12 * DEGREE, seconds: 9 }; // the range of the training poses

export const front = () => ({ yaw: 0, pitch: 0, zoom: 1, offset: [0, 0, 0] });

const clamp = (value, low, high) => Math.min(high, Math.max(low, value));

export function limited(pose, framing) {
  const most = framing.radius / framing.focal; // one picture's width: the head stays in reach
  return {
    yaw: pose.yaw,
    pitch: clamp(pose.pitch, -MOST_PITCH, MOST_PITCH),
    zoom: clamp(pose.zoom, ...ZOOM),
    offset: pose.offset.map((value) => clamp(value, -most, most)),
  };
}

export function swing(seconds) {
  const phase = (seconds / SWING.seconds) * 2 * Math.PI;
  const grow = Math.min(1, seconds / 2); // starts at the front, without a jump
  return { ...front(), yaw: SWING.yaw * Math.sin(phase), pitch: SWING.pitch * Math.cos(phase) * grow };
}

// World to camera, OpenCV axes, as look_at and orbit in cgsgan/cameras.py.
// shift: where the middle of the training picture is seen, in sides of that picture, y down.
export function viewOf({ yaw, pitch, zoom, offset }, { target, radius, focal }) {
  const out = [Math.sin(yaw) * Math.cos(pitch), Math.sin(pitch), Math.cos(yaw) * Math.cos(pitch)];
  const right = [Math.cos(yaw), 0, -Math.sin(yaw)];
  const forward = out.map((value) => -value);
  const down = [
    forward[1] * right[2] - forward[2] * right[1],
    forward[2] * right[0] - forward[0] * right[2],
    forward[0] * right[1] - forward[1] * right[0],
  ];
  const at = out.map((value, axis) => target[axis] + offset[axis] + radius * value);
  const rows = [right, down, forward];
  const translation = rows.map((row) => -(row[0] * at[0] + row[1] * at[1] + row[2] * at[2]));
  const rotation = [0, 1, 2].flatMap((column) => rows.map((row) => row[column])); // columns first, as WebGL wants it
  const along = (row) => -(row[0] * offset[0] + row[1] * offset[1] + row[2] * offset[2]);
  const shift = [right, down].map((row) => (focal * along(row)) / (radius + along(forward)));
  return { rotation, translation, right, down, forward, zoom, shift };
}

// Move what is seen by pixels (y down): the point under the pointer stays under it.
export function panned(pose, framing, dx, dy, side) {
  const { right, down } = viewOf(pose, framing);
  const unit = framing.radius / (framing.focal * pose.zoom * side);
  return { ...pose, offset: pose.offset.map((value, axis) => value - unit * (dx * right[axis] + dy * down[axis])) };
}

// Turn by pixels: the front of the head, about a ninth of the camera's distance from its middle, follows the pointer.
export function turned(pose, framing, dx, dy, side) {
  const angle = 1 / (framing.focal * Math.max(1, pose.zoom) * side / 9);
  return { ...pose, yaw: pose.yaw - dx * angle, pitch: pose.pitch + dy * angle };
}

export const zoomed = (pose, factor) => ({ ...pose, zoom: pose.zoom * factor });

const mixed = (a, b, share) => a + (b - a) * share;

// A step from one pose to another; share 1 arrives.
export function between(from, to, share) {
  return {
    yaw: mixed(from.yaw, to.yaw, share),
    pitch: mixed(from.pitch, to.pitch, share),
    zoom: from.zoom * (to.zoom / from.zoom) ** share,
    offset: from.offset.map((value, axis) => mixed(value, to.offset[axis], share)),
  };
}

export function near(a, b) {
  const far = [a.yaw - b.yaw, a.pitch - b.pitch, Math.log(a.zoom / b.zoom), ...a.offset.map((v, i) => v - b.offset[i])];
  return far.every((value) => Math.abs(value) < 2e-4);
}

// The same direction, less than half a turn from the front: going back does not unwind whole turns.
export const unwound = (pose) => ({ ...pose, yaw: pose.yaw - 2 * Math.PI * Math.round(pose.yaw / (2 * Math.PI)) });

// "#yaw=20&pitch=-5&zoom=2&head=3&still" in the address: angles in degrees, heads counted from 1.
export function poseOfAddress(fields) {
  const number = (name, otherwise) => {
    const value = fields.has(name) ? Number.parseFloat(fields.get(name)) : otherwise;
    return Number.isFinite(value) ? value : otherwise;
  };
  return { ...front(), yaw: number("yaw", 0) * DEGREE, pitch: number("pitch", 0) * DEGREE, zoom: Math.max(number("zoom", 1), 0.01) };
}
