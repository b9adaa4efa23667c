// What the stages share: sizes derived from the parameters, and where each array lies in the caller's memory.
#pragma once

#include "../params.h"
#include "pool.h"
#include "shuffles.h"

namespace RZ_NAMESPACE {

// A block of pixels fills one vector: 4 wide, as high as the lanes allow.
constexpr int BLOCK_WIDTH = 4;
constexpr int BLOCK_HEIGHT = LANES / BLOCK_WIDTH;
constexpr int BLOCK_COLUMNS = TILE_SIZE / BLOCK_WIDTH;
constexpr int BLOCK_ROWS = TILE_SIZE / BLOCK_HEIGHT;
constexpr int BLOCKS = BLOCK_COLUMNS * BLOCK_ROWS;
constexpr int BLOCK_GROUPS = BLOCKS / LANES;
static_assert(LANES % BLOCK_COLUMNS == 0, "a group is whole rows of blocks");

// One bit per block of a tile.
#if RZ_LANES == 16
typedef uint16_t BlockMask;
#elif RZ_LANES == 8
typedef uint32_t BlockMask;
#else
typedef uint64_t BlockMask;
#endif

constexpr double LOG2_E = 1.4426950408889634;

// Fields of a record, a cache line per Gaussian and view. The conic is scaled so that a Gaussian falls off as
// 2^-(dx * (A * dx + B * dy) + C * dy * dy). Those that find_touching needs stand first.
enum Field {
    PIXEL_X,
    PIXEL_Y,
    CONIC_A,
    CONIC_B,
    CONIC_C,
    REACH,     // the exponent beyond which alpha falls below its threshold
    EXTENT_X,  // half width and height of the ellipse outside of which alpha is below its threshold
    OPACITY,
    EXTENT_Y,
    COLOR,              // 3 channels, where the image has 3
    DEPTH = COLOR + 3,  // beside the colors, as one more channel
    SHEAR,              // per pixel of dy, the middle of the ellipse's row moves by this many pixels in x
    CHORD,              // half a row's length is CHORD * sqrt(EXTENT_Y^2 - dy^2)
    RADIUS,             // inria: half the side of the square in whose tiles it may be drawn
};
static_assert(RADIUS < RZ_RECORD_FLOATS, "a record is a cache line");

// An entry of a tile's list. A slot is the place of a (Gaussian, tile) pair in Gaussian order. The Gaussian stands here
// and not in an array by slot: that load would miss the cache for each entry of a sorted list.
struct Entry {
    uint32_t key;  // bits of the depth
    uint32_t gaussian;
    uint32_t slot;
};

// The tiles that a Gaussian meets, where they lie in few rows: kept from counting to scattering.
struct Footprint {
    static constexpr int ROWS = 3;
    uint16_t row;   // first
    uint16_t rows;  // more than ROWS: the tiles must be found anew
    struct {
        uint16_t first, count;
    } spans[ROWS];
};

struct ChunkTotals {
    int64_t instances;
    int64_t drawn;
    int64_t nonfinite;
};

// Moments of one instance, in front of the gradients of its channels.
enum Moment { SUM, SUM_X, SUM_Y, SUM_XX, SUM_XY, SUM_YY, MOMENTS };

// The last two floats of an instance's record hold the stamp of the pass that wrote it. Instances without a pixel write
// none: their slots hold what an earlier pass left, with another stamp, or what anybody did, of any 64 bits.
constexpr int STAMP_FLOATS = 2;

// Records that a Gaussian's gathering reads at once, from its first slot on, however many of them are its own.
constexpr int GATHERED = 4;

struct Frame {
    RzParams* p;
    int64_t images;      // batch * views
    int64_t pixels;      // of an image
    int32_t tiles_x, tiles_y;
    int64_t tiles;       // of an image
    int64_t count_stride;  // tiles, and what count_tiles needs beyond them
    int64_t chunks;      // of a scene's Gaussians; fixed by their number alone, so that sums have one order
    int64_t chunk_size;  // multiple of LANES
    int32_t blended;     // channels that are blended: of the image, and depth
    int32_t gradient_stride;
    bool packed_colors;  // 3 channels, stored in the records

    // view memory
    float* records;         // [images, N, 16]
    uint32_t* offsets;      // [images, N] first slot of a Gaussian
    uint32_t* counts;       // [images, N] tiles it meets
    Footprint* footprints;  // [images, N]
    uint32_t* tile_counts;  // [images, chunks, count_stride] then the place of the chunk's next entry
    uint32_t* tile_starts;  // [images * tiles + 1]
    uint32_t* tile_ends;    // [images * tiles] after blending for a backward pass: of the entries that changed a pixel
    ChunkTotals* totals;    // [images, chunks]
    uint32_t* chunk_slots;  // [images, chunks] first slot of a chunk

    // instance memory
    Entry* entries;
    BlockMask* masks;      // of the entries that changed a pixel: which blocks
    char* scratch;         // of each worker
    int64_t scratch_bytes;

