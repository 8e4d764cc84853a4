// The reductions of an activation in memory, read once. A block of up to kSteps x 16 values is
// widened and transformed into a buffer (float32 as it is: taken in place) and then reduced.
#pragma once
#include "../params.h"
#include "candidates.h"
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

struct Affine {
  alignas(64) float scale[kLanes], shift[kLanes];
  bool scaled, shifted;
};

template <Activation kActivation>
inline void transform_steps(const Affine& affine, int steps, float* values) {
  for (int part = 0; part < kLanes; part += kWidth) {
    const Float scale = load<Float>(affine.scale + part), shift = load<Float>(affine.shift + part);
    for (int i = 0; i < steps; ++i) {
      Float x = load<Float>(values + i * kLanes + part);
      if (affine.scaled) x = x * scale;
      if (affine.shifted) x = x + shift;
      store(values + i * kLanes + part, activate<kActivation>(x));
    }
  }
}

inline void transform_block(Activation activation, const Affine& affine, int steps, float* values) {
  switch (activation) {
#define FASTCONV_CASE(name) \
  case Activation::name: return transform_steps<Activation::name>(affine, steps, values);
    FASTCONV_CASE(kNone)
    FASTCONV_CASE(kRelu)
    FASTCONV_CASE(kRelu6)
    FASTCONV_CASE(kLeakyRelu)
    FASTCONV_CASE(kElu)
    FASTCONV_CASE(kGelu)
    FASTCONV_CASE(kSilu)
    FASTCONV_CASE(kSigmoid)
    FASTCONV_CASE(kTanh)
    FASTCONV_CASE(kHardswish)
#undef FASTCONV_CASE
  }
}

// Reads blocks of one planar channel, or of up to 16 channels that lie side by side.
struct Source {
  const ChannelReduceParams& p;
  Affine affine;
  bool in_place;
  int lanes;

  Source(const ChannelReduceParams& p, int64_t channel, int lanes, bool planar)
      : p(p), lanes(lanes) {
    affine.scaled = p.scale != nullptr;
    affine.shifted = p.shift != nullptr;
    for (int lane = 0; lane < kLanes; ++lane) {
      const int64_t at = channel + (planar ? 0 : lane);
      const bool exists = planar || lane < lanes;
      affine.scale[lane] = exists && affine.scaled ? p.scale[at] : 0.0f;
      affine.shift[lane] = exists && affine.shifted ? p.shift[at] : 0.0f;
    }
    in_place = p.dtype == Dtype::kFloat32 && !transforms() && lanes == kLanes;
  }

  bool transforms() const {
    return affine.scaled || affine.shifted || p.activation != Activation::kNone;
  }

  // Steps that begin at element `offset` of x, `stride` elements apart.
  Block block(int64_t offset, int64_t stride, int steps, int last, float* buffer) const {
    const int bytes = p.dtype == Dtype::kFloat32 ? 4 : 2;
    const char* x = static_cast<const char*>(p.x) + offset * bytes;
    const int full = lanes == kLanes ? kLanes : lanes;
    if (in_place)
      return {reinterpret_cast<const float*>(x), stride,    steps, last, lanes,
              x + kAhead * stride * bytes,       stride * 4};
    switch (p.dtype) {
      case Dtype::kFloat32:
        widen_steps<Dtype::kFloat32>(x, stride * bytes, steps, full, last, buffer);
        break;
      case Dtype::kFloat16:
        widen_steps<Dtype::kFloat16>(x, stride * bytes, steps, full, last, buffer);
        break;
      case Dtype::kBFloat16:
        widen_steps<Dtype::kBFloat16>(x, stride * bytes, steps, full, last, buffer);
        break;
    }
    if (transforms()) transform_block(p.activation, affine, steps, buffer);
    return {buffer, kLanes, steps, last, lanes};
  }
};

// The first n lanes, as the results of row `at` on.
inline void write_lanes(const ReductionOut& out, int64_t at, const LaneState& state, int n) {
  auto copy = [&](auto* to, const auto* from) { __builtin_memcpy(to + at, from, n * sizeof *to); };
  copy(out.sum, state.sum);
  copy(out.sumsq, state.sumsq);
  copy(out.min, state.min);
  copy(out.max, state.max);
  copy(out.argmin, state.argmin);
  copy(out.argmax, state.argmax);
  copy(out.positive, state.positive);
  copy(out.nonfinite, state.nonfinite);
}

