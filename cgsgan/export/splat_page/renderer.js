// Draws heads with WebGL 2: splats farthest first into a half-float picture, then that over the background.

import { SPLATS_PER_ROW, TEXELS } from "./splats.js";

const LOWPASS = 0.3; // square pixels
const UNIFORMS = {
  splats: ["u_splats", "u_rotation", "u_translation", "u_size", "u_focal", "u_near", "u_dilation", "u_lowpass"],
  resolve: ["u_sums", "u_background", "u_canvas", "u_middle", "u_half"],
};

function compile(gl, vertex, fragment, uniforms) {
  const program = gl.createProgram();
  for (const [kind, source] of [[gl.VERTEX_SHADER, vertex], [gl.FRAGMENT_SHADER, fragment]]) {
    const shader = gl.createShader(kind);
    gl.shaderSource(shader, source.trim());
    gl.compileShader(shader);
    gl.attachShader(program, shader);
  }
  gl.linkProgram(program);
  if (!gl.getProgramParameter(program, gl.LINK_STATUS) && !gl.isContextLost()) {
    const logs = gl.getAttachedShaders(program).map((shader) => gl.getShaderInfoLog(shader));
    throw new Error(`the graphics driver refused a shader: ${[...logs, gl.getProgramInfoLog(program)].join(" ")}`);
  }
  const at = Object.fromEntries(uniforms.map((name) => [name, gl.getUniformLocation(program, name)]));
  return { program, at };
}

export class Renderer {
  constructor(canvas, shaders) {
    const wanted = { alpha: false, antialias: false, depth: false, stencil: false, powerPreference: "high-performance" };
    this.gl = canvas.getContext("webgl2", wanted);
    if (!this.gl) throw new Error("This browser or device offers no WebGL 2, so the head cannot be turned here.");
    this.canvas = canvas;
    this.shaders = shaders;
    this.heads = new Map();
    this.restore();
  }

  // Everything that lives on the graphics card; also after the card was taken away and given back.
  restore() {
    const { gl, shaders } = this;
    // Eight bits would round each of hundreds of layers, and cut off colours above 1 before they are dimmed.
    this.float = Boolean(gl.getExtension("EXT_color_buffer_float") || gl.getExtension("EXT_color_buffer_half_float"));
    this.splats = compile(gl, shaders.splatVertex, shaders.splatFragment, UNIFORMS.splats);
    this.resolve = compile(gl, shaders.resolveVertex, shaders.resolveFragment, UNIFORMS.resolve);
    this.empty = gl.createVertexArray();
    this.target = null;
    for (const head of this.heads.values()) this.upload(head);
  }

  add(index, texels, count, dilation) {
    const rows = texels.length / (SPLATS_PER_ROW * TEXELS * 4);
    const most = this.gl.getParameter(this.gl.MAX_TEXTURE_SIZE);
    if (rows > most) throw new Error(`This graphics card holds ${(most * SPLATS_PER_ROW).toLocaleString()} Gaussians; there are ${count.toLocaleString()}.`);
    const head = { texels, rows, count, dilation, drawn: 0, order: null };
    this.heads.set(index, head);
    this.upload(head);
  }

  upload(head) {
    const { gl } = this;
    head.texture = gl.createTexture();
    gl.bindTexture(gl.TEXTURE_2D, head.texture);
    gl.texStorage2D(gl.TEXTURE_2D, 1, gl.RGBA32F, SPLATS_PER_ROW * TEXELS, head.rows);
    gl.texSubImage2D(gl.TEXTURE_2D, 0, 0, 0, SPLATS_PER_ROW * TEXELS, head.rows, gl.RGBA, gl.FLOAT, head.texels);
    for (const side of [gl.TEXTURE_MIN_FILTER, gl.TEXTURE_MAG_FILTER]) gl.texParameteri(gl.TEXTURE_2D, side, gl.NEAREST);
    head.array = gl.createVertexArray();
    head.ids = gl.createBuffer();
    gl.bindVertexArray(head.array);
    gl.bindBuffer(gl.ARRAY_BUFFER, head.ids);
    gl.bufferData(gl.ARRAY_BUFFER, head.count * 4, gl.DYNAMIC_DRAW);
    gl.enableVertexAttribArray(0);
    gl.vertexAttribIPointer(0, 1, gl.UNSIGNED_INT, 0, 0);
    gl.vertexAttribDivisor(0, 1);
    if (head.order) this.setOrder(head, head.order);
  }

  setOrder(head, order) {
    const { gl } = this;
    head.order = order;
    head.drawn = order.length;
    gl.bindBuffer(gl.ARRAY_BUFFER, head.ids);
    gl.bufferSubData(gl.ARRAY_BUFFER, 0, order);
  }

