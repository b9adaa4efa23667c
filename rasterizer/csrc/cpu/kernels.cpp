// The core for one instruction set: CMake compiles this file once per set, each with its own RZ_NAMESPACE. Nothing
// here may have external linkage under a shared name (no std:: templates): the linker would keep one copy for all,
// possibly one that this machine cannot run.
#include "kernels.h"

#include "blend_backward.h"
#include "projection_backward.h"

namespace RZ_NAMESPACE {
namespace {

void project_task(void* frame, int64_t task, int) { project_chunk(*(Frame*)frame, task); }
void scatter_task(void* frame, int64_t task, int) { scatter_chunk(*(Frame*)frame, task); }
void backward_task(void* frame, int64_t task, int worker) {
    const Frame& f = *(Frame*)frame;
    backward_chunk(f, f.first_scene * f.chunks + task, worker);
}
void reduce_task(void* frame, int64_t task, int) { reduce_image(*(Frame*)frame, task); }

template <int known, bool training>
void blend_task(void* frame, int64_t task, int worker) {
    blend_tile<known, training>(*(Frame*)frame, task, worker);
}

template <bool training>
rz_pool::Task choose_blend(const Frame& f) {
    return !f.packed_colors ? blend_task<0, training> : f.p->depth ? blend_task<4, training> : blend_task<3, training>;
}

template <int known>
void blend_backward_task(void* frame, int64_t task, int worker) {
    const Frame& f = *(Frame*)frame;
    blend_tile_backward<known>(f, f.first_scene * f.p->views * f.tiles + task, worker);
}

int64_t view_bytes(const RzParams* params) {
    RzParams copy = *params;
    Frame f = make_frame(&copy);
    return lay_out_views(f, nullptr);
}

int64_t instance_bytes(const RzParams* params) {
    RzParams copy = *params;
    Frame f = make_frame(&copy);
    return lay_out_instances(f, nullptr);
}

int64_t gradient_bytes(const RzParams* params) {
    RzParams copy = *params;
    Frame f = make_frame(&copy);
    return lay_out_gradients(f, nullptr);
}

int plan(RzParams* p) {
    Frame f = make_frame(p);
    rz_pool::run(f.images * f.chunks, p->threads, project_task, &f);
    return place_instances(f) ? RZ_OK : RZ_ERROR_TOO_MANY;
}

int render(RzParams* p) {
    Frame f = make_frame(p);
    rz_pool::run(f.images * f.chunks, p->threads, scatter_task, &f);
    rz_pool::run(f.images * f.tiles, p->threads, p->forward_only ? choose_blend<false>(f) : choose_blend<true>(f), &f);
    return RZ_OK;
}

// A number that no other group of records in this process has: of the library's other instruction sets neither. Mixed,
// so that memory which others used is no more likely to hold it than any 64 bits.
uint64_t new_stamp() {
    static uint64_t groups = 0;
    const uint64_t number = __atomic_add_fetch(&groups, 1, __ATOMIC_RELAXED) * 64 + LANES;
    return (number ^ number >> 31) * 0x9e3779b97f4a7c15u;
}

int backward(RzParams* p) {
    Frame f = make_frame(p);
    lay_out_gradients(f, p->gradient_memory);
    const rz_pool::Task blend = !f.packed_colors ? blend_backward_task<0>
                                : p->depth       ? blend_backward_task<4>
                                                 : blend_backward_task<3>;
    for (int64_t first = 0; first < p->batch; first = group_end(f, first)) {
        const int64_t scenes = group_end(f, first) - first;
        f.first_scene = first;
        f.first_slot = scene_slot(f, first);
        f.stamp = new_stamp();
        for (int k = 0; k < f.gradient_stride; ++k) f.no_gradient[k] = 0.0f;
        rz_pool::run(scenes * p->views * f.tiles, p->threads, blend, &f);
        rz_pool::run(scenes * f.chunks, p->threads, backward_task, &f);
    }
    if (p->v_viewmats || p->v_intrinsics || p->v_backgrounds)
        for (int64_t image = 0; image < f.images; ++image) reduce_task(&f, image, 0);
    return RZ_OK;
}

void count_visits(const RzParams* params, int64_t* entries, int64_t* pixels) {
    RzParams copy = *params;
    const Frame f = make_frame(&copy);
    *entries = *pixels = 0;
    for (int64_t tile = 0; tile < f.images * f.tiles; ++tile) {
        *entries += f.tile_ends[tile] - f.tile_starts[tile];
        for (int64_t i = f.tile_starts[tile]; i < f.tile_ends[tile]; ++i)
            *pixels += __builtin_popcountll(f.masks[i]) * LANES;
    }
}

}  // namespace

extern const RzKernels kernels = {view_bytes, instance_bytes, gradient_bytes, plan, render, backward, count_visits};

}  // namespace RZ_NAMESPACE
