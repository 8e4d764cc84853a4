// Depthwise convolution: 16 channels in the lanes, one slab [planes, rows, columns, 16] each.
#pragma once
#include "conv_mainloop.h"
#include "reduce_block.h"
#include "conv_pack.h"

namespace fastconv {
namespace {

template <int kValue>
struct Count {
  static constexpr int value = kValue;
};

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

// Neighbours of one output row: the window of the first at x, columns [left, right) of the windows
// inside the input, rows of the kernel likewise.
struct DepthwiseRow {
  const float* x;
  Range planes, rows;
  int64_t left, right;
  const ClampedAffine* transform;  // of the sums, or null
  Stretches ahead;
};

// kCount of them: every column is loaded once for all the taps it meets. kInside: all columns are
// inside the input.
template <int kKernel, int kStride, int kCount, bool kInside>
void multiply_row(const ConvPlan& plan, const DepthwiseRow& in, const float* panel, float* tile) {
  const int64_t pixel = plan.pixel[2];
  for (int part = 0; part < kLanes; part += kWidth) {
    Float acc[kCount];
#pragma GCC unroll 16
    for (int i = 0; i < kCount; ++i) acc[i] = Float{};
    Stretches ahead = in.ahead;
    for (int64_t a = in.planes.begin; a < in.planes.end; ++a)
      for (int64_t b = in.rows.begin; b < in.rows.end; ++b) {
        const int64_t r = (a * plan.taps[1] + b) * kKernel;
        Float w[kKernel];
#pragma GCC unroll 8
        for (int s = 0; s < kKernel; ++s) w[s] = load<Float>(panel + (r + s) * kLanes + part);
        const float* x[2] = {in.x + plan.run[r] + part, in.x + plan.run[r] + part + pixel};
#pragma GCC unroll 64
        for (int column = 0; column < (kCount - 1) * kStride + kKernel; ++column) {
          if (kStride == 1) ahead.fetch();
          const float* here = x[column % 2];
          x[column % 2] += 2 * pixel;
          if (!kInside && (column < in.left || column >= in.right)) continue;
          const Float value = load<Float>(here);
#pragma GCC unroll 8
          for (int s = column % kStride; s < kKernel; s += kStride) {
            const int i = (column - s) / kStride;
            if (column >= s && i < kCount) acc[i] = multiply_add(value, w[s], acc[i]);
          }
        }
      }
    if (in.transform != nullptr) {
      const Float a = load<Float>(in.transform->scale + part);
      const Float b = load<Float>(in.transform->shift + part);
      const Float floor = splat(in.transform->floor);
#pragma GCC unroll 16
      for (int i = 0; i < kCount; ++i) acc[i] = max(floor, multiply_add(acc[i], a, b));
    }
#pragma GCC unroll 16
    for (int i = 0; i < kCount; ++i) store(tile + i * kChannelBlock + part, acc[i]);
  }
}

// Positions [from, to) of the band whose first row is `row` of plane `plane`, cut at the ends of
// rows.
template <int kKernel, int kStride>
void multiply_by_rows(const ConvReduceParams& p, const ConvPlan& plan, const float* slab,
                      int64_t plane, int64_t row, int64_t from, int64_t to, const float* panel,
                      const ClampedAffine* transform, Ahead& ahead, float* tile) {
  const int64_t width = p.out_size[2], pixel = plan.pixel[2];
  const int64_t taps_rows = plan.taps[0] * plan.taps[1];
  DepthwiseRow in{.x = nullptr,
                  .planes = taps_inside(p, 0, plane),
                  .rows = {},
                  .left = 0,
                  .right = 0,
                  .transform = transform,
                  .ahead = {}};
  while (from < to) {
    const int64_t first = from % width;
    const int64_t left = (to - from < width - first ? to - from : width - first);
    in.rows = taps_inside(p, 1, row + from / width);
    int64_t done = 0;
    auto multiply = [&](auto count) {
      if (left < count.value) return;
      for (; done < left; done += count.value) {
        if (left - done < count.value) done = left - count.value;  // some of them again
        in.x = slab + plan.offset[from] + done * kStride * pixel;
        in.left = p.pad[2] - (first + done) * kStride;
        in.right = in.left + p.in_size[2];
        const int columns = (count.value - 1) * kStride + kKernel;
        in.ahead = ahead.spread(count.value, taps_rows * columns, panel);
        float* out = tile + done * kChannelBlock;
        if (in.left <= 0 && in.right >= columns)
          multiply_row<kKernel, kStride, count.value, true>(plan, in, panel, out);
        else
          multiply_row<kKernel, kStride, count.value, false>(plan, in, panel, out);
      }
    };
#if defined(__AVX512F__)
    multiply(Count<14>{});
    multiply(Count<7>{});
#endif
    multiply(Count<4>{});
    multiply(Count<2>{});
    multiply(Count<1>{});
    from += left;
    tile += left * kChannelBlock;
  }
}

using MultiplyRows = void (*)(const ConvReduceParams&, const ConvPlan&, const float*, int64_t,
                              int64_t, int64_t, int64_t, const float*, const ClampedAffine*, Ahead&,
                              float*);

inline MultiplyRows rows_kernel(int64_t kernel, int64_t stride) {
  if (kernel == 3) return stride == 1 ? multiply_by_rows<3, 1> : multiply_by_rows<3, 2>;
  if (kernel == 5) return stride == 1 ? multiply_by_rows<5, 1> : multiply_by_rows<5, 2>;
  return stride == 1 ? multiply_by_rows<7, 1> : multiply_by_rows<7, 2>;
}

// tile [to - from, kChannelBlock] = positions [from, to) of the band that starts at plane, row.
inline void multiply_depthwise(const ConvReduceParams& p, const ConvPlan& plan, const float* slab,
                               int64_t plane, int64_t row, int64_t from, int64_t to,
                               const float* panel, const ClampedAffine* transform, Ahead& ahead,
                               float* tile) {
  if (plan.by_rows)
    return rows_kernel(p.kernel[2], p.stride[2])(p, plan, slab, plane, row, from, to, panel,
                                                 transform, ahead, tile);
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
