// Another implementation to compare with: 3D Gaussian splatting as one writes it down from the papers (Zwicker et al.
// 2001; Kerbl et al. 2023), in scalar C++, a thread per row of tiles, one view. Same image formation as the rasterizer
// that is measured, nothing shared with it. The backward pass goes back to front and recovers each transmittance by
// dividing; every thread has a gradient of its own, added up at the end.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <thread>
#include <vector>

namespace {

constexpr int TILE = 16;
constexpr float LEAST_ALPHA = 1.0f / 255.0f, MOST_ALPHA = 0.99f, STOP = 1e-4f;

struct Input {
    int64_t count;
    int32_t width, height, threads;
    float near_plane, eps2d;
    const float *means, *quats, *scales, *opacities, *colors;  // [n,3] [n,4] [n,3] [n] [n,3]
    const float *viewmat, *intrinsics, *background;            // [4,4] [3,3] [3]
};

struct Splat {
    float x, y, z, a, b, c, radius_x, radius_y;
    bool drawn;
};

struct Gradient {
    float x, y, a, b, c, opacity, color[3];
};

// What the projection of one Gaussian goes through, for its gradient.
struct Trace {
    float rotation[9], unit[4], norm, view[3], u, v, w[9], row_x[3], row_y[3], cov_xx, cov_xy, cov_yy, det;
};

struct State {
    Input in;
    int tiles_x, tiles_y;
    std::vector<Splat> splats;
    std::vector<std::vector<int32_t>> lists;
    std::vector<float> left;     // final transmittance of each pixel
    std::vector<int32_t> ends;   // of each pixel: entries of its list that were looked at
};

template <class Work>
void run_rows(const State& s, Work work) {
    std::atomic<int> next{0};
    auto loop = [&](int worker) {
        for (int row; (row = next++) < s.tiles_y;) work(row, worker);
    };
    std::vector<std::thread> pool;
    for (int i = 1; i < s.in.threads; ++i) pool.emplace_back(loop, i);
    loop(0);
    for (std::thread& thread : pool) thread.join();
}

Trace trace(const Input& in, int64_t i) {
    Trace t;
    const float* q = in.quats + 4 * i;
    t.norm = std::sqrt(q[0] * q[0] + q[1] * q[1] + q[2] * q[2] + q[3] * q[3]);
    for (int k = 0; k < 4; ++k) t.unit[k] = q[k] / t.norm;
    const float w = t.unit[0], x = t.unit[1], y = t.unit[2], z = t.unit[3];
    const float rotation[9] = {1 - 2 * (y * y + z * z), 2 * (x * y - w * z),     2 * (x * z + w * y),
                               2 * (x * y + w * z),     1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
                               2 * (x * z - w * y),     2 * (y * z + w * x),     1 - 2 * (x * x + y * y)};
    std::copy(rotation, rotation + 9, t.rotation);
    const float *v = in.viewmat, *m = in.means + 3 * i, *scale = in.scales + 3 * i, *K = in.intrinsics;
    for (int r = 0; r < 3; ++r) t.view[r] = v[4 * r] * m[0] + v[4 * r + 1] * m[1] + v[4 * r + 2] * m[2] + v[4 * r + 3];
    const float margin_x = 0.15f * in.width / K[0], margin_y = 0.15f * in.height / K[4];
    t.u = std::clamp(t.view[0] / t.view[2], -K[2] / K[0] - margin_x, (in.width - K[2]) / K[0] + margin_x);
    t.v = std::clamp(t.view[1] / t.view[2], -K[5] / K[4] - margin_y, (in.height - K[5]) / K[4] + margin_y);
    for (int r = 0; r < 3; ++r)
        for (int k = 0; k < 3; ++k) {
            float sum = 0;
            for (int j = 0; j < 3; ++j) sum += v[4 * r + j] * t.rotation[3 * j + k];
            t.w[3 * r + k] = sum * scale[k];
        }
    for (int k = 0; k < 3; ++k) {
        t.row_x[k] = K[0] / t.view[2] * (t.w[k] - t.u * t.w[6 + k]);
        t.row_y[k] = K[4] / t.view[2] * (t.w[3 + k] - t.v * t.w[6 + k]);
    }
    t.cov_xx = t.cov_yy = in.eps2d;
    t.cov_xy = 0;
    for (int k = 0; k < 3; ++k) {
        t.cov_xx += t.row_x[k] * t.row_x[k];
        t.cov_xy += t.row_x[k] * t.row_y[k];
        t.cov_yy += t.row_y[k] * t.row_y[k];
    }
    t.det = t.cov_xx * t.cov_yy - t.cov_xy * t.cov_xy;
    return t;
}

void project(State& s) {
    const Input& in = s.in;
    s.splats.resize(in.count);
    for (int64_t i = 0; i < in.count; ++i) {
        const Trace t = trace(in, i);
        Splat& p = s.splats[i];
        p.z = t.view[2];
        p.x = in.intrinsics[0] * t.view[0] / p.z + in.intrinsics[2];
        p.y = in.intrinsics[4] * t.view[1] / p.z + in.intrinsics[5];
        p.a = t.cov_yy / t.det;
        p.b = -t.cov_xy / t.det;
        p.c = t.cov_xx / t.det;
        p.drawn = p.z >= in.near_plane && t.det > 0 && in.opacities[i] >= LEAST_ALPHA;
        const float reach = p.drawn ? std::sqrt(2 * std::log(in.opacities[i] / LEAST_ALPHA)) : 0;
        p.radius_x = reach * std::sqrt(t.cov_xx) + 0.01f;
        p.radius_y = reach * std::sqrt(t.cov_yy) + 0.01f;
    }
}

void bin(State& s) {
    std::vector<int32_t> order(s.in.count);
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](int32_t i, int32_t j) { return s.splats[i].z < s.splats[j].z; });
    s.lists.assign((size_t)s.tiles_x * s.tiles_y, {});
    for (int32_t i : order) {
        const Splat& p = s.splats[i];
        if (!p.drawn) continue;
        const int x0 = std::max(0, (int)std::floor((p.x - p.radius_x) / TILE));
        const int x1 = std::min(s.tiles_x - 1, (int)std::floor((p.x + p.radius_x) / TILE));
        const int y0 = std::max(0, (int)std::floor((p.y - p.radius_y) / TILE));
        const int y1 = std::min(s.tiles_y - 1, (int)std::floor((p.y + p.radius_y) / TILE));
        for (int y = y0; y <= y1; ++y)
            for (int x = x0; x <= x1; ++x) s.lists[(size_t)y * s.tiles_x + x].push_back(i);
    }
}