  // The picture the splats are summed in; smaller than the canvas while a slow device is moving.
  prepareTarget(width, height) {
    const { gl } = this;
    if (this.target && this.target.width === width && this.target.height === height) return this.target;
    if (this.target) {
      gl.deleteTexture(this.target.texture);
      gl.deleteFramebuffer(this.target.framebuffer);
    }
    const target = { width, height, texture: gl.createTexture(), framebuffer: gl.createFramebuffer() };
    gl.bindTexture(gl.TEXTURE_2D, target.texture);
    gl.texStorage2D(gl.TEXTURE_2D, 1, this.float ? gl.RGBA16F : gl.RGBA8, width, height);
    for (const side of [gl.TEXTURE_MIN_FILTER, gl.TEXTURE_MAG_FILTER]) gl.texParameteri(gl.TEXTURE_2D, side, gl.LINEAR);
    for (const side of [gl.TEXTURE_WRAP_S, gl.TEXTURE_WRAP_T]) gl.texParameteri(gl.TEXTURE_2D, side, gl.CLAMP_TO_EDGE);
    gl.bindFramebuffer(gl.FRAMEBUFFER, target.framebuffer);
    gl.framebufferTexture2D(gl.FRAMEBUFFER, gl.COLOR_ATTACHMENT0, gl.TEXTURE_2D, target.texture, 0);
    this.target = target;
    return target;
  }

  // cells: [{ head, framing, x, y, width, height }], places in shares of the canvas, y from above; filling:
  // side of the head's picture over the smaller side of the cell. poses(framing) gives { rotation, translation, zoom, shift } as camera.js makes them.
  draw(cells, poses, background, scale) {
    const { gl, canvas } = this;
    const target = this.prepareTarget(Math.max(1, Math.round(canvas.width * scale)), Math.max(1, Math.round(canvas.height * scale)));
    gl.bindFramebuffer(gl.FRAMEBUFFER, target.framebuffer);
    gl.viewport(0, 0, target.width, target.height);
    gl.clearColor(0, 0, 0, 0);
    gl.clear(gl.COLOR_BUFFER_BIT);
    gl.enable(gl.BLEND);
    gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
    gl.useProgram(this.splats.program);
    for (const cell of cells) this.drawSplats(cell, target, poses(cell.framing));
    gl.disable(gl.BLEND);
    gl.bindFramebuffer(gl.FRAMEBUFFER, null);
    gl.viewport(0, 0, canvas.width, canvas.height);
    gl.clearColor(...background, 1);
    gl.clear(gl.COLOR_BUFFER_BIT);
    gl.useProgram(this.resolve.program);
    gl.bindTexture(gl.TEXTURE_2D, target.texture);
    gl.uniform3fv(this.resolve.at.u_background, background);
    gl.uniform2f(this.resolve.at.u_canvas, canvas.width, canvas.height);
    gl.bindVertexArray(this.empty);
    for (const cell of cells) this.drawOver(cell, poses(cell.framing));
  }

  drawSplats(cell, target, pose) {
    const { gl } = this;
    const { at } = this.splats;
    const head = this.heads.get(cell.head);
    const size = this.viewport(cell, target);
    gl.bindTexture(gl.TEXTURE_2D, head.texture);
    gl.uniformMatrix3fv(at.u_rotation, false, pose.rotation);
    gl.uniform3fv(at.u_translation, pose.translation);
    gl.uniform2fv(at.u_size, size);
    const focal = cell.framing.focal * pictureSide(cell, size) * pose.zoom;
    gl.uniform1f(at.u_focal, focal);
    gl.uniform1f(at.u_near, cell.framing.near);
    gl.uniform1f(at.u_lowpass, LOWPASS);
    gl.uniform1f(at.u_dilation, ((head.dilation * focal) / cell.framing.radius) ** 2);
    gl.bindVertexArray(head.array);
    gl.drawArraysInstanced(gl.TRIANGLE_STRIP, 0, 4, head.drawn);
  }

  drawOver(cell, pose) {
    const { gl } = this;
    const { at } = this.resolve;
    const size = this.viewport(cell, this.canvas);
    const half = size.map((length) => (pictureSide(cell, size) * pose.zoom) / length);
    gl.uniform2fv(at.u_half, cell.framing.trained ? half : [0, 0]);
    gl.uniform2f(at.u_middle, 2 * pose.shift[0] * half[0], -2 * pose.shift[1] * half[1]);
    gl.drawArrays(gl.TRIANGLES, 0, 3);
  }

  // Makes a cell the viewport; its size in pixels. Whole pixels: neighbours share a border and none is drawn twice.
  viewport({ x, y, width, height }, surface) {
    const [left, right] = [x, x + width].map((share) => Math.round(share * surface.width));
    const [top, bottom] = [y, y + height].map((share) => Math.round(share * surface.height));
    this.gl.viewport(left, surface.height - bottom, right - left, bottom - top);
    return [right - left, bottom - top];
  }
}

const pictureSide = (cell, size) => Math.min(...size) * cell.filling;
