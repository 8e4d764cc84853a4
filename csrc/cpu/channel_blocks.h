// Blocks of values as the reductions take them: widened, transformed, and side by side in lanes;
// float32 as it is where it lies like that. And what a network reads on, written back.
#pragma once
#include "../params.h"
#include "reduce_block.h"
#include "transpose.h"
#include "vec.h"
#include "vec_math.h"

namespace fastconv {
namespace {

// The first n values at p, which may end there; zeros after them.
template <Dtype kDtype>
inline Float widen(const void* p, int n) {
  if constexpr (kDtype == Dtype::kFloat32) {
    const float* x = static_cast<const float*>(p);
    return n < kWidth ? load_first(x, n, Float{}) : load<Float>(x);
  } else {
    const uint16_t* x = static_cast<const uint16_t*>(p);
    const Short narrow = n < kWidth ? load_first(x, n) : load<Short>(x);
    return kDtype == Dtype::kFloat16 ? widen_float16(narrow) : widen_bfloat16(narrow);
  }
}

// Steps of `lanes` values (the last: `last`), widened and followed by zeros up to 16.
template <Dtype kDtype>
inline void widen_steps(const char* x, int64_t stride_bytes, int steps, int lanes, int last,
                        float* out) {
  constexpr int kBytes = kDtype == Dtype::kFloat32 ? 4 : 2;
  for (int i = 0; i < steps; ++i, x += stride_bytes, out += kLanes) {
    const int n = i < steps - 1 ? lanes : last;
    __builtin_prefetch(x + kAhead * stride_bytes);
    for (int part = 0; part < kLanes; part += kWidth)
      store(out + part, widen<kDtype>(x + part * kBytes, n - part));
  }
}

// What a channel's values go through: those of 16 lanes.
struct Affine {
  alignas(64) float scale[kLanes], shift[kLanes];
  bool scaled, shifted;

  // Of `lanes` channels from `channel` on; planar: of one channel in all lanes.
  Affine(const float* scales, const float* shifts, int64_t channel, int lanes, bool planar)
      : scaled(scales != nullptr), shifted(shifts != nullptr) {
    if (!scaled && !shifted) return;  // nothing reads the values
    for (int lane = 0; lane < kLanes; ++lane) {
      const int64_t at = channel + (planar ? 0 : lane);
      const bool exists = planar || lane < lanes;
      scale[lane] = exists && scaled ? scales[at] : 0.0f;
      shift[lane] = exists && shifted ? shifts[at] : 0.0f;
    }
  }
};

template <Activation kActivation>
inline void transform_steps(const Affine& affine, int steps, float* values) {
  for (int part = 0; part < kLanes; part += kWidth) {
    Float scale{}, shift{};
    if (affine.scaled) scale = load<Float>(affine.scale + part);
    if (affine.shifted) shift = load<Float>(affine.shift + part);
    for (int i = 0; i < steps; ++i) {
      Float x = load<Float>(values + i * kLanes + part);
      if (affine.scaled) x = x * scale;
      if (affine.shifted) x = x + shift;
      store(values + i * kLanes + part, activate<kActivation>(x));
    }
  }
}

inline void transform_block(Activation activation, const Affine& affine, int steps, float* values) {
  with_activation(activation, [&](auto chosen) {
    transform_steps<decltype(chosen)::value>(affine, steps, values);
  });
}

// to = activation(scale * x + shift), `stride` apart; the last step, or channels last every one,
// has `tail` values.
template <Activation kActivation>
inline void write_steps(const Affine& post, const Block& block, int tail, float* to,
                        int64_t stride) {
  const int whole = tail == kLanes ? block.steps : block.full() < block.steps ? block.steps - 1 : 0;
  for (int part = 0; part < kLanes; part += kWidth) {
    Float scale{}, shift{};
    if (post.scaled) scale = load<Float>(post.scale + part), shift = load<Float>(post.shift + part);
    for (int i = 0; i < block.steps; ++i) {
      const int n = i < whole ? kWidth : tail - part;
      if (n <= 0) continue;
      const float* from = block.step(i) + part;
      Float x = n < kWidth ? load_first(from, n, Float{}) : load<Float>(from);
      if (post.scaled) x = multiply_add(x, scale, shift);
      x = activate<kActivation>(x);
      if (n < kWidth)
        store_first(to + i * stride + part, n, x);
      else
        store(to + i * stride + part, x);
    }
  }
}

inline void write_block(Activation activation, const Affine& post, const Block& block, int tail,
                        float* to, int64_t stride) {
  with_activation(activation, [&](auto chosen) {
    write_steps<decltype(chosen)::value>(post, block, tail, to, stride);
  });
}

// out[i][lane] = x[lane * pitch + i], widened.
template <Dtype kDtype>
inline void turn_rows(const void* x, int64_t pitch, int positions, int lanes, float* out) {
  using E = Element<kDtype>;
  const auto* from = static_cast<const typename E::Raw*>(x);
  int lane = 0;
#if defined(__AVX2__)
  for (; positions >= 8 && lane + 8 <= lanes; lane += 8)
    for (int i = 0; i < positions; i += 8) {
      const int first = i + 8 <= positions ? i : positions - 8;
      transpose_eight<E>(from + lane * pitch + first, pitch,
                         [&](int j) { return out + (first + j) * kLanes + lane; });
    }
#endif
  for (; lane < lanes; ++lane)
    for (int i = 0; i < positions; ++i)
      out[i * kLanes + lane] = E::widen_one(from + lane * pitch + i);
}

// Where the blocks of one planar channel come from, or of up to 16 channels side by side.
struct Source {
  const ChannelReduceParams& p;
  Affine affine, post;
  int64_t channel;
  int lanes;
  bool planar;

