import * as GaussianSplats3D from "@mkkellogg/gaussian-splats-3d";

import { capture } from "./capture.js";
import { makeStage } from "./three_stage.js";

window.show = async (request) => {
  const { canvas, renderer, camera } = makeStage(request);
  const viewer = new GaussianSplats3D.Viewer({
    renderer,
    camera,
    rootElement: document.body,
    selfDrivenMode: false,
    useBuiltInControls: false,
    sharedMemoryForWorkers: false, // needs headers that a plain file server does not send
    gpuAcceleratedSort: false,
    sceneRevealMode: GaussianSplats3D.SceneRevealMode.Instant,
    renderMode: GaussianSplats3D.RenderMode.Always,
  });
  await viewer.addSplatScene(request.url, {
    rotation: request.turned ? [1, 0, 0, 0] : [0, 0, 0, 1],
    splatAlphaRemovalThreshold: 1,
    showLoadingUI: false,
  });
  return capture(canvas, () => {
    viewer.update();
    viewer.render();
  });
};
