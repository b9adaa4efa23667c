// First stage: every Gaussian of every view becomes a record, and is counted at the tiles it meets.
#pragma once

#include "binning.h"
#include "gaussians.h"

namespace RZ_NAMESPACE {

// Colors of one view from spherical harmonics; rgb before the clamp at 0 and the direction they depend on.
struct ViewColor {
    VFloat direction[3];
    VFloat inverse_length;
    VFloat values[MAX_COEFFICIENTS];
};

RZ_FN void view_color(const RzParams& p, const Group& g, const Camera<float>& camera, const VFloat* coefficients,
                      ViewColor& view, VFloat rgb[3]) {
    view_direction(g.mean, camera, view.direction, view.inverse_length);
    harmonics(p.sh_degree, view.direction, view.values);
    for (int c = 0; c < 3; ++c) rgb[c] = VFloat((float)SH_OFFSET);
    for (int k = 0; k < sh_count(p); ++k)
        for (int c = 0; c < 3; ++c) rgb[c] += coefficients[3 * k + c] * view.values[k];
}

RZ_FN void fill_record(const RzParams& p, const Projection<VFloat>& s, VFloat opacity,
                       VFloat fields[RZ_RECORD_FLOATS]) {
    // ln(opacity / threshold) >= half the quadratic form is where a Gaussian is seen.
    const VFloat reach = log2_positive(maximum(opacity * (float)(1.0 / ALPHA_THRESHOLD), VFloat(1.0f)));
    const VFloat squared = reach * (float)(2.0 / LOG2_E);
    fields[PIXEL_X] = s.pixel_x;
    fields[PIXEL_Y] = s.pixel_y;
    fields[CONIC_A] = s.conic_a * (float)(0.5 * LOG2_E);
    fields[CONIC_B] = s.conic_b * (float)LOG2_E;
    fields[CONIC_C] = s.conic_c * (float)(0.5 * LOG2_E);
    fields[OPACITY] = opacity;
    fields[REACH] = reach;
    fields[EXTENT_X] = square_root(squared * s.cov_a);
    fields[EXTENT_Y] = square_root(squared * s.cov_c);
    fields[DEPTH] = s.view[2];
    fields[SHEAR] = s.cov_b / s.cov_c;
    fields[CHORD] = square_root(s.determinant) / s.cov_c;
    fields[RADIUS] = p.inria ? square_radius(s) : VFloat(0.0f);
}

// Lanes that are drawn; dropped gets those that NaN or infinity forbids.
RZ_FN VMask drawn_lanes(const RzParams& p, VMask usable, const Projection<VFloat>& s, VFloat opacity,
                        VMask& dropped) {
    const VFloat zero = 0.0f, z = s.view[2];
    const VMask outside = (z < VFloat(p.near_plane)) | (z > VFloat(p.far_plane));
    const VFloat check = zero * s.pixel_x + zero * s.pixel_y + zero * s.conic_a + zero * s.conic_b +
                         zero * s.conic_c + zero * s.cov_a + zero * s.cov_c + zero * s.determinant +
                         zero * opacity;
    const VMask finite = (check == zero) & (zero * z == zero);
    // A NaN in place of z lies neither inside nor outside and counts as dropped.
    const VMask candidate = and_not(usable, outside);
    dropped = and_not(candidate, finite | (s.determinant <= zero));
    return candidate & finite & (s.determinant > zero) & (opacity >= VFloat((float)ALPHA_THRESHOLD));
}

RZ_FN void project_group(const Frame& f, int64_t image, const Group& g, VMask usable, const Camera<float>& camera,
                         const VFloat* colors, uint32_t* tile_counts, ChunkTotals& totals) {
    const RzParams& p = *f.p;
    Projection<VFloat> s;
    project(g.mean, g.axes, camera, p.eps2d, p.antialiased != 0, s);
    const VFloat opacity = g.opacity * s.compensation;
    VMask dropped;
    const uint32_t lanes = (uint32_t)((1ull << g.valid) - 1);
    const uint32_t drawn = bits(drawn_lanes(p, usable, s, opacity, dropped)) & lanes;
    totals.nonfinite += __builtin_popcount((~bits(usable) | bits(dropped)) & lanes);
    const int64_t pair = image * p.gaussians + g.first;
    if (!drawn) {
        for (int lane = 0; lane < g.valid; ++lane) f.counts[pair + lane] = 0;
        return;
    }

    VFloat fields[RZ_RECORD_FLOATS];
    fill_record(p, s, opacity, fields);
    for (int c = 0; c < 3; ++c) fields[COLOR + c] = VFloat(0.0f);
    if (p.sh_coefficients > 0) {
        ViewColor view;
        view_color(p, g, camera, colors, view, fields + COLOR);
        for (int c = 0; c < 3; ++c) fields[COLOR + c] = maximum(fields[COLOR + c], VFloat(0.0f));
    } else if (f.packed_colors) {
        for (int c = 0; c < 3; ++c) fields[COLOR + c] = colors[c];
    }
    float* records = f.records + pair * RZ_RECORD_FLOATS;
    store_columns(fields, g.valid, records);
    Footprints found;
    find_footprints(f, fields, from_bits(drawn), found);
    store_footprints(found, g.valid, f.footprints + pair);
    count_tiles(f, found, records, g.valid, f.counts + pair, tile_counts);
    // Until its slots are given out, a Gaussian's offset holds its depth: scattering need not read the record.
    store_rows<1>((float*)f.offsets + pair, 1, g.valid, fields + DEPTH);
    for (int lane = 0; lane < g.valid; ++lane) {
        totals.instances += f.counts[pair + lane];
        totals.drawn += f.counts[pair + lane] > 0;
    }
}

RZ_FN void project_chunk(const Frame& f, int64_t task) {
    const RzParams& p = *f.p;
    const int64_t image = task / f.chunks, scene = image / p.views;
    const int64_t first = task % f.chunks * f.chunk_size;
    const int64_t end = first + f.chunk_size < p.gaussians ? first + f.chunk_size : p.gaussians;
    const Camera<float> camera = camera_of(p, image);
    uint32_t* tile_counts = f.tile_counts + task * f.count_stride;
    __builtin_memset(tile_counts, 0, (size_t)f.count_stride * sizeof(uint32_t));
    ChunkTotals totals{0, 0, 0};
    VFloat colors[3 * MAX_COEFFICIENTS];
    for (int64_t i = first; i < end; i += LANES) {
        const int valid = end - i < LANES ? (int)(end - i) : LANES;
        const Group g = load_group(p, scene, i, valid);
        const int64_t row = scene * p.gaussians + i;
        VMask usable = g.usable;
        if (p.sh_coefficients > 0) {
            load_harmonics(p, row, valid, colors);
            usable = usable & finite_colors(p, row, valid);
        } else if (f.packed_colors) {
            load_rows<3>(p.colors + row * 3, 3, valid, colors);
            const VFloat zero = 0.0f;
            usable = usable & (zero * colors[0] + zero * colors[1] + zero * colors[2] == zero);
        } else {
            usable = usable & finite_colors(p, row, valid);
        }
        project_group(f, image, g, usable, camera, colors, tile_counts, totals);
    }
    uint32_t count = 0;
    for (int64_t tile = 0; tile < f.tiles; ++tile) tile_counts[tile] = count += tile_counts[tile];
    f.totals[task] = totals;
}

}  // namespace RZ_NAMESPACE
