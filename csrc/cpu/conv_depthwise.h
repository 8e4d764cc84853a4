// Depthwise convolution: 16 channels in the lanes, one slab [planes, rows, columns, 16] each.
#pragma once
#include "conv_mainloop.h"
#include "reduce_block.h"
#include "conv_pack.h"

namespace fastconv {
namespace {

// tile [kRows, kChannelBlock], 16 channels of it = windows at slab + offset[row], tap by tap.
template <int kRows>
void multiply_taps(const ConvPlan& plan, const float* slab, const int64_t* offset,
                   const float* panel, float* tile) {
  for (int part = 0; part < kLanes; part += kWidth) {
    Float acc[kRows] = {};
    const float* x[kRows];
    for (int i = 0; i < kRows; ++i) x[i] = slab + offset[i] + part;
    for (int64_t r = 0; r < plan.runs; ++r) {
      const Float w = load<Float>(panel + r * kLanes + part);
      const int64_t at = plan.run[r];
      for (int i = 0; i < kRows; ++i) acc[i] = multiply_add(load<Float>(x[i] + at), w, acc[i]);
    }
    for (int i = 0; i < kRows; ++i) store(tile + i * kChannelBlock + part, acc[i]);
  }
}

inline void multiply_depthwise(int rows, const ConvPlan& plan, const float* slab,
                               const int64_t* offset, const float* panel, float* tile) {
  switch (rows) {
#define FASTCONV_ROWS(n) \
  case n: return multiply_taps<n>(plan, slab, offset, panel, tile);
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

// [taps, 16] of channel block `block`, zeros after the last channel.
template <Dtype kDtype>
void pack_depthwise_panel(const ConvReduceParams& p, int64_t block, float* panel) {
  using E = Element<kDtype>;
  const int64_t taps = p.kernel[0] * p.kernel[1] * p.kernel[2];
  const auto* weight = static_cast<const typename E::Raw*>(p.weight);
  for (int64_t tap = 0; tap < taps; ++tap)
    for (int64_t lane = 0; lane < kLanes; ++lane) {
      const int64_t channel = block * kLanes + lane;
      panel[tap * kLanes + lane] =
          channel < p.groups ? E::widen_one(weight + channel * taps + tap) : 0.0f;
    }
}

}  // namespace
}  // namespace fastconv
