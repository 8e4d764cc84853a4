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

#if defined(__AVX512F__)

// kCount neighbours of one output row: every column is loaded once for all the taps it meets.
template <int kKernel, int kStride, int kCount>
void multiply_row(const ConvPlan& plan, const float* slab, const float* panel, float* tile) {
  __m512 acc[kCount] = {};
  for (int64_t r = 0; r < plan.runs; r += kKernel) {
    __m512 w[kKernel];
    for (int s = 0; s < kKernel; ++s) w[s] = _mm512_load_ps(panel + (r + s) * kLanes);
    const float* x = slab + plan.run[r];
#pragma GCC unroll 64
    for (int column = 0; column < (kCount - 1) * kStride + kKernel; ++column) {
      const __m512 value = _mm512_load_ps(x + column * kLanes);
#pragma GCC unroll 8
      for (int s = column % kStride; s < kKernel; s += kStride) {
        const int i = (column - s) / kStride;
        if (column >= s && i < kCount) acc[i] = _mm512_fmadd_ps(value, w[s], acc[i]);
      }
    }
  }
  for (int i = 0; i < kCount; ++i) _mm512_store_ps(tile + i * kChannelBlock, acc[i]);
}

// Positions [from, to) of the band, cut at the ends of rows.
template <int kKernel, int kStride>
void multiply_by_rows(const ConvReduceParams& p, const ConvPlan& plan, const float* slab,
                      int64_t from, int64_t to, const float* panel, float* tile) {
  while (from < to) {
    const int64_t row_end = from - from % p.out_size[2] + p.out_size[2];
    const int64_t left = (to < row_end ? to : row_end) - from;
    const float* x = slab + plan.offset[from];
    int64_t done = 0;
#define FASTCONV_COUNT(n)                                                       \
  for (; left - done >= n; done += n)                                           \
    multiply_row<kKernel, kStride, n>(plan, x + done * kStride * kLanes, panel, \
                                      tile + done * kChannelBlock);
    FASTCONV_COUNT(14)
    FASTCONV_COUNT(7)
    FASTCONV_COUNT(4)
    FASTCONV_COUNT(2)
    FASTCONV_COUNT(1)
#undef FASTCONV_COUNT
    from += left;
    tile += left * kChannelBlock;
  }
}

using MultiplyRows = void (*)(const ConvReduceParams&, const ConvPlan&, const float*, int64_t,
                              int64_t, const float*, float*);

inline MultiplyRows rows_kernel(const ConvReduceParams& p) {
  if (p.dilation[2] != 1) return nullptr;
  const int64_t kernel = p.kernel[2], stride = p.stride[2];
  if (kernel == 3)
    return stride == 1 ? multiply_by_rows<3, 1> : stride == 2 ? multiply_by_rows<3, 2> : nullptr;
  if (kernel == 5)
    return stride == 1 ? multiply_by_rows<5, 1> : stride == 2 ? multiply_by_rows<5, 2> : nullptr;
  if (kernel == 7)
    return stride == 1 ? multiply_by_rows<7, 1> : stride == 2 ? multiply_by_rows<7, 2> : nullptr;
  return nullptr;
}

#endif

// tile [to - from, kChannelBlock] = positions [from, to) of the band.
inline void multiply_depthwise(const ConvReduceParams& p, const ConvPlan& plan, const float* slab,
                               int64_t from, int64_t to, const float* panel, float* tile) {
#if defined(__AVX512F__)
  if (const MultiplyRows by_rows = rows_kernel(p))
    return by_rows(p, plan, slab, from, to, panel, tile);
#endif
  const int64_t* offset = plan.offset;
  for (; to - from >= 6; from += 6, tile += 6 * kChannelBlock)
    multiply_taps<6>(plan, slab, offset + from, panel, tile);
  for (; from < to; ++from, tile += kChannelBlock)
    multiply_taps<1>(plan, slab, offset + from, panel, tile);
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
