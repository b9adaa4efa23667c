#version 300 es
// The sums of all splats over the background. Colours are display-referred sRGB throughout: no gamma step.
precision highp float;

uniform highp sampler2D u_sums;
uniform vec3 u_background;
uniform vec2 u_canvas;  // pixels
uniform vec2 u_middle;  // of the training picture in this cell, and half its sides, both in units of v_cell
uniform vec2 u_half;    // 0: nothing was trained, all is shown
in vec2 v_cell;
out vec4 o_color;

const float MARGIN = 0.1;

void main() {
  vec4 sums = texture(u_sums, gl_FragCoord.xy / u_canvas);
  // What lies beyond the pictures of the training was never seen there and is debris: it fades.
  if (u_half.x > 0.0) {
    vec2 beyond = max((abs(v_cell - u_middle) / u_half - 1.0) / MARGIN, 0.0);
    sums *= 1.0 - smoothstep(0.0, 1.0, length(beyond));
  }
  o_color = vec4(sums.rgb + (1.0 - sums.a) * u_background, 1.0);
}