  Source(const ChannelReduceParams& p, int64_t channel, int lanes, bool planar)
      : p(p),
        affine(p.scale, p.shift, channel, lanes, planar),
        post(p.post_scale, p.post_shift, channel, lanes, planar),
        channel(channel),
        lanes(lanes),
        planar(planar) {}

  bool transforms() const {
    return affine.scaled || affine.shifted || p.activation != Activation::kNone;
  }

  // Whether blocks are taken as they lie.
  bool in_place() const {
    return p.dtype == Dtype::kFloat32 && !transforms() && lanes == kLanes &&
           (planar || p.channels_last);
  }

  // Offset of the first element of a sample.
  int64_t row(int64_t n) const { return n * p.stride_n + channel * p.stride_c; }

  // Steps that begin at position `at` of sample n, the last of `last` values where planar. In
  // `buffer` [kSteps, 16] unless they can be taken as they lie.
  Block block(int64_t n, int64_t at, int steps, int last, float* buffer) const {
    if (!planar && !p.channels_last) return turned(n, steps, buffer);
    const int bytes = p.dtype == Dtype::kFloat32 ? 4 : 2;
    const int64_t stride = planar ? kLanes : p.stride_p;
    const char* x = static_cast<const char*>(p.x) + (row(n) + at * p.stride_p) * bytes;
    if (in_place())
      return {reinterpret_cast<const float*>(x), stride,    steps, last, lanes,
              x + kAhead * stride * bytes,       stride * 4};
    const int tail = planar ? last : lanes;
    switch (p.dtype) {
      case Dtype::kFloat32:
        widen_steps<Dtype::kFloat32>(x, stride * bytes, steps, lanes, tail, buffer);
        break;
      case Dtype::kFloat16:
        widen_steps<Dtype::kFloat16>(x, stride * bytes, steps, lanes, tail, buffer);
        break;
      case Dtype::kBFloat16:
        widen_steps<Dtype::kBFloat16>(x, stride * bytes, steps, lanes, tail, buffer);
        break;
    }
    if (transforms()) transform_block(p.activation, affine, steps, buffer);
    return {buffer, kLanes, steps, last, lanes};
  }

  // A whole planar sample of at most kSteps positions, its channels in lanes.
  Block turned(int64_t n, int steps, float* buffer) const {
    const char* x = static_cast<const char*>(p.x);
    switch (p.dtype) {
      case Dtype::kFloat32:
        turn_rows<Dtype::kFloat32>(x + row(n) * 4, p.stride_c, steps, lanes, buffer);
        break;
      case Dtype::kFloat16:
        turn_rows<Dtype::kFloat16>(x + row(n) * 2, p.stride_c, steps, lanes, buffer);
        break;
      case Dtype::kBFloat16:
        turn_rows<Dtype::kBFloat16>(x + row(n) * 2, p.stride_c, steps, lanes, buffer);
        break;
    }
    if (transforms()) transform_block(p.activation, affine, steps, buffer);
    return {.values = buffer, .stride = kLanes, .steps = steps, .lanes = lanes};
  }

  // Writes what the network reads of a block, where x has the same positions.
  void write(const Block& block, int64_t n, int64_t at) const {
    if (p.written == nullptr) return;
    float* to = p.written + row(n) + at * p.stride_p;
    if (!planar && !p.channels_last) return write_turned(block, to);
    const int64_t stride = planar ? kLanes : p.stride_p;
    write_block(p.post_activation, post, block, planar ? block.last : lanes, to, stride);
  }

  void write_turned(const Block& block, float* to) const {
    alignas(64) float rows[kSteps * kLanes];
    write_block(p.post_activation, post, block, kLanes, rows, kLanes);
    for (int lane = 0; lane < lanes; ++lane)
      for (int i = 0; i < block.steps; ++i) to[lane * p.stride_c + i] = rows[i * kLanes + lane];
  }
};

}  // namespace
}  // namespace fastconv