// Alpha before its bound, 0 below the threshold.
inline float evaluate(const Splat& p, float opacity, float dx, float dy) {
    const float power = 0.5f * (p.a * dx * dx + p.c * dy * dy) + p.b * dx * dy;
    if (power < 0) return 0;
    const float alpha = opacity * std::exp(-power);
    return alpha < LEAST_ALPHA ? 0 : alpha;
}

void blend_pixel(State& s, const std::vector<int32_t>& list, int x, int y, float* colors, float* alphas) {
    const Input& in = s.in;
    const int64_t pixel = (int64_t)y * in.width + x;
    float left = 1, sum[3] = {0, 0, 0};
    int32_t looked = 0;
    for (; looked < (int32_t)list.size(); ++looked) {
        const int32_t i = list[looked];
        const Splat& p = s.splats[i];
        const float alpha = std::min(MOST_ALPHA, evaluate(p, in.opacities[i], x + 0.5f - p.x, y + 0.5f - p.y));
        if (alpha == 0) continue;
        if (left * (1 - alpha) <= STOP) break;
        for (int c = 0; c < 3; ++c) sum[c] += left * alpha * in.colors[3 * i + c];
        left *= 1 - alpha;
    }
    s.left[pixel] = left;
    s.ends[pixel] = looked;
    alphas[pixel] = 1 - left;
    for (int c = 0; c < 3; ++c) colors[3 * pixel + c] = sum[c] + left * in.background[c];
}

