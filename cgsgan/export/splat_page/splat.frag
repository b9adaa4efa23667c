#version 300 es
precision highp float;

in vec2 v_offset;
flat in vec4 v_color;
out vec4 o_color;

void main() {
  float alpha = v_color.a * exp(-0.5 * dot(v_offset, v_offset));
  if (alpha < 1.0 / 255.0) discard;
  alpha = min(alpha, 0.99);
  o_color = vec4(v_color.rgb * alpha, alpha); // premultiplied; blended farthest first
}
