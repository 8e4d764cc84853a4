// Packing: weights into panels, input into slabs. Everything becomes float32 here.
#pragma once
#include "../params.h"
#include "vec.h"

namespace fastconv {
namespace {

template <Dtype kDtype>
struct Element {
  using Raw = uint16_t;
  static Float widen(const Raw* p) {
    return kDtype == Dtype::kFloat16 ? widen_float16(load<Short>(p)) : widen_bfloat16(load<Short>(p));
  }
  static float widen_one(const Raw* p) {
    Short x{};
    x[0] = *p;
    return (kDtype == Dtype::kFloat16 ? widen_float16(x) : widen_bfloat16(x))[0];
  }
};

template <>
struct Element<Dtype::kFloat32> {
  using Raw = float;
  static Float widen(const Raw* p) { return load<Float>(p); }
  static float widen_one(const Raw* p) { return *p; }
};

// Weights of channel block `block` of a group: [kernel taps, c_in, channel_block], zeros after c_out.
template <Dtype kDtype>
void pack_panel(const ConvReduceParams& p, const ConvPlan& plan, int64_t group, int64_t block,
                float* panel) {
  using E = Element<kDtype>;
  const int64_t taps = p.kernel[0] * p.kernel[1] * p.kernel[2];
  const int64_t gemm_k = taps * p.c_in;
  const int64_t first = block * plan.channel_block;
  const int64_t left = p.c_out - first;
  const int64_t channels = left < plan.channel_block ? left : plan.channel_block;
  const auto* weight =
      static_cast<const typename E::Raw*>(p.weight) + (group * p.c_out + first) * gemm_k;
  for (int64_t tap = 0; tap < taps; ++tap)
    for (int64_t c = 0; c < p.c_in; ++c, panel += plan.channel_block) {
      for (int64_t lane = 0; lane < channels; ++lane)
        panel[lane] = E::widen_one(weight + lane * gemm_k + c * taps + tap);
      for (int64_t lane = channels; lane < plan.channel_block; ++lane) panel[lane] = 0.0f;
    }
}

// count pixels of c_in channels, `step` elements apart, channels `channel` elements apart.
template <Dtype kDtype>
inline void pack_pixels(const typename Element<kDtype>::Raw* x, int64_t count, int64_t step,
                        int64_t channel, int64_t c_in, float* out) {
  using E = Element<kDtype>;
  if (channel == 1 && step == c_in) {  // one stretch
    c_in *= count;
    count = 1;
  }
  if (channel == 1) {
    for (int64_t i = 0; i < count; ++i, x += step, out += c_in) {
      int64_t c = 0;
      for (; c + kWidth <= c_in; c += kWidth) store(out + c, E::widen(x + c));
      for (; c < c_in; ++c) out[c] = E::widen_one(x + c);
    }
    return;
  }
  for (int64_t first = 0; first < count; first += 16) {  // 16 pixels at a time: whole cache lines
    const int64_t last = first + 16 < count ? first + 16 : count;
    for (int64_t c = 0; c < c_in; ++c)
      for (int64_t i = first; i < last; ++i)
        out[i * c_in + c] = E::widen_one(x + i * step + c * channel);
  }
}

// The slab of output plane d, rows from h on, of one sample and group.
template <Dtype kDtype>
void pack_slab(const ConvReduceParams& p, const ConvPlan& plan, int64_t sample, int64_t group,
               int64_t d, int64_t h, float* slab) {
  using E = Element<kDtype>;
  const auto* input = static_cast<const typename E::Raw*>(p.input) + sample * p.in_stride[0] +
                      group * p.c_in * p.in_stride[1];
  const int64_t columns = plan.slab_size[2], step = plan.step[2];
  // Columns [left, right) of the slab lie inside the input.
  int64_t left = (p.pad[2] + step - 1) / step;
  left = left < columns ? left : columns;
  int64_t right = (p.in_size[2] + p.pad[2] + step - 1) / step;
  right = right < columns ? right : columns;
  if (right < left) right = left;
  auto zero = [](float* at, int64_t n) { __builtin_memset(at, 0, n * sizeof(float)); };
  for (int64_t plane = 0; plane < plan.slab_size[0]; ++plane) {
    const int64_t in_d = d * p.stride[0] - p.pad[0] + plane * plan.step[0];
    for (int64_t row = 0; row < plan.slab_size[1]; ++row, slab += columns * p.c_in) {
      const int64_t in_h = h * p.stride[1] - p.pad[1] + row * plan.step[1];
      if (in_d < 0 || in_d >= p.in_size[0] || in_h < 0 || in_h >= p.in_size[1]) {
        zero(slab, columns * p.c_in);
        continue;
      }
      zero(slab, left * p.c_in);
      zero(slab + right * p.c_in, (columns - right) * p.c_in);
      pack_pixels<kDtype>(input + in_d * p.in_stride[2] + in_h * p.in_stride[3] +
                              (left * step - p.pad[2]) * p.in_stride[4],
                          right - left, step * p.in_stride[4], p.in_stride[1], p.c_in,
                          slab + left * p.c_in);
    }
  }
}

}  // namespace
}  // namespace fastconv
