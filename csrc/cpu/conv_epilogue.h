// What happens to a tile of products: affine map, activation, reductions, and the optional copy.
#pragma once
#include "../params.h"
#include "reduce_lanes.h"
#include "conv_mainloop.h"
#include "vec_math.h"

namespace fastconv {
namespace {

constexpr int kStateVectors = kChannelBlock / kLanes;
constexpr int kEpilogueRows = kSteps / kTileRows * kTileRows;  // tiles handled at once

// Running results of one (sample, channel block).
struct BlockState {
  LaneTotals part[kStateVectors];

  void clear() {
    for (LaneTotals& lanes : part) lanes.clear();
  }
};

template <Activation kActivation>
void transform_tile(const float* scale, const float* shift, int channels, int rows, float* tile) {
  for (int c = 0; c < channels; c += kWidth) {
    const Float a = load<Float>(scale + c), b = load<Float>(shift + c);
    for (int i = 0; i < rows; ++i) {
      float* at = tile + i * kChannelBlock + c;
      store(at, activate<kActivation>(multiply_add(load<Float>(at), a, b)));
    }
  }
}

using TransformTile = void (*)(const float*, const float*, int, int, float*);

inline TransformTile transform_for(Activation activation) {
  return with_activation(activation, [](auto chosen) -> TransformTile {
    return transform_tile<decltype(chosen)::value>;
  });
}

// activation(scale * x + shift) on tiles of one channel block.
struct TileTransform {
  alignas(64) float scale[kChannelBlock] = {};
  alignas(64) float shift[kChannelBlock] = {};
  int channels;
  TransformTile transform;
  ClampedAffine affine;  // the same where `clamps`
  bool clamps;

  // scale and shift: of the first channel.
  TileTransform(const float* first_scale, const float* first_shift, int channels,
                Activation activation)
      : channels(channels),
        transform(transform_for(activation)),
        affine{scale, shift, activation == Activation::kRelu ? 0.0f : -kInfinity},
        clamps(activation == Activation::kNone || activation == Activation::kRelu) {
    for (int c = 0; c < channels; ++c) {
      scale[c] = first_scale[c];
      shift[c] = first_shift[c];
    }
  }

  void operator()(int rows, float* tile) const { transform(scale, shift, channels, rows, tile); }
};

// Round to nearest, ties to even; NaN stays NaN.
inline uint16_t narrow_bfloat16(float x) {
  uint32_t raw;
  __builtin_memcpy(&raw, &x, 4);
  if (x != x) return static_cast<uint16_t>(raw >> 16 | 0x40);
  return static_cast<uint16_t>((raw + 0x7fff + (raw >> 16 & 1)) >> 16);
}

inline uint16_t narrow_float16(float x) {
#if defined(__AVX2__)
  return static_cast<uint16_t>(_cvtss_sh(x, _MM_FROUND_TO_NEAREST_INT));
#else
  uint32_t raw;
  __builtin_memcpy(&raw, &x, 4);
  const uint32_t sign = raw >> 16 & 0x8000;
  raw &= 0x7fffffff;
  if (raw > 0x7f800000) return static_cast<uint16_t>(sign | 0x7e00);
  if (raw >= 0x477ff000) return static_cast<uint16_t>(sign | 0x7c00);  // rounds to infinity
  if (raw < 0x38800000) {  // subnormal: adding 0.5 rounds to units of 2^-24
    float small;
    __builtin_memcpy(&small, &raw, 4);
    small += 0.5f;
    __builtin_memcpy(&raw, &small, 4);
    return static_cast<uint16_t>(sign | (raw - 0x3f000000));
  }
  return static_cast<uint16_t>(sign | ((raw - 0x38000000 + 0xfff + (raw >> 13 & 1)) >> 13));
#endif
}

// Rows of a tile as the activation of channels from `channel` and positions from `position` on.
inline void write_tile(const ConvReduceParams& p, int64_t sample, int64_t channel, int channels,
                       int64_t position, int rows, const float* tile) {
  const int64_t* stride = p.written_stride;
  const int64_t base = sample * stride[0] + channel * stride[1] + position * stride[2];
  auto write = [&](auto* out, auto narrow) {
    out += base;
    if (stride[1] == 1) {
      for (int i = 0; i < rows; ++i)
        for (int c = 0; c < channels; ++c)
          out[i * stride[2] + c] = narrow(tile[i * kChannelBlock + c]);
    } else {
      for (int c = 0; c < channels; ++c)
        for (int i = 0; i < rows; ++i)
          out[c * stride[1] + i * stride[2]] = narrow(tile[i * kChannelBlock + c]);
    }
  };
  switch (p.dtype) {
    case Dtype::kFloat32: return write(static_cast<float*>(p.written), [](float x) { return x; });
    case Dtype::kFloat16: return write(static_cast<uint16_t*>(p.written), narrow_float16);
    case Dtype::kBFloat16: return write(static_cast<uint16_t*>(p.written), narrow_bfloat16);
  }
}

// The results of `channels` channels from `channel` on.
inline void finish_block(const ConvReduceParams& p, int64_t sample, int64_t channel, int channels,
                         const BlockState& state) {
  const int64_t first = sample * p.groups * p.c_out + channel;
  for (int c = 0; c < channels; c += kLanes)
    write_lanes(p.out, first + c, state.part[c / kLanes],
                channels - c < kLanes ? channels - c : kLanes);
}

}  // namespace
}  // namespace fastconv
