// Runs in a worker: orders the splats of heads by depth along the viewing direction, farthest first.

const BINS = 65536;
const heads = new Map();

// Counting sort on 16-bit depths: one pass to measure, one to count, one to place. Equal depths keep their order reversed,
// so that of two splats in one place the first one lies in front, as in the renderer this mirrors.
function farthestFirst({ means, depths, keys }, [x, y, z]) {
  const count = depths.length;
  let low = Infinity, high = -Infinity;
  for (let i = 0, j = 0; i < count; i++, j += 3) {
    const depth = (depths[i] = x * means[j] + y * means[j + 1] + z * means[j + 2]);
    if (depth < low) low = depth;
    if (depth > high) high = depth;
  }
  const scale = high > low ? (BINS - 1) / (high - low) : 0;
  const ends = new Uint32Array(BINS);
  for (let i = 0; i < count; i++) ends[(keys[i] = Math.trunc((high - depths[i]) * scale))]++;
  for (let bin = 1; bin < BINS; bin++) ends[bin] += ends[bin - 1];
  const order = new Uint32Array(count);
  for (let i = 0; i < count; i++) order[--ends[keys[i]]] = i;
  return order;
}

onmessage = ({ data }) => {
  if (data.means) {
    const count = data.means.length / 3;
    heads.set(data.head, { means: data.means, depths: new Float32Array(count), keys: new Uint16Array(count) });
    return;
  }
  const orders = data.heads.map((head) => farthestFirst(heads.get(head), data.direction));
  postMessage({ ...data, orders }, orders.map((order) => order.buffer));
};
