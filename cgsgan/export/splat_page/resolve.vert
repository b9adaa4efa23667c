#version 300 es
precision highp float;

out vec2 v_cell; // -1 to 1 across the cell, y up

void main() { // one triangle that covers the whole cell
  v_cell = vec2(gl_VertexID & 1, gl_VertexID >> 1) * 4.0 - 1.0;
  gl_Position = vec4(v_cell, 0.0, 1.0);
}
