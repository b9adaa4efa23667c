// Threads of a block of each stage: what the kernels are written for and the launcher launches. All shared memory is
// static.
#pragma once

#ifndef RZ_NAMESPACE
#define RZ_NAMESPACE rz
#endif

namespace RZ_NAMESPACE {

constexpr int PROJECT_BLOCK = 256;           // one Gaussian of a scene per thread, all its views
constexpr int EMIT_BLOCK = 256;              // one rank of an image per thread
constexpr int LIST_BLOCK = 256;              // one instance per thread
constexpr int BLEND_BLOCK = 256;             // one pixel per thread: a tile of 16 x 16, eight warps of 8 x 4
constexpr int BLEND_BACKWARD_BLOCK = 128;    // two pixels per thread: a tile, four warps of 16 x 4
constexpr int PROJECT_BACKWARD_BLOCK = 128;  // one Gaussian of a scene per thread, all its views

// Sub-tile s of the eight that a payload's mask tells apart lies at column s % 2, row s / 2 of the tile.
constexpr int SUBTILE_WIDTH = 8;
constexpr int SUBTILE_HEIGHT = 4;

}  // namespace RZ_NAMESPACE
