// Second stage of the gradient: each Gaussian gathers its instances' records in slot order and passes them on to
// its parameters, view after view, so that every output is written once and in one order.
#pragma once

#include "projection.h"

namespace RZ_NAMESPACE {

RZ_FN bool has_stamp(const Frame& f, const float* record, int floats) {
    uint64_t stamp;
    __builtin_memcpy(&stamp, record + floats - STAMP_FLOATS, sizeof(stamp));
    return stamp == f.stamp;
}

// Adds up a Gaussian's records, of `known` vectors or any number; false where no pixel saw it. Most Gaussians have
// up to four records: adding zeros costs less than guessing wrong which of them exist.
template <int known>
RZ_FN bool gather_instances(const Frame& f, int64_t pair, VFloat* sums) {
    const int vectors = known > 0 ? known : f.gradient_stride / LANES;
    const uint32_t first = f.offsets[pair], count = f.counts[pair];
    const float* records = gradient_record(f, first);
    const int stride = vectors * LANES;
    bool seen = false;
    constexpr int AHEAD = 24;  // slots; as many as two or three groups have
    for (int i = 0; i < 3; ++i) __builtin_prefetch(records + (AHEAD + i) * stride);
    for (int k = 0; k < vectors; ++k) sums[k] = VFloat(0.0f);
    for (uint32_t i = 0; i < GATHERED; ++i) {
        const bool written = (i < count) & has_stamp(f, records + i * stride, stride);
        const float* record = written ? records + i * stride : f.no_gradient;
        seen |= written;
        for (int k = 0; k < vectors; ++k) sums[k] += load(record + k * LANES);
    }
    for (uint32_t i = GATHERED; i < count; ++i) {
        if (!has_stamp(f, records + i * stride, stride)) continue;
        seen = true;
        for (int k = 0; k < vectors; ++k) sums[k] += load(records + i * stride + k * LANES);
    }
    return seen;
}

// Totals of a group over the views.
struct GroupGradient {
    VFloat mean[3];
    VFloat axes[9];
    VFloat opacity;
    VFloat colors[3 * MAX_COEFFICIENTS];
};

// Sums over slots of one view: moments and up to 4 channels, a lane per Gaussian. Where the image has another
// number of channels their gradients are added to the output here.
RZ_FN uint32_t gather_group(const Frame& f, int64_t image, const Group& g, VFloat (&fields)[MOMENTS + 4]) {
    const RzParams& p = *f.p;
    constexpr int VECTORS = (MOMENTS + 4 + STAMP_FLOATS + LANES - 1) / LANES;
    VFloat sums[LANES][VECTORS];
    const float* rows[LANES];
    uint32_t seen = 0;
    VFloat* room = nullptr;
    if (!f.packed_colors) {
        const uintptr_t memory = (uintptr_t)__builtin_alloca(f.gradient_stride * sizeof(float) + sizeof(VFloat));
        room = (VFloat*)(memory / sizeof(VFloat) * sizeof(VFloat) + sizeof(VFloat));
    }
    for (int lane = 0; lane < LANES; ++lane) {
        rows[lane] = (const float*)sums[lane];
        const int64_t pair = image * p.gaussians + g.first + lane;
        if (f.packed_colors && lane < g.valid) {
            seen |= (uint32_t)gather_instances<VECTORS>(f, pair, sums[lane]) << lane;
            continue;
        }
        for (int k = 0; k < VECTORS; ++k) sums[lane][k] = VFloat(0.0f);
        if (lane >= g.valid || !gather_instances<0>(f, pair, room)) continue;
        seen |= 1u << lane;
        const float* sum = (const float*)room;
        float* row = (float*)sums[lane];
        for (int k = 0; k < MOMENTS; ++k) row[k] = sum[k];
        if (p.depth) row[MOMENTS + 3] = sum[MOMENTS + p.channels];
        if (!p.v_features) continue;
        float* v = p.v_features + (image / p.views * p.gaussians + g.first + lane) * p.channels;
        for (int64_t c = 0; c < p.channels; ++c) v[c] += sum[MOMENTS + c];
    }
    if (!seen) return 0;
    load_columns(rows, fields);
    if (!p.depth) fields[MOMENTS + 3] = VFloat(0.0f);
    return seen;
}

RZ_FN void color_backward(const RzParams& p, const Group& g, const Camera<float>& camera,
                          const VFloat* coefficients, VMask seen, const VFloat v_rgb[3], ViewGradient<VFloat>& out,
                          GroupGradient& total) {
    ViewColor view;
    VFloat rgb[3], v_values[MAX_COEFFICIENTS], v_direction[3];
    view_color(p, g, camera, coefficients, view, rgb);
    for (int c = 0; c < 3; ++c) rgb[c] = select(seen & (rgb[c] > VFloat(0.0f)), v_rgb[c], VFloat(0.0f));
    const VFloat zero = 0.0f;
    for (int k = 0; k < sh_count(p); ++k) {
        v_values[k] = dot3(rgb, coefficients + 3 * k);
        const VFloat value = select(seen, view.values[k], zero);
        for (int c = 0; c < 3; ++c) total.colors[3 * k + c] += rgb[c] * value;
    }
    harmonics_backward(p.sh_degree, view.direction, v_values, v_direction);
    view_direction_backward(view.direction, view.inverse_length, v_direction, camera, out);
}

RZ_FN void view_backward(const Frame& f, int64_t image, const Group& g, const VFloat* coefficients,
                         GroupGradient& total, VFloat* v_camera) {
    const RzParams& p = *f.p;
    VFloat fields[MOMENTS + 4];
    const uint32_t seen_bits = gather_group(f, image, g, fields);
    if (!seen_bits) return;
    const VMask seen = from_bits(seen_bits);
    const VFloat zero = 0.0f;
    const Camera<float> camera = camera_of(p, image);
    Projection<VFloat> s;
    project(g.mean, g.axes, camera, p.eps2d, p.antialiased != 0, s);
    ProjectionGradient<VFloat> v;
    v.pixel_x = s.conic_a * fields[SUM_X] + s.conic_b * fields[SUM_Y];
    v.pixel_y = s.conic_b * fields[SUM_X] + s.conic_c * fields[SUM_Y];
    v.conic_a = fields[SUM_XX] * -0.5f;
    v.conic_b = -fields[SUM_XY];
    v.conic_c = fields[SUM_YY] * -0.5f;
    v.z = fields[MOMENTS + 3];
    // The moment is opacity * compensation times the gradient of that product.
    const VFloat v_opacity = fields[SUM] / g.opacity;
    v.compensation = fields[SUM] / s.compensation;
    ViewGradient<VFloat> out;
    project_backward(g.mean, g.axes, camera, p.antialiased != 0, s, v, out);
    if (p.sh_coefficients > 0)
        color_backward(p, g, camera, coefficients, seen, fields + MOMENTS, out, total);
    else if (f.packed_colors)
        for (int c = 0; c < 3; ++c) total.colors[c] += fields[MOMENTS + c];
    // Lanes that are not seen may hold NaN from dividing by their depth.
    total.opacity += select(seen, v_opacity, zero);
    for (int k = 0; k < 3; ++k) total.mean[k] += select(seen, out.mean[k], zero);
    for (int k = 0; k < 9; ++k) total.axes[k] += select(seen, out.axes[k], zero);
    if (v_camera)
        for (int k = 0; k < RZ_CAMERA_FLOATS; ++k) v_camera[k] += select(seen, out.camera[k], zero);
}

RZ_FN void write_group(const Frame& f, int64_t row, const Group& g, const GroupGradient& total) {
    const RzParams& p = *f.p;
    const VFloat zero = 0.0f;
    if (p.v_means) stream_rows<3>(p.v_means + row * 3, g.valid, total.mean);
    if (p.v_opacities) stream_rows<1>(p.v_opacities + row, g.valid, &total.opacity);
    if (p.v_scales) {
        VFloat v[3];
        for (int k = 0; k < 3; ++k)
            v[k] = select(g.usable,
                          total.axes[k] * g.rotation.matrix[k] + total.axes[3 + k] * g.rotation.matrix[3 + k] +
                              total.axes[6 + k] * g.rotation.matrix[6 + k],
                          zero);
        stream_rows<3>(p.v_scales + row * 3, g.valid, v);
    }
    if (p.v_quats) {
        VFloat v_matrix[9], v[4];
        for (int k = 0; k < 9; ++k) v_matrix[k] = total.axes[k] * g.scale[k % 3];
        rotate_backward(g.rotation, v_matrix, v, p.inria != 0);
        for (int k = 0; k < 4; ++k) v[k] = select(g.usable, v[k], zero);
        stream_rows<4>(p.v_quats + row * 4, g.valid, v);
    }
    if (!p.v_features) return;
    if (p.sh_coefficients > 0) {
        const int64_t stride = p.sh_coefficients * 3;
        for (int64_t k = 0; k < p.sh_coefficients; ++k) {
            const VFloat none[3] = {zero, zero, zero};
            store_rows<3>(p.v_features + row * stride + 3 * k, stride, g.valid,
                          k < sh_count(p) ? total.colors + 3 * k : none);
        }
    } else if (f.packed_colors) {
        stream_rows<3>(p.v_features + row * 3, g.valid, total.colors);
    }
}

RZ_FN void backward_chunk(const Frame& f, int64_t task, int worker) {
    const RzParams& p = *f.p;
    const int64_t scene = task / f.chunks, first = task % f.chunks * f.chunk_size;
    const int64_t end = first + f.chunk_size < p.gaussians ? first + f.chunk_size : p.gaussians;
    const bool with_cameras = p.v_viewmats || p.v_intrinsics;
    const bool loose_colors = p.sh_coefficients == 0 && !f.packed_colors;
    VFloat* cameras = (VFloat*)(f.gradient_scratch + worker * f.gradient_scratch_bytes);
    const VFloat zero = 0.0f;
    if (with_cameras)
        for (int64_t k = 0; k < p.views * RZ_CAMERA_FLOATS; ++k) cameras[k] = zero;
    VFloat coefficients[3 * MAX_COEFFICIENTS];
    for (int64_t i = first; i < end; i += LANES) {
        const int valid = end - i < LANES ? (int)(end - i) : LANES;
        const int64_t row = scene * p.gaussians + i;
        const Group g = load_group(p, scene, i, valid);
        if (p.sh_coefficients > 0) load_harmonics(p, row, valid, coefficients);
        GroupGradient total;
        for (int k = 0; k < 3; ++k) total.mean[k] = zero;
        for (int k = 0; k < 9; ++k) total.axes[k] = zero;
        total.opacity = zero;
        for (int k = 0; k < 3 * (p.sh_coefficients > 0 ? sh_count(p) : 1); ++k) total.colors[k] = zero;
        if (loose_colors && p.v_features)
            __builtin_memset(p.v_features + row * p.channels, 0, (size_t)(valid * p.channels) * sizeof(float));
        for (int64_t view = 0; view < p.views; ++view)
            view_backward(f, scene * p.views + view, g, coefficients, total,
                          with_cameras ? cameras + view * RZ_CAMERA_FLOATS : nullptr);
        write_group(f, row, g, total);
    }
    fence_streams();
    if (!with_cameras) return;
    float* partial = f.camera_partial + task * p.views * RZ_CAMERA_FLOATS;
    for (int64_t k = 0; k < p.views * RZ_CAMERA_FLOATS; ++k) {
        fold_all<LANES / 2, 1>(cameras + k);
        partial[k] = cameras[k][0];
    }
}

// Sums over chunks and tiles in index order, in double.
RZ_FN void reduce_image(const Frame& f, int64_t image) {
    const RzParams& p = *f.p;
    const int64_t scene = image / p.views, view = image % p.views;
    double sums[RZ_CAMERA_FLOATS] = {};
    if (p.v_viewmats || p.v_intrinsics)
        for (int64_t chunk = 0; chunk < f.chunks; ++chunk) {
            const int64_t at = ((scene * f.chunks + chunk) * p.views + view) * RZ_CAMERA_FLOATS;
            for (int k = 0; k < RZ_CAMERA_FLOATS; ++k) sums[k] += f.camera_partial[at + k];
        }
    if (p.v_viewmats) {
        float* v = p.v_viewmats + image * 16;
        for (int i = 0; i < 3; ++i) {
            for (int j = 0; j < 3; ++j) v[4 * i + j] = (float)sums[3 * i + j];
            v[4 * i + 3] = (float)sums[9 + i];
        }
        for (int j = 12; j < 16; ++j) v[j] = 0.0f;
    }
    if (p.v_intrinsics) {
        float* v = p.v_intrinsics + image * 9;
        for (int k = 0; k < 9; ++k) v[k] = 0.0f;
        v[0] = (float)sums[12];
        v[4] = (float)sums[13];
        v[2] = (float)sums[14];
        v[5] = (float)sums[15];
    }
    if (!p.v_backgrounds) return;
    for (int64_t c = 0; c < p.channels; ++c) {
        double sum = 0.0;
        for (int64_t tile = 0; tile < f.tiles; ++tile)
            sum += f.background_partial[(image * f.tiles + tile) * p.channels + c];
        p.v_backgrounds[image * p.channels + c] = (float)sum;
    }
}

}  // namespace RZ_NAMESPACE
