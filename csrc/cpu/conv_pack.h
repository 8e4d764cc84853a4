// Packing: weights into panels, input into slabs. Everything becomes float32 here, but for AMX.
#pragma once
#include "../params.h"
#include "transpose.h"

namespace fastconv {
namespace {

constexpr int kWeightsAhead = 64;  // to fetch

struct RawElement {  // 16 bits as they are
  using Raw = uint16_t;
  using Packed = uint16_t;
  static Short widen(const Raw* p) { return load<Short>(p); }
  static uint16_t widen_one(const Raw* p) { return *p; }
};

// Weights of `lanes` output channels from `weight` on, input channels [begin, end):
// row(tap, c)[lane], in float32.
template <typename E, typename Row>
inline void pack_weights(const ConvReduceParams& p, const typename E::Raw* weight, int64_t lanes,
                         int64_t begin, int64_t end, Row row) {
  const int64_t taps = p.kernel[0] * p.kernel[1] * p.kernel[2], channel = taps * p.c_in;
  // Stretches of memory: of one tap, or of all taps and channels.
  const int64_t stretches = p.weight_channels_last ? taps : 1;
  const int64_t length = (end - begin) * (p.weight_channels_last ? 1 : taps);
  weight += begin * (p.weight_channels_last ? 1 : taps);
  for (int64_t stretch = 0; stretch < stretches; ++stretch, weight += p.c_in)
    for (int64_t i = 0, tap = stretch, c = begin; i < length; i += 8) {
      const int64_t count = length - i < 8 ? length - i : 8;
      float* out[8];
      for (int j = 0; j < count; ++j) {
        out[j] = row(tap, c);
        if (p.weight_channels_last || ++tap == taps) {
          ++c;
          tap = stretch;
        }
      }
      int64_t lane = 0;
#if defined(__AVX2__)
      for (; count == 8 && lane + 8 <= lanes; lane += 8) {
        if (i % 16 == 0)  // more streams than hardware follows
          for (int j = 0; j < 8; ++j)
            __builtin_prefetch(weight + (lane + j) * channel + i + kWeightsAhead);
        transpose_eight<E>(weight + lane * channel + i, channel,
                           [&](int j) { return out[j] + lane; });
      }
#endif
      for (; lane < lanes; ++lane)
        for (int j = 0; j < count; ++j)
          out[j][lane] = E::widen_one(weight + lane * channel + i + j);
    }
}

// Weights of channel block `block` of a group: [kernel taps, c_in, channel_block], zeros after
// c_out.
template <Dtype kDtype>
void pack_panel(const ConvReduceParams& p, const ConvPlan& plan, int64_t group, int64_t block,
                float* panel) {
  const int64_t first = block * plan.channel_block;
  const int64_t left = p.c_out - first;
  const int64_t channels = left < plan.channel_block ? left : plan.channel_block;
  const auto* weight = static_cast<const typename Element<kDtype>::Raw*>(p.weight) +
                       (group * p.c_out + first) * plan.gemm_k;
  if (channels < plan.channel_block)
    __builtin_memset(panel, 0, plan.panel_elements * sizeof *panel);
  pack_weights<Element<kDtype>>(p, weight, channels, 0, p.c_in, [&](int64_t tap, int64_t c) {
    return panel + (tap * p.c_in + c) * plan.channel_block;
  });
}

// Channels [first, last) of `count` pixels that lie `step` elements apart, channel by channel.
template <typename E>
inline void pack_planar(const typename E::Raw* x, int64_t count, int64_t step, int64_t channel,
                        int64_t first, int64_t last, int64_t pitch, typename E::Packed* out) {
  for (int64_t i = 0; i < count; i += 16) {  // 16 pixels at a time: whole cache lines
    const int64_t stop = i + 16 < count ? i + 16 : count;
    for (int64_t c = first; c < last; ++c)
      for (int64_t j = i; j < stop; ++j)
        out[j * pitch + c] = E::widen_one(x + j * step + c * channel);
  }
}

// `count` pixels of `channels` channels, `step` elements apart, to [count, pitch]; channels lie
// `channel` elements apart, and zeros follow them.
template <typename E>
inline void pack_pixels(const typename E::Raw* x, int64_t count, int64_t step, int64_t channel,
                        int64_t channels, int64_t pitch, typename E::Packed* out) {
  if (channel == 1 && step == channels && pitch == channels) {  // one stretch
    channels = pitch = count * channels;
    count = 1;
  }
  if (channels < pitch)
    for (int64_t i = 0; i < count; ++i)
      for (int64_t c = channels; c < pitch; ++c) out[i * pitch + c] = 0;
  if (channel == 1) {
    for (int64_t i = 0; i < count; ++i, x += step, out += pitch) {
      int64_t c = 0;
      for (; c + kWidth <= channels; c += kWidth) {
        __builtin_prefetch(x + 8 * step + c);
        store(out + c, E::widen(x + c));
      }
      for (; c < channels; ++c) out[c] = E::widen_one(x + c);
    }
    return;
  }
  [[maybe_unused]] int64_t eights = 0;
  int64_t done = 0;  // pixels and channels in blocks of eight
#if defined(__AVX2__)
  if constexpr (sizeof(typename E::Packed) == 4)
    if (step == 1) {
      eights = count & ~int64_t{7};
      done = eights == 0 ? 0 : channels & ~int64_t{7};
      for (int64_t i = 0; i < eights; i += 16)
        for (int64_t c = 0; c < done; c += 8) {
          for (int lane = 0; lane < 8; ++lane)
            __builtin_prefetch(x + (c + lane) * channel + i + 32);
          for (int64_t from = i; from < i + 16 && from < eights; from += 8)
            transpose_eight<E>(x + c * channel + from, channel,
                               [&](int j) { return out + (from + j) * pitch + c; });
        }
      pack_planar<E>(x + eights, count - eights, 1, channel, 0, done, pitch, out + eights * pitch);
    }
#endif
  pack_planar<E>(x, count, step, channel, done, channels, pitch, out);
}

// `count` pixels of channels last to one slab per 16 channels: whole pixels are read in order.
template <typename E>
inline void pack_lanes(const typename E::Raw* x, int64_t count, int64_t step, int64_t channels,
                       int64_t slab_elements, typename E::Packed* out) {
  for (int64_t i = 0; i < count; ++i, x += step, out += 16) {
    auto* to = out;
    int64_t c = 0;
    for (; c + 16 <= channels; c += 16, to += slab_elements)
      for (int64_t part = 0; part < 16; part += kWidth) store(to + part, E::widen(x + c + part));
    if (c < channels) pack_pixels<E>(x + c, 1, step, 1, channels - c, 16, to);
  }
}

// The slabs of output plane d, rows from h on, of `channels` channels of one sample: one slab, or
// one per 16 channels where depthwise.
template <typename E>
void pack_slab(const ConvReduceParams& p, const ConvPlan& plan, int64_t sample,
               int64_t first_channel, int64_t channels, int64_t d, int64_t h,
               typename E::Packed* slab) {
  const auto* input = static_cast<const typename E::Raw*>(p.input) + sample * p.in_stride[0] +
                      first_channel * p.in_stride[1];
  // Pixels of a line are packed together: of a row, or of a column where rows have one pixel.
  const int line = plan.slab_size[2] == 1 ? 1 : 2, across = 3 - line;
  const int64_t pixels = plan.slab_size[line], step = plan.step[line], pitch = plan.c_in;
  const int64_t channel = p.c_in == 1 && !plan.depthwise ? 1 : p.in_stride[1];
  const int64_t first[3] = {d * p.stride[0] - p.pad[0], h * p.stride[1] - p.pad[1], -p.pad[2]};
  // Pixels [left, right) of the line lie inside the input.
  auto clamp = [&](int64_t at) { return at < 0 ? 0 : at < pixels ? at : pixels; };
  const int64_t left = clamp((step - 1 - first[line]) / step);
  int64_t right = clamp((p.in_size[line] - first[line] + step - 1) / step);
  if (right < left) right = left;
  auto zero = [](auto* at, int64_t n) { __builtin_memset(at, 0, n * sizeof *at); };
  for (int64_t plane = 0; plane < plan.slab_size[0]; ++plane) {
    const int64_t in_d = first[0] + plane * plan.step[0];
    for (int64_t i = 0; i < plan.slab_size[across]; ++i, slab += pixels * pitch) {
      const int64_t at = first[across] + i * plan.step[across];
      const bool inside = in_d >= 0 && in_d < p.in_size[0] && at >= 0 && at < p.in_size[across];
      const auto* x = input + in_d * p.in_stride[2] + at * p.in_stride[2 + across] +
                      (first[line] + left * step) * p.in_stride[2 + line];
      const int64_t apart = step * p.in_stride[2 + line];
      auto* out = slab;
      for (int64_t c = 0; c < channels; c += pitch, out += plan.slab_elements) {
        if (!inside) {
          zero(out, pixels * pitch);
          continue;
        }
        zero(out, left * pitch);
        zero(out + right * pitch, (pixels - right) * pitch);
        if (plan.depthwise && channel == 1) {
          if (c == 0)
            pack_lanes<E>(x, right - left, apart, channels, plan.slab_elements,
                          slab + left * pitch);
          continue;
        }
        const int64_t here = channels - c < pitch ? channels - c : pitch;
        pack_pixels<E>(x + c * channel, right - left, apart, channel, here, pitch,
                       out + left * pitch);
      }
    }
  }
}

}  // namespace
}  // namespace fastconv
