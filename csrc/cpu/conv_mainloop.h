// The micro-kernel: a tile of positions x output channels held in registers over the whole gemm_k.
#pragma once
#include "../params.h"
#include "vec.h"

namespace fastconv {
namespace {

#if defined(__AVX512F__)
constexpr int kChannelBlock = 32, kTileRows = 12;  // 24 accumulators, 12 row pointers
#elif defined(__AVX2__)
constexpr int kChannelBlock = 16, kTileRows = 6;
#else
constexpr int kChannelBlock = 16, kTileRows = 2;
#endif

inline Float multiply_add(Float a, Float b, Float c) {
#if defined(__AVX512F__)
  return _mm512_fmadd_ps(a, b, c);
#elif defined(__AVX2__)
  return _mm256_fmadd_ps(a, b, c);
#else
  return a * b + c;
#endif
}

// tile [kRows, kChannelBlock] = windows at slab + offset[row], times panel [gemm_k, kChannelBlock].
template <int kRows, int kVectors>
void multiply_tile(const ConvPlan& plan, const float* slab, const int64_t* offset,
                   const float* panel, float* tile) {
  Float acc[kRows][kVectors] = {};
  const float* x[kRows];
  for (int i = 0; i < kRows; ++i) x[i] = slab + offset[i];
  int64_t at = 0;
  for (int64_t r = 0; r < plan.runs; ++r) {
    for (int i = 0; i < kRows; ++i) x[i] += plan.run[r] - at;
    at = plan.run[r];
    for (int64_t c = 0; c < plan.run_length; ++c, panel += kChannelBlock) {
      Float w[kVectors];
      for (int v = 0; v < kVectors; ++v) w[v] = load<Float>(panel + v * kWidth);
      for (int i = 0; i < kRows; ++i) {
        const Float value = splat(x[i][c]);
        for (int v = 0; v < kVectors; ++v) acc[i][v] = multiply_add(value, w[v], acc[i][v]);
      }
    }
  }
  for (int i = 0; i < kRows; ++i)
    for (int v = 0; v < kVectors; ++v) store(tile + i * kChannelBlock + v * kWidth, acc[i][v]);
}

template <int kVectors>
void multiply_rows(int rows, const ConvPlan& plan, const float* slab, const int64_t* offset,
                   const float* panel, float* tile) {
  static_assert(kTileRows <= 12);
  switch (rows) {
#define FASTCONV_ROWS(n)                                                                       \
  case n:                                                                                      \
    if constexpr (n <= kTileRows) multiply_tile<n, kVectors>(plan, slab, offset, panel, tile); \
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
#undef FASTCONV_ROWS
  }
}

}  // namespace
}  // namespace fastconv
