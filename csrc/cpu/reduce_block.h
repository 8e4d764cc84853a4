// Every statistic of a Reduction from blocks of float32 values in L1.
//
// Values go through 16 lanes, whatever the vector width. Planar: a lane holds every 16th position
// of one channel. Channels last: a lane holds one channel. A block is summed, then searched for
// positions only if it holds a new extremum, then counted.
#pragma once
#include "../params.h"
#include "vec.h"

namespace fastconv {
namespace {

constexpr int kLanes = 16;
constexpr int kSteps = 64;
constexpr float kInfinity = __builtin_inff();

// Running results of 16 lanes; extrema of a planar row stand in lane 0.
struct alignas(64) LaneState {
  double sum[kLanes], sumsq[kLanes];
  int64_t positive[kLanes], nonfinite[kLanes];
  float min[kLanes], max[kLanes];
  int64_t argmin[kLanes], argmax[kLanes];

  void clear() {
    __builtin_memset(this, 0, sizeof *this);
    for (int lane = 0; lane < kLanes; ++lane) {
      min[lane] = kInfinity;
      max[lane] = -kInfinity;
      argmin[lane] = argmax[lane] = -1;
    }
  }
};

// Steps of 16 values, `stride` floats apart. Planar: the last step may have fewer values. Channels
// last: `lanes` channels exist, the other lanes hold any finite value.
struct Block {
  const float* values;
  int64_t stride;
  int steps;
  int last = kLanes;
  int lanes = kLanes;

  int full() const { return last == kLanes ? steps : steps - 1; }
  const float* step(int i) const { return values + i * stride; }
};

struct alignas(64) BlockExtrema {
  float min[kLanes], max[kLanes];
};

inline bool is_finite(float x) { return x - x == 0.0f; }

struct Accumulator {
  Double sum[2], sumsq[2];
  Int positive{};
  Float low = splat(kInfinity), high = splat(-kInfinity);

