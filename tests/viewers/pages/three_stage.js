// A three.js stage: black, one device pixel per pixel, a camera that looks at the origin with y up.

import { PerspectiveCamera, Scene, WebGLRenderer } from "three";

import { makeCanvas } from "./capture.js";

export function makeStage({ eye, fov, size }) {
  const canvas = makeCanvas(size);
  const renderer = new WebGLRenderer({ canvas, antialias: false, preserveDrawingBuffer: true });
  renderer.setPixelRatio(1);
  renderer.setSize(size, size, false);
  renderer.setClearColor(0x000000, 1);
  const camera = new PerspectiveCamera(fov, 1, 0.05, 50);
  camera.position.set(...eye);
  camera.lookAt(0, 0, 0);
  camera.updateMatrixWorld();
  return { canvas, renderer, camera, scene: new Scene() };
}
