import "@babylonjs/core/Materials/standardMaterial";
import "@babylonjs/loaders/SPLAT";
import "@babylonjs/loaders/glTF/2.0";
import "@babylonjs/loaders/glTF/2.0/Extensions/KHR_gaussian_splatting";

import { Camera } from "@babylonjs/core/Cameras/camera";
import { FreeCamera } from "@babylonjs/core/Cameras/freeCamera";
import { Engine } from "@babylonjs/core/Engines/engine";
import { ImportMeshAsync } from "@babylonjs/core/Loading/sceneLoader";
import { Color4 } from "@babylonjs/core/Maths/math.color";
import { Vector3 } from "@babylonjs/core/Maths/math.vector";
import { Scene } from "@babylonjs/core/scene";

import { capture, makeCanvas } from "./capture.js";

window.show = async ({ url, eye, fov, size }) => {
  const canvas = makeCanvas(size);
  const engine = new Engine(canvas, false, { preserveDrawingBuffer: true, antialias: false });
  const scene = new Scene(engine);
  scene.clearColor = new Color4(0, 0, 0, 1);
  // Its world is left-handed: what stands at (x, y, z) of a head is at (-x, y, z) when it comes from a glTF, and at
  // (x, y, -z) when it comes from a splat file with y down. It looks the same: the two differ by a half-turn about y.
  const side = /[.](glb|gltf)$/.test(url) ? -1 : 1;
  const camera = new FreeCamera("camera", new Vector3(side * eye[0], eye[1], -side * eye[2]), scene);
  camera.fov = (fov * Math.PI) / 180;
  camera.fovMode = Camera.FOVMODE_VERTICAL_FIXED;
  camera.minZ = 0.05;
  camera.maxZ = 50;
  camera.setTarget(Vector3.Zero());
  await ImportMeshAsync(url, scene);
  await scene.whenReadyAsync();
  return capture(canvas, () => scene.render());
};
