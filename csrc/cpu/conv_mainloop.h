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

inline Float multiply_add(Float a, Float b, Float c) {
#if defined(__AVX512F__)
  return _mm512_fmadd_ps(a, b, c);
#elif defined(__AVX2__)
  return _mm256_fmadd_ps(a, b, c);
#else
  return a * b + c;
#endif
}

// Runs of a panel: [begin, end) in each dimension of ConvPlan::taps.
struct Taps {
  Range plane, row, column;
};

// One tile: windows at slab + offset[row], runs of a panel [gemm_k, kChannelBlock], and bytes that
// later work will read, a step for every row of the panel.
struct TileInput {
  const float* slab;
  const int64_t* offset;
  const float* panel;
  Taps taps;
  bool add;  // to what the tile holds
  const char* ahead;
  int64_t ahead_step;
};

template <int kRows, int kVectors>
void multiply_tile(const ConvPlan& plan, const TileInput& in, float* tile) {
  Float acc[kRows][kVectors] = {};
  if (in.add)
    for (int i = 0; i < kRows; ++i)
      for (int v = 0; v < kVectors; ++v)
        acc[i][v] = load<Float>(tile + i * kChannelBlock + v * kWidth);
  const float* x[kRows];
  for (int i = 0; i < kRows; ++i) x[i] = in.slab + in.offset[i];
  const char* ahead = in.ahead;
  const int64_t ahead_step = in.ahead_step, length = plan.run_length;
  int64_t at = 0;
  auto multiply_run = [&](int64_t r) {
    for (int i = 0; i < kRows; ++i) x[i] += plan.run[r] - at;
    at = plan.run[r];
    const float* panel = in.panel + r * length * kChannelBlock;
    for (int64_t c = 0; c < length; ++c, panel += kChannelBlock, ahead += ahead_step) {
      Float w[kVectors];
      for (int v = 0; v < kVectors; ++v) {
        w[v] = load<Float>(panel + v * kWidth);
        if (v * kWidth % 16 == 0)  // a cache line
          __builtin_prefetch(panel + kPanelAhead * kChannelBlock + v * kWidth);
      }
      __builtin_prefetch(ahead, 0, 2);
      for (int i = 0; i < kRows; ++i) {
        const Float value = splat(x[i][c]);
        for (int v = 0; v < kVectors; ++v) acc[i][v] = multiply_add(value, w[v], acc[i][v]);
      }
    }
  };
  for (int64_t a = in.taps.plane.begin; a < in.taps.plane.end; ++a)
    for (int64_t b = in.taps.row.begin; b < in.taps.row.end; ++b)
      for (int64_t c = in.taps.column.begin; c < in.taps.column.end; ++c)
        multiply_run((a * plan.taps[1] + b) * plan.taps[2] + c);
  for (int i = 0; i < kRows; ++i)
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
