#version 300 es
// One splat per instance, drawn as a rectangle around its visible ellipse: EWA projection as rasterizer/reference_projection.py.
precision highp float;
precision highp int;

uniform highp sampler2D u_splats; // four texels each: centre and opacity, quaternion w x y z, standard deviations, colour
uniform mat3 u_rotation;          // world to camera, OpenCV axes: x right, y down, z forward
uniform vec3 u_translation;
uniform vec2 u_size;              // pixels of this cell
uniform float u_focal;            // pixels
uniform float u_near;
uniform float u_dilation;         // variance in square pixels that the splats were trained with
uniform float u_lowpass;          // and the least one, that keeps the smallest splats from flickering

layout(location = 0) in uint a_splat;

out vec2 v_offset;      // from the centre, in standard deviations
flat out vec4 v_color;  // sRGB and opacity

const float ALPHA_THRESHOLD = 1.0 / 255.0;
const float JACOBIAN_MARGIN = 0.3;
const float ANTIALIAS_FLOOR = 0.005;
const int SPLATS_PER_ROW = 512;

vec4 texel(int splat, int field) {
  return texelFetch(u_splats, ivec2(splat % SPLATS_PER_ROW * 4 + field, splat / SPLATS_PER_ROW), 0);
}

mat3 rotationOf(vec4 q) { // q = (w, x, y, z), unit length; columns as GLSL wants them
  float w = q.x, x = q.y, y = q.z, z = q.w;
  return mat3(
    1.0 - 2.0 * (y * y + z * z), 2.0 * (x * y + w * z), 2.0 * (x * z - w * y),
    2.0 * (x * y - w * z), 1.0 - 2.0 * (x * x + z * z), 2.0 * (y * z + w * x),
    2.0 * (x * z + w * y), 2.0 * (y * z - w * x), 1.0 - 2.0 * (x * x + y * y));
}

void main() {
  gl_Position = vec4(0.0, 0.0, 2.0, 1.0); // behind the far plane: what returns early is not drawn
  int splat = int(a_splat);
  vec4 center = texel(splat, 0);
  vec3 point = u_rotation * center.xyz + u_translation;
  if (point.z < u_near) return;

  // Two rows of the Jacobian, taken where the linearisation still holds, times the ellipsoid's axes.
  vec2 slope = u_size / (2.0 * u_focal) * (1.0 + JACOBIAN_MARGIN);
  vec2 uv = clamp(point.xy / point.z, -slope, slope);
  float scale = u_focal / point.z;
  mat3 axes = u_rotation * rotationOf(texel(splat, 1));
  vec3 deviations = texel(splat, 2).xyz;
  vec3 rowX = scale * (vec3(axes[0].x, axes[1].x, axes[2].x) - uv.x * vec3(axes[0].z, axes[1].z, axes[2].z)) * deviations;
  vec3 rowY = scale * (vec3(axes[0].y, axes[1].y, axes[2].y) - uv.y * vec3(axes[0].z, axes[1].z, axes[2].z)) * deviations;

  // What the low-pass adds to the dilation of the training dims the splat by as much as it grows (Mip-Splatting, eq. 9).
  float xx = dot(rowX, rowX), xy = dot(rowX, rowY), yy = dot(rowY, rowY);
  vec3 area = cross(rowX, rowY); // Lagrange's identity: no cancellation for needles
  float sharp = dot(area, area);
  float added = max(u_dilation, u_lowpass);
  float det = sharp + added * (xx + yy) + added * added;
  float trained = sharp + u_dilation * (xx + yy) + u_dilation * u_dilation;
  xx += added;
  yy += added;
  if (!(det > 0.0)) return;
  float opacity = center.w * sqrt(max(trained / det, ANTIALIAS_FLOOR * ANTIALIAS_FLOOR));
  if (opacity < ALPHA_THRESHOLD) return;

  // The ellipse where opacity * exp(-sigma) reaches the threshold, along its own axes.
  float middle = 0.5 * (xx + yy);
  float spread = length(vec2(0.5 * (xx - yy), xy));
  float longer = middle + spread, shorter = det / longer;
  vec2 along = xx >= yy ? vec2(longer - yy, xy) : vec2(xy, longer - xx);
  along = spread > 0.0 ? normalize(along) : vec2(1.0, 0.0);
  float reach = sqrt(2.0 * log(opacity / ALPHA_THRESHOLD)) * 1.01 + 0.01;

  vec2 corner = vec2(gl_VertexID & 1, gl_VertexID >> 1) * 2.0 - 1.0;
  v_offset = corner * reach;
  v_color = vec4(texel(splat, 3).rgb, opacity);
  vec2 pixels = v_offset.x * sqrt(longer) * along + v_offset.y * sqrt(shorter) * vec2(-along.y, along.x);
  vec2 position = u_focal * point.xy / point.z + pixels; // from the middle of the cell, y down
  gl_Position = vec4(2.0 * position.x / u_size.x, -2.0 * position.y / u_size.y, 0.0, 1.0);
}
