import { SparkRenderer, SplatMesh } from "@sparkjsdev/spark";

import { capture } from "./capture.js";
import { makeStage } from "./three_stage.js";

window.show = async (request) => {
  const { canvas, renderer, camera, scene } = makeStage(request);
  // Colours above 1 are cut off unless it is asked for its wider encoding, which is not what pages do by default.
  const { extended } = request;
  scene.add(new SparkRenderer({ renderer, accumExtSplats: extended }));
  const splats = new SplatMesh({ url: request.url, extSplats: extended });
  if (request.turned) splats.quaternion.set(1, 0, 0, 0); // file axes are shown as they are: y down needs a half-turn
  scene.add(splats);
  await splats.initialized;
  return capture(canvas, () => renderer.render(scene, camera));
};