inline void reduce_row(const Source& source, int64_t n, int64_t c, float* buffer) {
  constexpr int64_t kBlock = kSteps * kLanes;
  const ChannelReduceParams& p = source.p;
  const int64_t row = n * p.stride_n + c * p.stride_c;
  int64_t* counts = p.histogram ? p.histogram + c * kBins : nullptr;
  LaneState state;
  state.clear();
  for (int64_t start = 0; start < p.positions; start += kBlock) {
    const int64_t left = p.positions - start;
    const int values = left < kBlock ? left : kBlock;
    const int steps = (values + kLanes - 1) / kLanes;
    const int last = values - (steps - 1) * kLanes;
    const Block block = source.block(row + start, kLanes, steps, last, buffer);
    BlockExtrema extrema;
    reduce_block<true>(block, start, state, counts, extrema);
    if (p.candidates.threshold != nullptr)
      list_planar(p.candidates, c, block, n * p.positions + start, extrema);
  }
  state.sum[0] = sum_16(state.sum);
  state.sumsq[0] = sum_16(state.sumsq);
  for (int lane = 1; lane < kLanes; ++lane) {
    state.positive[0] += state.positive[lane];
    state.nonfinite[0] += state.nonfinite[lane];
  }
  write_lanes(p.out, n * p.c + c, state, 1);
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

// Rows of at most kSteps positions: 16 channels at once, each in a lane, so that starting and
// ending costs as much as for one.
inline void reduce_short_rows(const ChannelReduceParams& p, int64_t n, const Range& channels) {
  alignas(64) float buffer[kSteps * kLanes] = {};
  const int positions = static_cast<int>(p.positions);
  for (int64_t c = channels.begin; c < channels.end; c += kLanes) {
    const int lanes = channels.end - c < kLanes ? channels.end - c : kLanes;
    const int64_t offset = n * p.stride_n + c * p.stride_c;
    const void* x = static_cast<const char*>(p.x) + offset * (p.dtype == Dtype::kFloat32 ? 4 : 2);
    switch (p.dtype) {
      case Dtype::kFloat32:
        turn_rows<Dtype::kFloat32>(x, p.stride_c, positions, lanes, buffer);
        break;
      case Dtype::kFloat16:
        turn_rows<Dtype::kFloat16>(x, p.stride_c, positions, lanes, buffer);
        break;
      case Dtype::kBFloat16:
        turn_rows<Dtype::kBFloat16>(x, p.stride_c, positions, lanes, buffer);
        break;
    }
    const Source source(p, c, lanes, false);
    if (source.transforms()) transform_block(p.activation, source.affine, positions, buffer);
    LaneState state;
    state.clear();
    const Block block{.values = buffer, .stride = kLanes, .steps = positions, .lanes = lanes};
    BlockExtrema extrema;
    reduce_block<false>(block, 0, state, p.histogram ? p.histogram + c * kBins : nullptr, extrema);
    if (p.candidates.threshold != nullptr)
      list_block(p.candidates, c, block, n * p.positions, extrema);
    write_lanes(p.out, n * p.c + c, state, lanes);
  }
}

inline void reduce_planar(const ChannelReduceParams& p, const Range& samples,
                          const Range& channels) {
  if (p.positions <= kSteps) {
    for (int64_t n = samples.begin; n < samples.end; ++n) reduce_short_rows(p, n, channels);
    return;
  }
  alignas(64) float buffer[kSteps * kLanes];
  for (int64_t c = channels.begin; c < channels.end; ++c) {
    const Source source(p, c, kLanes, true);
    for (int64_t n = samples.begin; n < samples.end; ++n) reduce_row(source, n, c, buffer);
  }
}

// Up to kGroups x 16 channels of one sample, tile of positions by tile of positions: of a size
// that stays in L1, or in L2 where counting, as the counts of 16 channels fill L1.
constexpr int kGroups = 32;
constexpr int64_t kTileValues = 1 << 13, kCountedTileValues = 1 << 17;

inline void reduce_tile_columns(const ChannelReduceParams& p, int64_t n, const Range& channels) {
  alignas(64) float buffer[kSteps * kLanes];
  LaneState states[kGroups];
  const int groups = (channels.end - channels.begin + kLanes - 1) / kLanes;
  const int64_t values = p.histogram ? kCountedTileValues : kTileValues;
  const int64_t tile = values / (groups * kLanes);
  for (int g = 0; g < groups; ++g) states[g].clear();
  for (int64_t start = 0; start < p.positions; start += tile) {
    const int64_t end = p.positions - start < tile ? p.positions : start + tile;
    for (int g = 0; g < groups; ++g) {
      const int64_t c = channels.begin + g * kLanes;
      const int lanes = channels.end - c < kLanes ? channels.end - c : kLanes;
      const Source source(p, c, lanes, false);
      for (int64_t at = start; at < end; at += kSteps) {
        const int steps = end - at < kSteps ? end - at : kSteps;
        const int64_t offset = n * p.stride_n + at * p.stride_p + c;
        Block block = source.block(offset, p.stride_p, steps, lanes, buffer);
        block.last = kLanes;
        BlockExtrema extrema;
        reduce_block<false>(block, at, states[g], p.histogram ? p.histogram + c * kBins : nullptr,
                            extrema);
        if (p.candidates.threshold != nullptr)
          list_block(p.candidates, c, block, n * p.positions + at, extrema);
      }
    }
  }
  for (int g = 0; g < groups; ++g) {
    const int64_t c = channels.begin + g * kLanes;
    const int lanes = channels.end - c < kLanes ? channels.end - c : kLanes;
    write_lanes(p.out, n * p.c + c, states[g], lanes);
  }
}

// The reductions of samples x channels; a thread that counts owns its channels.
inline void channel_reduce(const ChannelReduceParams& p, const Range& samples,
                           const Range& channels) {
  if (!p.channels_last) return reduce_planar(p, samples, channels);
  for (int64_t n = samples.begin; n < samples.end; ++n)
    for (int64_t c = channels.begin; c < channels.end; c += kGroups * kLanes) {
      const int64_t end = c + kGroups * kLanes;
      reduce_tile_columns(p, n, {c, end < channels.end ? end : channels.end});
    }
}

}  // namespace
}  // namespace fastconv