    // gradient memory
    float* gradients;       // [slots of a group of scenes + GATHERED, gradient_stride]
    uint64_t stamp;         // of the group's records
    float* no_gradient;     // a record of zeros
    int64_t first_scene;    // of the group whose gradients are computed
    int64_t first_slot;
    float* camera_partial;  // [batch, chunks, views, RZ_CAMERA_FLOATS]
    float* background_partial;  // [images, tiles, channels]
    char* gradient_scratch;
    int64_t gradient_scratch_bytes;
};

struct Arena {
    char* base;
    int64_t used;
    template <class T>
    RZ_FN T* take(int64_t count) {
        T* out = base ? (T*)(base + used) : nullptr;
        used += (count * (int64_t)sizeof(T) + 63) / 64 * 64;
        return out;
    }
};

RZ_FN int64_t round_up(int64_t value, int64_t unit) { return (value + unit - 1) / unit * unit; }

RZ_FN int64_t lay_out_views(Frame& f, void* memory) {
    Arena arena{(char*)memory, 0};
    const int64_t pairs = f.images * f.p->gaussians;
    f.records = arena.take<float>(pairs * RZ_RECORD_FLOATS);
    f.offsets = arena.take<uint32_t>(pairs);
    f.counts = arena.take<uint32_t>(pairs);
    f.footprints = arena.take<Footprint>(pairs);
    f.tile_counts = arena.take<uint32_t>(f.images * f.chunks * f.count_stride);
    f.tile_starts = arena.take<uint32_t>(f.images * f.tiles + 1);
    f.tile_ends = arena.take<uint32_t>(f.images * f.tiles);
    f.totals = arena.take<ChunkTotals>(f.images * f.chunks);
    f.chunk_slots = arena.take<uint32_t>(f.images * f.chunks);
    return arena.used;
}

RZ_FN int64_t lay_out_instances(Frame& f, void* memory) {
    Arena arena{(char*)memory, 0};
    const int64_t n = f.p->instances;
    f.entries = arena.take<Entry>(n);
    f.masks = arena.take<BlockMask>(f.p->forward_only ? 0 : n);
    const int64_t state = f.packed_colors ? 0 : (BLOCKS + 1) * f.blended * (int64_t)sizeof(VFloat);
    const int64_t sorting = f.p->longest * (int64_t)sizeof(Entry);
    f.scratch_bytes = round_up(state > sorting ? state : sorting, 64);
    f.scratch = arena.take<char>(f.scratch_bytes * f.p->threads);
    return arena.used;
}

// First slot of a scene, known once instances are placed.
RZ_FN int64_t scene_slot(const Frame& f, int64_t scene) {
    if (f.p->instances == 0) return 0;
    return scene < f.p->batch ? f.chunk_slots[scene * f.p->views * f.chunks] : f.p->instances;
}

// Scenes whose gradients are computed together: from `first` to before the result. Together they fill the threads,
// apart they use the same memory again.
RZ_FN int64_t group_end(const Frame& f, int64_t first) {
    constexpr int64_t SLOTS = 1 << 20;
    int64_t end = first + 1;
    while (end < f.p->batch && scene_slot(f, end + 1) - scene_slot(f, first) <= SLOTS) ++end;
    return end;
}

RZ_FN int64_t most_group_slots(const Frame& f) {
    int64_t most = 0;
    for (int64_t first = 0; first < f.p->batch;) {
        const int64_t end = group_end(f, first), slots = scene_slot(f, end) - scene_slot(f, first);
        most = slots > most ? slots : most;
        first = end;
    }
    return most;
}

RZ_FN int64_t lay_out_gradients(Frame& f, void* memory) {
    Arena arena{(char*)memory, 0};
    f.gradients = arena.take<float>((most_group_slots(f) + GATHERED) * f.gradient_stride);
    f.no_gradient = arena.take<float>(f.gradient_stride);
    f.camera_partial = arena.take<float>(f.p->batch * f.chunks * f.p->views * RZ_CAMERA_FLOATS);
    f.background_partial = arena.take<float>(f.images * f.tiles * f.p->channels);
    const int64_t state = f.packed_colors ? 0 : (BLOCKS + 2) * f.blended * (int64_t)sizeof(VFloat);
    const int64_t cameras = f.p->views * RZ_CAMERA_FLOATS * (int64_t)sizeof(VFloat);
    f.gradient_scratch_bytes = round_up(state > cameras ? state : cameras, 64);
    f.gradient_scratch = arena.take<char>(f.gradient_scratch_bytes * f.p->threads);
    return arena.used;
}

RZ_FN float* gradient_record(const Frame& f, int64_t slot) {
    return f.gradients + (slot - f.first_slot) * f.gradient_stride;
}

RZ_FN Frame make_frame(RzParams* p) {
    Frame f{};
    f.p = p;
    f.images = p->batch * p->views;
    f.pixels = (int64_t)p->width * p->height;
    f.tiles_x = (p->width + TILE_SIZE - 1) / TILE_SIZE;
    f.tiles_y = (p->height + TILE_SIZE - 1) / TILE_SIZE;
    f.tiles = (int64_t)f.tiles_x * f.tiles_y;
    f.count_stride = f.tiles + 1 + LANES;
    // Few enough chunks that their tile counts stay small, enough of them to keep a dozen threads busy.
    const int64_t size = round_up((p->gaussians + 63) / 64, 16);
    f.chunk_size = size > 512 ? size : 512;
    f.chunks = (p->gaussians + f.chunk_size - 1) / f.chunk_size;
    f.packed_colors = p->channels == 3;
    f.blended = (int32_t)p->channels + (p->depth ? 1 : 0);
    f.gradient_stride = (int32_t)round_up(MOMENTS + f.blended + STAMP_FLOATS, LANES);
    lay_out_views(f, p->view_memory);
    lay_out_instances(f, p->instance_memory);
    return f;
}

}  // namespace RZ_NAMESPACE