  void add(const float* p) {
    const Float x = load<Float>(p);
    for (int half = 0; half < 2; ++half) {
      const HalfFloat narrow = load<HalfFloat>(p + half * (kWidth / 2));
      const Double wide = __builtin_convertvector(narrow, Double);
      sum[half] += wide;
      sumsq[half] = add_square(sumsq[half], wide);
    }
    positive = count_positive(positive, x);
    low = min(x, low);
    high = max(x, high);
  }
};

// Adds a block to the sums and counts and finds its extrema per lane; false, and the state as it
// was, if a value is not finite: its square, and only such a square, is not finite in float64.
inline bool add_block(const Block& block, LaneState& state, BlockExtrema& extrema) {
  alignas(64) float padded[kLanes];  // the incomplete last step, zeros after it
  alignas(64) float repeated[kLanes];  // the same, its first value after it
  if (block.last < kLanes) {
    const float* p = block.step(block.steps - 1);
    for (int lane = 0; lane < kLanes; ++lane) {
      padded[lane] = lane < block.last ? p[lane] : 0.0f;
      repeated[lane] = lane < block.last ? p[lane] : p[0];
    }
  }
  Accumulator parts[kLanes / kWidth];
  for (int part = 0; part < kLanes / kWidth; ++part) {
    const int first = part * kWidth;
    Accumulator a;
    for (int half = 0; half < 2; ++half) {
      a.sum[half] = load<Double>(state.sum + first + half * (kWidth / 2));
      a.sumsq[half] = load<Double>(state.sumsq + first + half * (kWidth / 2));
    }
    const float* p = block.values + first;
    const int full = block.full();
    for (int i = 0; i < full; ++i, p += block.stride) a.add(p);
    if (block.last < kLanes) {
      const Float low = min(load<Float>(repeated + first), a.low);
      const Float high = max(load<Float>(repeated + first), a.high);
      a.add(padded + first);
      a.low = low;
      a.high = high;
    }
    if (any((a.sumsq[0] + a.sumsq[1]) * 0.0 != 0.0)) return false;
    parts[part] = a;
  }
  for (int part = 0; part < kLanes / kWidth; ++part) {
    const int first = part * kWidth;
    const Accumulator& a = parts[part];
    for (int half = 0; half < 2; ++half) {
      store(state.sum + first + half * (kWidth / 2), a.sum[half]);
      store(state.sumsq + first + half * (kWidth / 2), a.sumsq[half]);
    }
    for (int lane = 0; lane < kWidth; ++lane) state.positive[first + lane] += a.positive[lane];
    store(extrema.min + first, a.low);
    store(extrema.max + first, a.high);
  }
  return true;
}

// The same for a block with non-finite values, one value at a time.
inline void add_block_carefully(const Block& block, LaneState& state, BlockExtrema& extrema) {
  for (int lane = 0; lane < kLanes; ++lane) {
    extrema.min[lane] = kInfinity;
    extrema.max[lane] = -kInfinity;
  }
  for (int i = 0; i < block.steps; ++i) {
    const int lanes = i < block.full() ? kLanes : block.last;
    for (int lane = 0; lane < lanes; ++lane) {
      const float x = block.step(i)[lane];
      if (!is_finite(x)) {
        ++state.nonfinite[lane];
        continue;
      }
      const double wide = x;
      state.sum[lane] += wide;
      state.sumsq[lane] += wide * wide;
      state.positive[lane] += x > 0.0f;
      if (x < extrema.min[lane]) extrema.min[lane] = x;
      if (x > extrema.max[lane]) extrema.max[lane] = x;
    }
  }
}

// Offset of the first value equal to `wanted` in a planar block that holds it.
inline int64_t find_first(const Block& block, float wanted) {
  for (int i = 0;; ++i) {
    const float* p = block.step(i);
    for (int part = 0; part < kLanes; part += kWidth) {
      if (i < block.full() && !any(load<Float>(p + part) == wanted)) continue;
      for (int lane = part; lane < part + kWidth; ++lane)
        if (p[lane] == wanted) return i * kLanes + lane;
    }
  }
}

inline void update_extrema_planar(const Block& block, int64_t start, const BlockExtrema& extrema,
                                  LaneState& state) {
  Float low = load<Float>(extrema.min), high = load<Float>(extrema.max);
  for (int part = kWidth; part < kLanes; part += kWidth) {
    low = min(load<Float>(extrema.min + part), low);
    high = max(load<Float>(extrema.max + part), high);
  }
  if (any(low < state.min[0])) {
    for (int lane = 0; lane < kWidth; ++lane)
      if (low[lane] < state.min[0]) state.min[0] = low[lane];
    state.argmin[0] = start + find_first(block, state.min[0]);
  }
  if (any(high > state.max[0])) {
    for (int lane = 0; lane < kWidth; ++lane)
      if (high[lane] > state.max[0]) state.max[0] = high[lane];
    state.argmax[0] = start + find_first(block, state.max[0]);
  }
}

// First step, lane by lane, that holds `wanted`.
inline Int find_step(const Block& block, int part, Float wanted) {
  Int step{};
  for (int i = block.steps - 1; i >= 0; --i)
    step = load<Float>(block.step(i) + part) == wanted ? Int{} + i : step;
  return step;
}

inline void update_extrema_lanes(const Block& block, int64_t start, const BlockExtrema& extrema,
                                 LaneState& state) {
  for (int part = 0; part < kLanes; part += kWidth) {
    const Float low = load<Float>(extrema.min + part), high = load<Float>(extrema.max + part);
    const Int lower = low < load<Float>(state.min + part);
    const Int higher = high > load<Float>(state.max + part);
    if (any(lower)) {
      const Int step = find_step(block, part, low);
      for (int lane = 0; lane < kWidth; ++lane) {
        if (!lower[lane]) continue;
        state.min[part + lane] = low[lane];
        state.argmin[part + lane] = start + step[lane];
      }
    }
    if (any(higher)) {
      const Int step = find_step(block, part, high);
      for (int lane = 0; lane < kWidth; ++lane) {
        if (!higher[lane]) continue;
        state.max[part + lane] = high[lane];
        state.argmax[part + lane] = start + step[lane];
      }
    }
  }
}

// Histogram bin relative to the zero bin: negative for negative values.
inline Int bin_offset(Float x) {
  constexpr int kFirst = (kFirstExponent + 127) << (23 - kBinShift);
  Int magnitude = ((bits(x) & INT32_MAX) >> kBinShift) - (kFirst - 1);
  magnitude = magnitude > 0 ? magnitude : 0;
  magnitude = magnitude < kBinsPerSign + 1 ? magnitude : kBinsPerSign + 1;
  const Int sign = bits(x) >> 31;
  return (magnitude ^ sign) - sign;
}

// Adds a block of finite values to counts; lane L counts lane_stride * L further on (0 if planar).
inline void count_block(const Block& block, int64_t* counts, int lane_stride) {
  int32_t bins[kSteps * kLanes + kWidth];
  counts += kZeroBin;
  for (int part = 0; part < kLanes; part += kWidth) {
    Int lane_offset{}, exists{}, zeros{};
    for (int lane = 0; lane < kWidth; ++lane) {
      lane_offset[lane] = (part + lane) * lane_stride;
      exists[lane] = part + lane < block.lanes ? -1 : 0;
    }
    int n = 0;
    const int full = block.full();
    for (int i = 0; i < full; ++i) {
      const Int bin = bin_offset(load<Float>(block.step(i) + part));
      const Int other = bin != 0;
      zeros += other + 1;
      n = append(bins, n, bin + lane_offset, other & exists);
    }
    for (int i = 0; i < n; ++i) ++counts[bins[i]];
    for (int lane = 0; lane < kWidth && part + lane < block.lanes; ++lane)
      counts[lane_offset[lane]] += zeros[lane];
  }
}

inline int scalar_bin_offset(float x) { return bin_offset(splat(x))[0]; }

inline void count_carefully(const Block& block, int first_step, int64_t* counts, int lane_stride) {
  for (int i = first_step; i < block.steps; ++i) {
    const int lanes = i < block.full() ? block.lanes : block.last;
    for (int lane = 0; lane < lanes; ++lane) {
      const float x = block.step(i)[lane];
      if (is_finite(x)) ++counts[kZeroBin + lane * lane_stride + scalar_bin_offset(x)];
    }
  }
}

// One block into the state, and into counts unless null.
template <bool kPlanar>
inline void reduce_block(const Block& block, int64_t start, LaneState& state, int64_t* counts) {
  constexpr int kLaneStride = kPlanar ? 0 : kBins;
  BlockExtrema extrema;
  const bool finite = add_block(block, state, extrema);
  if (!finite) add_block_carefully(block, state, extrema);
  if (kPlanar)
    update_extrema_planar(block, start, extrema, state);
  else
    update_extrema_lanes(block, start, extrema, state);
  if (counts == nullptr) return;
  if (finite) count_block(block, counts, kLaneStride);
  count_carefully(block, finite ? block.full() : 0, counts, kLaneStride);
}

}  // namespace
}  // namespace fastconv