void blend_pixel_backward(const State& s, const std::vector<int32_t>& list, int x, int y, const float* v_color,
                          std::vector<Gradient>& gradients) {
    const Input& in = s.in;
    const int64_t pixel = (int64_t)y * in.width + x;
    float left = s.left[pixel], behind[3];
    for (int c = 0; c < 3; ++c) behind[c] = in.background[c];
    for (int32_t k = s.ends[pixel] - 1; k >= 0; --k) {
        const int32_t i = list[k];
        const Splat& p = s.splats[i];
        const float dx = x + 0.5f - p.x, dy = y + 0.5f - p.y;
        const float raw = evaluate(p, in.opacities[i], dx, dy), alpha = std::min(MOST_ALPHA, raw);
        if (alpha == 0) continue;
        left /= 1 - alpha;
        float v_alpha = 0;
        Gradient& g = gradients[i];
        for (int c = 0; c < 3; ++c) {
            const float color = in.colors[3 * i + c];
            g.color[c] += left * alpha * v_color[c];
            v_alpha += left * (color - behind[c]) * v_color[c];
            behind[c] = alpha * color + (1 - alpha) * behind[c];
        }
        if (raw > MOST_ALPHA) continue;
        const float v_power = -raw * v_alpha;
        g.opacity += v_alpha * raw / in.opacities[i];
        g.a += 0.5f * dx * dx * v_power;
        g.b += dx * dy * v_power;
        g.c += 0.5f * dy * dy * v_power;
        g.x -= (p.a * dx + p.b * dy) * v_power;
        g.y -= (p.b * dx + p.c * dy) * v_power;
    }
}

void project_backward(const State& s, int64_t i, const Gradient& g, float* v_means, float* v_quats, float* v_scales) {
    const Input& in = s.in;
    const Trace t = trace(in, i);
    const Splat& p = s.splats[i];
    const float fx = in.intrinsics[0], fy = in.intrinsics[4], z = t.view[2];
    // Of the covariance: v_cov = -conic v_conic conic.
    const float m00 = p.a * g.a + 0.5f * p.b * g.b, m01 = 0.5f * p.a * g.b + p.b * g.c;
    const float m10 = p.b * g.a + 0.5f * p.c * g.b, m11 = 0.5f * p.b * g.b + p.c * g.c;
    const float v_xx = -(m00 * p.a + m01 * p.b), v_yy = -(m10 * p.b + m11 * p.c);
    const float v_xy = -(m00 * p.b + m01 * p.c + m10 * p.a + m11 * p.b);
    float v_w[9], v_u = 0, v_v = 0, v_z = 0;
    for (int k = 0; k < 3; ++k) {
        const float x = 2 * v_xx * t.row_x[k] + v_xy * t.row_y[k], y = 2 * v_yy * t.row_y[k] + v_xy * t.row_x[k];
        v_w[k] = fx / z * x;
        v_w[3 + k] = fy / z * y;
        v_w[6 + k] = -t.u * v_w[k] - t.v * v_w[3 + k];
        v_u -= fx / z * x * t.w[6 + k];
        v_v -= fy / z * y * t.w[6 + k];
        v_z -= (x * t.row_x[k] + y * t.row_y[k]) / z;
    }
    if (t.u != t.view[0] / z) v_u = 0;
    if (t.v != t.view[1] / z) v_v = 0;
    v_u += fx * g.x;
    v_v += fy * g.y;
    const float v_view[3] = {v_u / z, v_v / z, v_z - (v_u * t.view[0] + v_v * t.view[1]) / (z * z)};
    float r[9];  // of the rotation
    for (int j = 0; j < 3; ++j) {
        v_means[3 * i + j] = 0;
        for (int row = 0; row < 3; ++row) v_means[3 * i + j] += in.viewmat[4 * row + j] * v_view[row];
        for (int k = 0; k < 3; ++k) {
            r[3 * j + k] = 0;
            for (int row = 0; row < 3; ++row) r[3 * j + k] += in.viewmat[4 * row + j] * v_w[3 * row + k];
        }
    }
    for (int k = 0; k < 3; ++k) {
        v_scales[3 * i + k] = 0;
        for (int j = 0; j < 3; ++j) {
            v_scales[3 * i + k] += r[3 * j + k] * t.rotation[3 * j + k];
            r[3 * j + k] *= in.scales[3 * i + k];
        }
    }
    const float w = t.unit[0], x = t.unit[1], y = t.unit[2], q = t.unit[3];
    const float v[4] = {
        2 * (x * (r[7] - r[5]) + y * (r[2] - r[6]) + q * (r[3] - r[1])),
        2 * (w * (r[7] - r[5]) + y * (r[1] + r[3]) + q * (r[2] + r[6])) - 4 * x * (r[4] + r[8]),
        2 * (w * (r[2] - r[6]) + x * (r[1] + r[3]) + q * (r[5] + r[7])) - 4 * y * (r[0] + r[8]),
        2 * (w * (r[3] - r[1]) + x * (r[2] + r[6]) + y * (r[5] + r[7])) - 4 * q * (r[0] + r[4]),
    };
    const float along = v[0] * w + v[1] * x + v[2] * y + v[3] * q;
    for (int k = 0; k < 4; ++k) v_quats[4 * i + k] = (v[k] - along * t.unit[k]) / t.norm;
}

