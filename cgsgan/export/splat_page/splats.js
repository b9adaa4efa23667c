// The splats of a head, from the text in this page to what the graphics card reads.

const PLANES = 26; // bytes for each splat, each byte in a plane of its own: such planes compress well
export const TEXELS = 4;
export const SPLATS_PER_ROW = 512;

function bytesOf(base64) {
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(base64);
  const text = atob(base64);
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  return bytes;
}

async function inflate(bytes) {
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

// A rotation as its three smaller components, ten bits each, and which one is missing. Returns w, x, y, z.
function writeRotation(bits, out, at) {
  const largest = bits >>> 30;
  let rest = 1;
  for (let field = 0, shift = 20; field < 4; field++) {
    if (field === largest) continue;
    const value = (((bits >>> shift) & 1023) / 1023 * 2 - 1) * Math.SQRT1_2;
    out[at + field] = value;
    rest -= value * value;
    shift -= 10;
  }
  out[at + largest] = Math.sqrt(Math.max(0, rest));
}

// What html.py packed: [texels for the splat texture, centres for the sorting].
function unpack(bytes, head) {
  const { count, low, high, log_low: logLow, log_high: logHigh, peak } = head;
  if (bytes.length !== count * PLANES) throw new Error(`the page is damaged: ${head.name} is cut off`);
  const byte = (plane, i) => bytes[plane * count + i];
  const two = (plane, i) => (byte(plane, i) << 8) | byte(plane + 1, i);
  const three = (plane, i) => (two(plane, i) << 8) | byte(plane + 2, i);
  const texels = new Float32Array(Math.ceil(count / SPLATS_PER_ROW) * SPLATS_PER_ROW * TEXELS * 4);
  const means = new Float32Array(count * 3);
  for (let i = 0; i < count; i++) {
    const at = i * TEXELS * 4;
    for (let axis = 0; axis < 3; axis++) {
      const mean = low[axis] + (three(3 * axis, i) / 0xffffff) * (high[axis] - low[axis]);
      texels[at + axis] = means[3 * i + axis] = mean;
      texels[at + 8 + axis] = Math.exp(logLow + (two(9 + 2 * axis, i) / 65535) * (logHigh - logLow));
      texels[at + 12 + axis] = (two(15 + 2 * axis, i) / 65535) * peak;
    }
    texels[at + 3] = byte(21, i) / 255;
    writeRotation(((two(22, i) << 16) | two(24, i)) >>> 0, texels, at + 4);
  }
  return { texels, means };
}

export async function readHead(element, head) {
  return unpack(await inflate(bytesOf(element.textContent.trim())), head);
}
