// Where threads of a warp or of a block meet.
#include "fibers.h"

namespace rz::emulation {
namespace {

// Equal for equal meetings at equal places: one compiler run keeps one copy of a file's name.
uint64_t site(Meeting meeting, std::source_location where, int width = 0) {
    const auto file = uint64_t(reinterpret_cast<uintptr_t>(where.file_name()));
    return file << 32 | uint64_t{where.line()} << 16 | uint64_t(width) << 8 | uint64_t(meeting);
}

uint32_t source_lane(Meeting kind, uint32_t lane, uint32_t parameter, uint32_t width) {
    const uint32_t first = lane & ~(width - 1), last = first + width - 1;
    if (kind == Meeting::SHUFFLE) return first + (parameter & (width - 1));
    if (kind == Meeting::SHUFFLE_XOR) return (lane ^ parameter) <= last ? lane ^ parameter : lane;
    if (kind == Meeting::SHUFFLE_UP) return lane - first >= parameter ? lane - parameter : lane;
    return last - lane >= parameter ? lane + parameter : lane;
}

inline __attribute__((always_inline)) void exchange(Warp& warp, Meeting kind, const Fiber& self, uint32_t width) {
    const uint32_t mask = warp.mask[lane_of(self)];
    for (uint32_t rest = mask; rest; rest &= rest - 1) {
        const uint32_t lane = lowest(rest);
        const uint32_t source = source_lane(kind, lane, uint32_t(warp.parameter[lane]), width);
        if (!(mask >> source & 1)) {
            fail(describe(neighbour(self, lane)) + " reads lane " + std::to_string(source) +
                 ", which is not in the mask");
        }
        warp.result[lane] = warp.value[source];
    }
}

void vote(Warp& warp, Meeting kind, uint32_t mask) {
    uint32_t ballot = 0;
    for (uint32_t rest = mask; rest; rest &= rest - 1) {
        const uint32_t lane = lowest(rest);
        ballot |= uint32_t(warp.value[lane]) << lane;
    }
    uint32_t result = ballot;
    if (kind == Meeting::ANY) result = ballot != 0;
    if (kind == Meeting::ALL) result = ballot == mask;
    for (uint32_t rest = mask; rest; rest &= rest - 1) warp.result[lowest(rest)] = result;
}

// Whether everybody named in a lane's mask waits with the same mask; somebody may still be at a smaller meeting.
bool is_complete(const Warp& warp, uint32_t mask) {
    if ((warp.waiting & mask) != mask) return false;
    uint32_t different = 0;
    for (uint32_t lane = 0; lane < LANES; ++lane) different |= mask >> lane & 1 ? warp.mask[lane] ^ mask : 0;
    return different == 0;
}

void check_sites(const Warp& warp, const Fiber& self, uint32_t mask) {
    const uint64_t expected = warp.site[lane_of(self)];
    uint64_t different = 0;
    for (uint32_t lane = 0; lane < LANES; ++lane) different |= mask >> lane & 1 ? warp.site[lane] ^ expected : 0;
    if (different == 0) return;
    uint32_t other = 0;
    while (!(mask >> other & 1) || warp.site[other] == expected) ++other;
    fail_waiting(self, neighbour(self, other));
}

void finish(Warp& warp, const Fiber& self, uint32_t width) {
    const uint32_t mask = warp.mask[lane_of(self)];
    check_sites(warp, self, mask);
    switch (self.meeting) {
        case Meeting::SHUFFLE: exchange(warp, Meeting::SHUFFLE, self, width); break;
        case Meeting::SHUFFLE_XOR: exchange(warp, Meeting::SHUFFLE_XOR, self, width); break;
        case Meeting::SHUFFLE_UP: exchange(warp, Meeting::SHUFFLE_UP, self, width); break;
        case Meeting::SHUFFLE_DOWN: exchange(warp, Meeting::SHUFFLE_DOWN, self, width); break;
        case Meeting::SYNC_WARP: break;
        default: vote(warp, self.meeting, mask);
    }
    warp.waiting &= ~mask;
    ++warp.meetings[lowest(mask)];
    const uint32_t others = mask & ~bit_of(self);
    if (others) make_runnable(number(self) / LANES, others);
}

// What can be said when a lane comes to a meeting of its warp.
void check_arrival(const Warp& warp, const Fiber& self, uint32_t mask, int width) {
    if (!(mask & bit_of(self))) fail(describe(self) + " has a mask that does not name it");
    if (width < 1 || width > int(LANES) || !std::has_single_bit(unsigned(width)))
        fail(describe(self) + " has a width that is no power of two up to 32");
    if (mask & warp.ended) fail_waiting(self, neighbour(self, lowest(mask & warp.ended)));
}

}  // namespace

uint64_t meet_warp(Meeting kind, unsigned mask, uint64_t value, int parameter, int width, std::source_location where) {
    Fiber& self = *scheduler.running;
    Warp& warp = warp_of(self);
    const uint32_t lane = lane_of(self);
    self.meeting = kind;
    self.where = where;
    warp.mask[lane] = mask;
    warp.site[lane] = site(kind, where, width);
    warp.value[lane] = value;
    warp.parameter[lane] = parameter;
    check_arrival(warp, self, mask, width);
    warp.waiting |= bit_of(self);
    // Two tokens in turn: nobody takes along what others did after this meeting, before the next.
    const uint32_t leader = lowest(mask);
    SyncToken& token = warp.tokens[leader][warp.meetings[leader] & 1];
    // The others order no memory.
    if (kind == Meeting::SYNC_WARP) release(token);
    if (is_complete(warp, mask)) {
        finish(warp, self, uint32_t(width));
        go_on(self);
    } else {
        run_others();
    }
    if (kind == Meeting::SYNC_WARP) acquire(token);
    return warp.result[lane];
}

int meet_block(Meeting kind, int predicate, std::source_location where) {
    Scheduler& s = scheduler;
    Barrier& barrier = s.barrier;
    Fiber& self = *s.running;
    if (where.line() == s.skipped_line && s.skipped_file == file_name(where.file_name())) return 0;
    self.meeting = kind;
    self.where = where;
    if (s.ended != 0) {
        uint32_t other = 0;
        while (!has_ended(s.fibers[other])) ++other;
        fail_waiting(self, s.fibers[other]);
    }
    if (barrier.arrived == 0) {
        barrier.first = &self;
    } else if (site(barrier.first->meeting, barrier.first->where) != site(kind, where)) {
        fail_waiting(self, *barrier.first);
    }
    barrier.count += predicate != 0;
    SyncToken& token = barrier.tokens[barrier.finished & 1];
    release(token);
    if (++barrier.arrived == s.threads) {
        barrier.result = kind == Meeting::SYNC_THREADS_OR    ? barrier.count != 0
                         : kind == Meeting::SYNC_THREADS_AND ? barrier.count == s.threads
                                                             : barrier.count;
        barrier.arrived = barrier.count = 0;
        ++barrier.finished;
        for (uint32_t warp = 0; warp < s.threads / LANES; ++warp) {
            make_runnable(warp, warp == number(self) / LANES ? ~bit_of(self) : ~0u);
        }
        go_on(self);
    } else {
        run_others();
    }
    acquire(token);
    return int(barrier.result);
}

}  // namespace rz::emulation
