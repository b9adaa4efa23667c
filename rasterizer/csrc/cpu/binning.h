// Which tiles a Gaussian meets, and the lists of the tiles, without a global sort: count per (chunk, tile), prefix
// sum, scatter in index order. Ties in depth therefore keep index order under any stable sort.
#pragma once

#include "frame.h"

namespace RZ_NAMESPACE {

// Slack of an extent, so that rounding never drops a pixel which the blending stage would draw.
template <class T>
RZ_FN T slack(T extent) {
    return extent * 1e-5f + 0.01f;
}

// Where the ellipse lies, relative to its center, over the pixel centers of one row of tiles that starts at `top`.
template <class T>
RZ_FN void row_interval(T top, T half_x, T half_y, T shear, T chord, T& left, T& right) {
    const T bottom = top + (float)(TILE_SIZE - 1);
    const T widest = shear * half_y * half_y / half_x;  // dy at which the ellipse reaches furthest right
    const T low = minimum(maximum(top, -half_y), half_y), high = maximum(minimum(bottom, half_y), -half_y);
    const T dy_right = minimum(maximum(widest, low), high), dy_left = minimum(maximum(-widest, low), high);
    right = shear * dy_right + chord * square_root(maximum(half_y * half_y - dy_right * dy_right, T(0.0f)));
    left = shear * dy_left - chord * square_root(maximum(half_y * half_y - dy_left * dy_left, T(0.0f)));
}

struct Range {
    int first, last;
};

// Tiles along one axis with pixel centers in [low, high].
RZ_FN Range tile_range(float low, float high, int pixels) {
    low = low - 0.5f;
    high = high - 0.5f;
    if (!(high >= 0.0f) || !(low <= (float)(pixels - 1))) return {0, -1};
    // 0.99 instead of a true ceil errs to the side of one pixel too many.
    const int first = low > 0.0f ? (int)(low + 0.99f) : 0;
    const int last = high < (float)(pixels - 1) ? (int)high : pixels - 1;
    if (first > last) return {0, -1};
    return {first / TILE_SIZE, last / TILE_SIZE};
}

// inria: tiles along one axis that touch the square around the center, of all `tiles`. The rule is that of an
// implementation in whose coordinates pixel centers are whole numbers.
RZ_FN Range square_tiles(float center, float radius, int tiles) {
    const float low = (center - 0.5f - radius) * (1.0f / TILE_SIZE);
    const float past = (center - 0.5f + radius + (float)(TILE_SIZE - 1)) * (1.0f / TILE_SIZE);
    const float limit = (float)tiles;
    return {(int)minimum(maximum(low, 0.0f), limit), (int)minimum(maximum(past, 0.0f), limit) - 1};
}

RZ_FN Range intersect(Range a, Range b) {
    return {a.first > b.first ? a.first : b.first, a.last < b.last ? a.last : b.last};
}

// Calls visit(first, end) for each row of tiles that hold a pixel center inside the ellipse (Speedy-Splat's row
// intervals, Hanson et al. 2025, on pixel centers).
template <class Visit>
RZ_FN void visit_large(const Frame& f, const float* record, Visit visit) {
    const float x = record[PIXEL_X], y = record[PIXEL_Y];
    const float half_x = record[EXTENT_X] + slack(record[EXTENT_X]);
    const float half_y = record[EXTENT_Y] + slack(record[EXTENT_Y]);
    Range rows = tile_range(y - half_y, y + half_y, f.p->height), columns{0, f.tiles_x - 1};
    if (f.p->inria) {
        rows = intersect(rows, square_tiles(y, record[RADIUS], f.tiles_y));
        columns = square_tiles(x, record[RADIUS], f.tiles_x);
    }
    const float shear = record[SHEAR], chord = record[CHORD], extra = slack(record[EXTENT_X]);
    for (int row = rows.first; row <= rows.last; ++row) {
        float left, right;
        row_interval((float)(row * TILE_SIZE) + 0.5f - y, half_x, half_y, shear, chord, left, right);
        const Range span = intersect(tile_range(x + left - extra, x + right + extra, f.p->width), columns);
        if (span.first <= span.last) visit(row * f.tiles_x + span.first, row * f.tiles_x + span.last + 1);
    }
}

// The same for a vector of Gaussians, as far as Footprint::ROWS rows; a lane each.
struct Footprints {
    VInt row, rows;
    VInt first[Footprint::ROWS], count[Footprint::ROWS];
};

RZ_FN void tile_ranges(VFloat low, VFloat high, int pixels, VInt& first, VInt& count) {
    low = low - 0.5f;
    high = high - 0.5f;
    const VFloat last = (float)(pixels - 1), zero = 0.0f;
    const VMask meets = (high >= zero) & (low <= last);
    first = to_int(select(meets, maximum(low, zero) + 0.99f, zero));
    const VInt end = to_int(select(meets, minimum(high, last), VFloat(-1.0f)));
    constexpr int SHIFT = __builtin_ctz(TILE_SIZE);
    // An interval between two pixel centers has end < first, but both may lie in one tile.
    count = (end >> SHIFT) - (first >> SHIFT) + 1;
    count = count & (end >= first);
    first = first >> SHIFT;
}

// Cuts `count` tiles from `first` on down to those of square_tiles.
RZ_FN void cut_to_square(VFloat center, VFloat radius, int tiles, VInt& first, VInt& count) {
    const VFloat low = (center - 0.5f - radius) * (1.0f / TILE_SIZE);
    const VFloat past = (center - 0.5f + radius + (float)(TILE_SIZE - 1)) * (1.0f / TILE_SIZE);
    const VFloat zero = 0.0f, limit = (float)tiles;
    const VInt end = least_int(first + count, to_int(minimum(maximum(past, zero), limit)));
    first = greatest_int(first, to_int(minimum(maximum(low, zero), limit)));
    count = (end - first) & (end > first);
}

// No tiles for lanes that are not drawn.
RZ_FN void find_footprints(const Frame& f, const VFloat* fields, VMask drawn, Footprints& out) {
    const VFloat x = fields[PIXEL_X], y = fields[PIXEL_Y];
    const VFloat extra = slack(fields[EXTENT_X]);
    const VFloat half_x = fields[EXTENT_X] + extra, half_y = fields[EXTENT_Y] + slack(fields[EXTENT_Y]);
    tile_ranges(y - half_y, y + half_y, f.p->height, out.row, out.rows);
    if (f.p->inria) cut_to_square(y, fields[RADIUS], f.tiles_y, out.row, out.rows);
    out.rows = select_int(drawn, out.rows, VInt{});
    for (int i = 0; i < Footprint::ROWS; ++i) {
        VFloat left, right;
        const VFloat top = to_float((out.row + i) * TILE_SIZE) + 0.5f - y;
        row_interval(top, half_x, half_y, fields[SHEAR], fields[CHORD], left, right);
        tile_ranges(x + left - extra, x + right + extra, f.p->width, out.first[i], out.count[i]);
        if (f.p->inria) cut_to_square(x, fields[RADIUS], f.tiles_x, out.first[i], out.count[i]);
        out.count[i] = out.count[i] & (out.rows > i);
    }
}

RZ_FN void store_footprints(const Footprints& found, int valid, Footprint* out) {
    static_assert(sizeof(Footprint) == (1 + Footprint::ROWS) * sizeof(float));
    VFloat words[1 + Footprint::ROWS];
    words[0] = as_float(found.row | found.rows << 16);
    for (int i = 0; i < Footprint::ROWS; ++i) words[1 + i] = as_float(found.first[i] | found.count[i] << 16);
    store_rows<1 + Footprint::ROWS>((float*)out, 1 + Footprint::ROWS, valid, words);
}

// Counts Gaussians at the tiles that visit_spans will visit, by differences: one more from the first tile of a row on,
// one fewer from its end on. So the number of a row's tiles is no branch. Rows without tiles go to places that nobody
// reads, one for each lane lest one addition wait for the other. Keeps each Gaussian's number of tiles in `counts`.
RZ_FN void count_tiles(const Frame& f, const Footprints& found, const float* records, int valid, uint32_t* counts,
                       uint32_t* differences) {
    alignas(64) int32_t firsts[Footprint::ROWS][LANES], ends[Footprint::ROWS][LANES];
    const VMask large = to_float(found.rows) > VFloat((float)Footprint::ROWS);
    VInt total{};
    for (int i = 0; i < Footprint::ROWS; ++i) {
        const VInt count = select_int(large, VInt{}, found.count[i]);
        const VInt first = (found.row + i) * f.tiles_x + found.first[i], unread = lane_numbers() + (int)f.tiles + 1;
        const VInt used = select_int(to_float(count) > VFloat(0.0f), first, unread);
        store_int(firsts[i], used);
        store_int(ends[i], used + count);
        total += count;
    }
    for (int lane = 0; lane < LANES; ++lane)
        for (int i = 0; i < Footprint::ROWS; ++i) {
            ++differences[firsts[i][lane]];
            --differences[ends[i][lane]];
        }
    const VFloat number = as_float(total);
    store_rows<1>((float*)counts, 1, valid, &number);
    for (uint32_t left = bits(large); left; left &= left - 1) {
        const int lane = __builtin_ctz(left);
        visit_large(f, records + lane * RZ_RECORD_FLOATS, [&](int first, int end) {
            ++differences[first];
            --differences[end];
            counts[lane] += (uint32_t)(end - first);
        });
    }
}

template <class Visit>
RZ_FN void visit_spans(const Frame& f, const Footprint& footprint, const float* record, Visit visit) {
    if (footprint.rows > Footprint::ROWS) {
        visit_large(f, record, visit);
        return;
    }
    for (int i = 0; i < footprint.rows; ++i) {
        const int first = (footprint.row + i) * f.tiles_x + footprint.spans[i].first;
        visit(first, first + footprint.spans[i].count);
    }
}

// Turns counts into places. False when the instances do not fit 32 bits.
RZ_FN bool place_instances(Frame& f) {
    int64_t slots = 0, longest = 0, drawn = 0, nonfinite = 0;
    for (int64_t i = 0; i < f.images * f.chunks; ++i) {
        f.chunk_slots[i] = (uint32_t)slots;
        slots += f.totals[i].instances;
        drawn += f.totals[i].drawn;
        nonfinite += f.totals[i].nonfinite;
    }
    f.p->instances = slots;
    f.p->drawn = drawn;
    f.p->nonfinite = nonfinite;
    if (slots > (int64_t)UINT32_MAX) return false;
    uint32_t place = 0;
    for (int64_t image = 0; image < f.images; ++image) {
        uint32_t* counts = f.tile_counts + image * f.chunks * f.count_stride;
        // Chunk by chunk, along the rows of the table: its columns lie pages apart.
        uint32_t* next = f.tile_ends + image * f.tiles;
        for (int64_t tile = 0; tile < f.tiles; ++tile) next[tile] = 0;
        for (int64_t chunk = 0; chunk < f.chunks; ++chunk)
            for (int64_t tile = 0; tile < f.tiles; ++tile) next[tile] += counts[chunk * f.count_stride + tile];
        for (int64_t tile = 0; tile < f.tiles; ++tile) {
            const uint32_t count = next[tile];
            f.tile_starts[image * f.tiles + tile] = next[tile] = place;
            place += count;
            if (count > longest) longest = count;
        }
        for (int64_t chunk = 0; chunk < f.chunks; ++chunk)
            for (int64_t tile = 0; tile < f.tiles; ++tile) {
                const uint32_t count = counts[chunk * f.count_stride + tile];
                counts[chunk * f.count_stride + tile] = next[tile];
                next[tile] += count;
            }
    }
    f.tile_starts[f.images * f.tiles] = place;
    f.p->longest = longest;
    return true;
}

// The tiles of a run of Gaussians, one after the other. How many a Gaussian meets is anyone's guess: laid out in whole
// vectors first and given out one by one then, no branch depends on it.
struct TileRun {
    static constexpr int GAUSSIANS = 64, OWNER_SHIFT = 24;  // an image has at most 4096 x 4096 tiles
    uint32_t keys[GAUSSIANS];
    int32_t tiles[GAUSSIANS * LANES];  // above OWNER_SHIFT: the Gaussian, counted from the run's first
};

// Lays out the tiles of a Gaussian that meets at most LANES of them, in at most Footprint::ROWS rows. Lanes beyond
// their number hold anything.
RZ_FN void lay_out_tiles(const Frame& f, const Footprint& footprint, int owner, int32_t* out) {
    static_assert(Footprint::ROWS == 3);
    const auto& spans = footprint.spans;
    const int row = footprint.row * f.tiles_x + (int)((uint32_t)owner << TileRun::OWNER_SHIFT);
    const VInt place = lane_numbers();
    const int second = spans[0].count, third = second + spans[1].count;  // places where the next rows start
    VInt tile = place + (row + spans[0].first);
    tile += (place >= second) & (f.tiles_x + spans[1].first - spans[0].first - spans[0].count);
    tile += (place >= third) & (f.tiles_x + spans[2].first - spans[1].first - spans[1].count);
    store_int(out, tile);
}

RZ_FN void scatter_chunk(const Frame& f, int64_t task) {
    const int64_t image = task / f.chunks, chunk = task % f.chunks, n = f.p->gaussians;
    const int64_t first = chunk * f.chunk_size;
    const int64_t end = first + f.chunk_size < n ? first + f.chunk_size : n;
    uint32_t* places = f.tile_counts + task * f.count_stride;
    uint32_t slot = f.chunk_slots[task];
    TileRun run;
    for (int64_t start = first; start < end;) {
        int64_t i = start;
        int listed = 0;
        bool large = false;
        for (; i < end && i < start + TileRun::GAUSSIANS && !large; ++i) {
            const int64_t pair = image * n + i;
            const Footprint& footprint = f.footprints[pair];
            const uint32_t count = f.counts[pair];
            run.keys[i - start] = f.offsets[pair];
            f.offsets[pair] = slot + (uint32_t)listed;
            // Without tiles, a Gaussian may have no footprint.
            large = (count > (uint32_t)LANES) | ((footprint.rows > Footprint::ROWS) & (count > 0));
            if (large) break;
            lay_out_tiles(f, footprint, (int)(i - start), run.tiles + listed);
            listed += (int)count;
        }
        const auto give_out = [&](int tile, int64_t owner) __attribute__((always_inline)) {
            Entry* entry = f.entries + places[tile]++;
            *entry = Entry{run.keys[owner], (uint32_t)(start + owner), slot++};
            __builtin_prefetch((const char*)entry + 2 * 64, 1);  // more lists are written than the machine foresees
        };
        for (int k = 0; k < listed; ++k) {
            const uint32_t packed = (uint32_t)run.tiles[k];
            give_out((int)(packed & ((1u << TileRun::OWNER_SHIFT) - 1)), packed >> TileRun::OWNER_SHIFT);
        }
        if (large) {
            const int64_t pair = image * n + i, owner = i - start;
            visit_spans(f, f.footprints[pair], f.records + pair * RZ_RECORD_FLOATS, [&](int first_tile, int end_tile) {
                for (int tile = first_tile; tile < end_tile; ++tile) give_out(tile, owner);
            });
            ++i;
        }
        start = i;
    }
}

// Numbers of entries per digit to the places of their first; `count` a multiple of LANES.
RZ_FN void sum_before(uint32_t* places, int64_t count) {
    VInt before{};  // of all vectors so far, in every lane
    for (int64_t d = 0; d < count; d += LANES) {
        VInt sizes;
        __builtin_memcpy(&sizes, places + d, sizeof(sizes));
        const VInt sums = sums_to_lane(sizes);
        store_int((int32_t*)places + d, before + sums - sizes);
        before += last_lane(sums);
    }
}

// Stable sort by key. Depth is positive, so its bits are ordered as it is. The records lie scattered in memory: each is
// fetched to the second cache when its entry is moved first, so that the rest of the sort gives it time to arrive.
RZ_FN void sort_entries(Entry* entries, Entry* spare, int64_t count, const float* records) {
    const auto fetch = [&](const Entry& entry) __attribute__((always_inline)) {
        __builtin_prefetch(records + (int64_t)entry.gaussian * RZ_RECORD_FLOATS, 0, 2);
    };
    if (count <= 40) {
        for (int64_t i = 0; i < count; ++i) {
            fetch(entries[i]);
            const Entry moving = entries[i];
            int64_t j = i;
            for (; j > 0 && entries[j - 1].key > moving.key; --j) entries[j] = entries[j - 1];
            entries[j] = moving;
        }
        return;
    }
    uint32_t low = UINT32_MAX, high = 0;
    for (int64_t i = 0; i < count; ++i) {
        low = entries[i].key < low ? entries[i].key : low;
        high = entries[i].key > high ? entries[i].key : high;
    }
    if (low == high) return;
    // A tile's depths are close together: only the bits in which they differ from the least are sorted.
    constexpr int WIDEST = 11, LEAST = 4, PASSES = (32 + 7) / 8;
    const int used = 32 - __builtin_clz(high - low);
    const int widest = count < 512 ? 8 : WIDEST;
    const int passes = (used + widest - 1) / widest;
    const int even = (used + passes - 1) / passes, width = even > LEAST ? even : LEAST;
    const int64_t digits = (int64_t)1 << width;
    uint32_t places[(1 << 8) * PASSES > (1 << WIDEST) * 3 ? (1 << 8) * PASSES : (1 << WIDEST) * 3];
    static_assert(1 << LEAST >= LANES && (32 + WIDEST - 1) / WIDEST == 3);
    __builtin_memset(places, 0, (size_t)(passes * digits) * sizeof(uint32_t));
    const auto place_of = [&](const Entry& entry, int pass) __attribute__((always_inline)) -> uint32_t& {
        return places[pass * digits + (((entry.key - low) >> pass * width) & (digits - 1))];
    };
    for (int64_t i = 0; i < count; ++i)
        for (int pass = 0; pass < passes; ++pass) ++place_of(entries[i], pass);
    Entry *from = entries, *to = spare;
    for (int pass = 0; pass < passes; ++pass) {
        sum_before(places + pass * digits, digits);
        for (int64_t i = 0; i < count; ++i) {
            if (pass == 0) fetch(from[i]);
            to[place_of(from[i], pass)++] = from[i];
        }
        Entry* swapped = from;
        from = to;
        to = swapped;
    }
    if (from != entries) __builtin_memcpy(entries, from, (size_t)count * sizeof(Entry));
}

}  // namespace RZ_NAMESPACE