template <class Pixel>
void each_pixel(const State& s, int row, Pixel pixel) {
    for (int column = 0; column < s.tiles_x; ++column)
        for (int y = row * TILE; y < std::min((row + 1) * TILE, s.in.height); ++y)
            for (int x = column * TILE; x < std::min((column + 1) * TILE, s.in.width); ++x)
                pixel(s.lists[(size_t)row * s.tiles_x + column], x, y);
}

}  // namespace

extern "C" {

// Colors [H,W,3] and alphas [H,W]; returns what the gradient needs, to be freed.
void* plain_forward(const Input* in, float* colors, float* alphas) {
    State* s = new State{*in, (in->width + TILE - 1) / TILE, (in->height + TILE - 1) / TILE, {}, {}, {}, {}};
    s->left.resize((size_t)in->width * in->height);
    s->ends.resize(s->left.size());
    project(*s);
    bin(*s);
    run_rows(*s, [&](int row, int) {
        each_pixel(*s, row, [&](const auto& list, int x, int y) { blend_pixel(*s, list, x, y, colors, alphas); });
    });
    return s;
}

void plain_backward(const void* state, const float* v_image, float* v_means, float* v_quats, float* v_scales,
                    float* v_opacities, float* v_colors) {
    const State& s = *(const State*)state;
    std::vector<std::vector<Gradient>> own(s.in.threads, std::vector<Gradient>(s.in.count, Gradient{}));
    run_rows(s, [&](int row, int worker) {
        each_pixel(s, row, [&](const auto& list, int x, int y) {
            blend_pixel_backward(s, list, x, y, v_image + 3 * ((int64_t)y * s.in.width + x), own[worker]);
        });
    });
    for (int64_t i = 0; i < s.in.count; ++i) {
        Gradient g{};
        for (const auto& one : own) {
            const float* from = &one[i].x;
            for (int k = 0; k < 9; ++k) (&g.x)[k] += from[k];
        }
        project_backward(s, i, g, v_means, v_quats, v_scales);
        v_opacities[i] = g.opacity;
        for (int c = 0; c < 3; ++c) v_colors[3 * i + c] = g.color[c];
    }
}

void plain_free(void* state) { delete (State*)state; }

}  // extern "C"
