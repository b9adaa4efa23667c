// What every page does to have its picture taken.

const PAUSE = 250; // milliseconds for the worker that sorts
const SAME = 3; // pictures in a row that must be equal
const MOST = 40;

export function makeCanvas(size) {
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = size;
  canvas.style.cssText = `display: block; width: ${size}px; height: ${size}px`;
  document.body.style.margin = "0";
  document.body.append(canvas);
  return canvas;
}

// Draws until nothing changes any more: viewers sort in the background and show half-sorted pictures meanwhile.
// Reading a picture back before the next frame is asked for keeps frames from queueing up in a software renderer.
export async function capture(canvas, draw) {
  let last = "";
  for (let frame = 0, same = 0; frame < MOST; frame++) {
    await draw();
    const picture = canvas.toDataURL("image/png");
    same = picture === last ? same + 1 : 0;
    if (same >= SAME) return picture;
    last = picture;
    await new Promise((done) => setTimeout(done, PAUSE));
  }
  throw new Error(`the picture still changes after ${MOST} frames`);
}
