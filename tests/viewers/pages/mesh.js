// A surface, not splats: what three.js shows of a .glb under light from everywhere, in which a matte surface has
// exactly its colours, and a metal none.

import { AmbientLight } from "three";
import { GLTFLoader } from "three/addons/loaders/GLTFLoader.js";

import { capture } from "./capture.js";
import { makeStage } from "./three_stage.js";

window.show = async (request) => {
  const { canvas, renderer, camera, scene } = makeStage(request);
  const { scene: model } = await new GLTFLoader().loadAsync(request.url);
  scene.add(new AmbientLight(0xffffff, Math.PI), model);
  return capture(canvas, () => renderer.render(scene, camera));
};
