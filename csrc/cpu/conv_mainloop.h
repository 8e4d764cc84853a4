// The micro-kernel: a tile of positions x output channels held in registers over the whole gemm_k.
#pragma once
#include "../params.h"
#include "vec.h"

namespace fastconv {
namespace {

#if defined(__AVX512F__)
constexpr int kChannelBlock = 32, kTileRows = 14;  // 28 accumulators
#elif defined(__AVX2__)
constexpr int kChannelBlock = 16, kTileRows = 6;
#else
constexpr int kChannelBlock = 16, kTileRows = 2;
#endif
constexpr int kPanelAhead = 64;  // rows to fetch: hardware stops at every page of a panel in L3

// Bytes to fetch, some at each step of other work.
struct Stretches {
  const char* next;
  int64_t step;

  template <int kLocality = 2>
  void fetch() {
    __builtin_prefetch(next, 0, kLocality);
    next += step;
  }
};

// Input that the work after this one will read: fetched into L2 bit by bit.
struct Ahead {
  const char* next;
  const char* end;
  int64_t step;  // bytes a position

  // The bytes due at `positions` more positions.
  int64_t take(int64_t positions) {
    const int64_t bytes = end - next < step * positions ? end - next : step * positions;
    next += bytes;
    return bytes;
  }

  // The same as one stretch a step; `any` is an address to fetch where nothing is due.
  Stretches spread(int64_t positions, int64_t steps, const void* any) {
    const char* from = next;
    const int64_t bytes = take(positions);
    return {bytes > 0 ? from : static_cast<const char*>(any), (bytes + steps - 1) / steps};
  }

  void fetch(int64_t positions) {
    const char* from = next;
    for (take(positions); from < next; from += 64) __builtin_prefetch(from, 0, 2);
  }
};

// Runs of a panel: [begin, end) in each dimension of ConvPlan::taps.
struct Taps {
  Range plane, row, column;
};

// max(floor, scale * x + shift), channel by channel.
struct ClampedAffine {
  const float* scale;
  const float* shift;
  float floor;
};

// One tile: windows at slab + offset[row], runs of a panel [gemm_k, kChannelBlock], and bytes that
// later work will read, a stretch for every row of the panel.
struct TileInput {
  const float* slab;
  const int64_t* offset;
  const float* panel;
  Taps taps;
  const ClampedAffine* transform;  // of the sums, or null
  Stretches ahead;
};

template <int kRows, int kVectors>
void multiply_tile(const ConvPlan& plan, const TileInput& in, float* tile) {
  Float acc[kRows][kVectors];
#pragma GCC unroll 16
  for (int i = 0; i < kRows; ++i)
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) acc[i][v] = Float{};
  const float* x[kRows];
  for (int i = 0; i < kRows; ++i) x[i] = in.slab + in.offset[i];
  Stretches ahead = in.ahead;
  const int64_t length = plan.run_length;
  auto multiply_run = [&](int64_t r) {
    const int64_t at = plan.run[r];
    const float* panel = in.panel + r * length * kChannelBlock;
    // The windows of the next run, or of a next tile in the same output row.
    const int64_t next = r + 1 < plan.runs ? plan.run[r + 1] : plan.run[0] + kRows * plan.window;
    Stretches windows{reinterpret_cast<const char*>(x[0] + next), plan.window_step};
    for (int64_t c = at; c < at + length; ++c, panel += kChannelBlock) {
      Float w[kVectors];
      for (int v = 0; v < kVectors; ++v) {
        w[v] = load<Float>(panel + v * kWidth);
        if (v * kWidth % 16 == 0)  // a cache line
          __builtin_prefetch(panel + kPanelAhead * kChannelBlock + v * kWidth);
      }
      ahead.fetch();
      windows.fetch<3>();
#pragma GCC unroll 16
      for (int i = 0; i < kRows; ++i) {
        const Float value = splat(x[i][c]);
#pragma GCC unroll 2
        for (int v = 0; v < kVectors; ++v) acc[i][v] = multiply_add(value, w[v], acc[i][v]);
      }
    }
  };
  for (int64_t a = in.taps.plane.begin; a < in.taps.plane.end; ++a)
    for (int64_t b = in.taps.row.begin; b < in.taps.row.end; ++b)
      for (int64_t c = in.taps.column.begin; c < in.taps.column.end; ++c)
        multiply_run((a * plan.taps[1] + b) * plan.taps[2] + c);
  if (in.transform != nullptr)
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) {
      const Float a = load<Float>(in.transform->scale + v * kWidth);
      const Float b = load<Float>(in.transform->shift + v * kWidth);
      const Float floor = splat(in.transform->floor);
#pragma GCC unroll 16
      for (int i = 0; i < kRows; ++i) acc[i][v] = max(floor, multiply_add(acc[i][v], a, b));
    }
#pragma GCC unroll 16
  for (int i = 0; i < kRows; ++i)
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) store(tile + i * kChannelBlock + v * kWidth, acc[i][v]);
}

template <int kVectors>
void multiply_rows(int64_t rows, const ConvPlan& plan, const TileInput& in, float* tile) {
  static_assert(kTileRows <= 14);
  switch (rows) {
#define FASTCONV_ROWS(n)                                                      \
  case n:                                                                     \
    if constexpr (n <= kTileRows) multiply_tile<n, kVectors>(plan, in, tile); \
    return;
    FASTCONV_ROWS(1)
    FASTCONV_ROWS(2)
    FASTCONV_ROWS(3)
    FASTCONV_ROWS(4)
    FASTCONV_ROWS(5)
    FASTCONV_ROWS(6)
    FASTCONV_ROWS(7)
    FASTCONV_ROWS(8)
    FASTCONV_ROWS(9)
    FASTCONV_ROWS(10)
    FASTCONV_ROWS(11)
    FASTCONV_ROWS(12)
    FASTCONV_ROWS(13)
    FASTCONV_ROWS(14)
#undef FASTCONV_ROWS
  }
}

}  // namespace
}  // namespace fastconv
