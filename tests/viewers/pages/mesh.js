// A surface, not splats: what a page with three.js and a lamp to one side shows of a .glb.

import { AmbientLight, DirectionalLight } from "three";
import { GLTFLoader } from "three/addons/loaders/GLTFLoader.js";

import { capture } from "./capture.js";
import { makeStage } from "./three_stage.js";

window.show = async (request) => {
  const { canvas, renderer, camera, scene } = makeStage(request);
  const { scene: model } = await new GLTFLoader().loadAsync(request.url);
  const lamp = new DirectionalLight(0xffffff, 2);
  lamp.position.set(1, 2, 3);
  scene.add(new AmbientLight(0xffffff, 1), lamp, model);
  return capture(canvas, () => renderer.render(scene, camera));
};
