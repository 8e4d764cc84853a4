// The fastest read of memory that this instruction set has: what bandwidth means in benchmarks.
#pragma once
#include "vec.h"

namespace fastconv {
namespace {

inline int32_t stream_read(const float* x, int64_t n) {
  constexpr int kChains = 8;
  Int chain[kChains] = {};
  int64_t i = 0;
  for (; i + kChains * kWidth <= n; i += kChains * kWidth)
    for (int j = 0; j < kChains; ++j) chain[j] ^= load<Int>(x + i + j * kWidth);
  for (int j = 1; j < kChains; ++j) chain[0] ^= chain[j];
  int32_t all = 0;
  for (int lane = 0; lane < kWidth; ++lane) all ^= chain[0][lane];
  for (; i < n; ++i) {
    int32_t bits;
    __builtin_memcpy(&bits, x + i, 4);
    all ^= bits;
  }
  return all;
}

}  // namespace
}  // namespace fastconv
