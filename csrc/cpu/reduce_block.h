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
constexpr int kAhead = 64;  // steps to prefetch: the arithmetic alone keeps too few reads in flight
constexpr float kInfinity = __builtin_inff();

// Running results of 16 lanes; extrema of a planar row stand in lane 0.
struct alignas(64) LaneState {
  double sum[kLanes], sumsq[kLanes];
  int64_t positive[kLanes], nonfinite[kLanes];
  float min[kLanes], max[kLanes];
  int64_t argmin[kLanes], argmax[kLanes];

  void clear() {
    const Double zero{};
    for (int lane = 0; lane < kLanes; lane += kWidth / 2) {
      store(sum + lane, zero);
      store(sumsq + lane, zero);
      store(positive + lane, zero);
      store(nonfinite + lane, zero);
      store(argmin + lane, (Long)zero - 1);
      store(argmax + lane, (Long)zero - 1);
    }
    for (int lane = 0; lane < kLanes; lane += kWidth) {
      store(min + lane, splat(kInfinity));
      store(max + lane, splat(-kInfinity));
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
  const char* ahead = nullptr;  // to fetch, `ahead_step` bytes a step; or nothing
  int64_t ahead_step = 0;

  int full() const { return last == kLanes ? steps : steps - 1; }
  const float* step(int i) const { return values + i * stride; }
};

struct alignas(64) BlockExtrema {
  float min[kLanes], max[kLanes];
};

inline bool is_finite(float x) { return x - x == 0.0f; }

// Sums and extrema of the lanes of one vector.
struct Accumulator {
  Double sum[2], sumsq[2];
  Int positive{};
  Float low = splat(kInfinity), high = splat(-kInfinity);

  void add(const float* p) {
    const Float x = load<Float>(p);
    for (int half = 0; half < 2; ++half) {
      const Double wide = load_wide(p + half * (kWidth / 2));
      sum[half] += wide;
      sumsq[half] = add_square(sumsq[half], wide);
    }
    positive = count_positive(positive, x);
    low = min(x, low);
    high = max(x, high);
  }

  // The first n values at p; zeros change no sum, repetitions no extremum.
  void add_first(const float* p, int n) {
    const Float extremum[2] = {low, high};
    alignas(64) float padded[kWidth];
    store(padded, load_first(p, n, Float{}));
    add(padded);
    low = min(load_first(p, n, extremum[0]), extremum[0]);
    high = max(load_first(p, n, extremum[1]), extremum[1]);
  }
};

// Adds kBlocks blocks side by side to the sums and counts and finds their extrema per lane; false,
// and the states as they were, if a value is not finite: its square, and only such a square, is not
// finite in float64. Vectors take turns where registers allow: an addition takes several cycles.
template <int kBlocks>
inline bool add_blocks(const Block& block, LaneState* states, BlockExtrema* extrema) {
  constexpr int kHalf = kWidth / 2, kVectors = kBlocks * kLanes / kWidth;
  constexpr int kTogether = kWidth == kLanes ? kVectors : 1;
  Accumulator parts[kVectors];
  const float* p = block.values;
  for (int part = 0; part < kVectors; part += kTogether, p += kTogether * kWidth) {
    Accumulator a[kTogether];
    for (int v = 0; v < kTogether; ++v)
      for (int half = 0; half < 2; ++half) {
        const int lane = (part + v) * kWidth + half * kHalf;
        const LaneState& state = states[lane / kLanes];
        a[v].sum[half] = load<Double>(state.sum + lane % kLanes);
        a[v].sumsq[half] = load<Double>(state.sumsq + lane % kLanes);
      }
    const float* x = p;
    const int full = block.full();
    const char* ahead = block.ahead == nullptr ? reinterpret_cast<const char*>(p) : block.ahead;
    for (int i = 0; i < full; ++i, x += block.stride, ahead += block.ahead_step) {
      __builtin_prefetch(ahead);
      for (int v = 0; v < kTogether; ++v) a[v].add(x + v * kWidth);
    }
    for (int v = 0; v < kTogether; ++v) {
      if (block.last < kLanes)
        a[v].add_first(x + v * kWidth, block.last - (part + v) * kWidth % kLanes);
      if (!all_finite(a[v].sumsq[0] + a[v].sumsq[1])) return false;
      parts[part + v] = a[v];
    }
  }
  for (int part = 0; part < kVectors; ++part) {
    LaneState& state = states[part * kWidth / kLanes];
    const int first = part * kWidth % kLanes;
    const Accumulator& a = parts[part];
    for (int half = 0; half < 2; ++half) {
      store(state.sum + first + half * kHalf, a.sum[half]);
      store(state.sumsq + first + half * kHalf, a.sumsq[half]);
    }
    alignas(64) int32_t positive[kWidth];
    store(positive, a.positive);
    for (int lane = 0; lane < kWidth; ++lane) state.positive[first + lane] += positive[lane];
    store(extrema[part * kWidth / kLanes].min + first, a.low);
    store(extrema[part * kWidth / kLanes].max + first, a.high);
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

// First step, lane by lane, that holds `wanted`; no branch depends on the data.
inline Int find_step(const Block& block, int part, Float wanted) {
  const int full = block.full();
  Int i = Int{} + full, step{};
  if (full < block.steps) step = i;
  for (const float* p = block.step(full - 1) + part; p >= block.values; p -= block.stride) {
    i -= 1;
    step = load<Float>(p) == wanted ? i : step;
  }
  return step;
}

// Where `better` has a bit, the value and its position replace those of the lane.
inline void replace_extrema(const Block& block, int64_t start, int part, unsigned better,
                            Float value, float* values, int64_t* positions) {
  if (!better) return;
  alignas(64) float value_of[kWidth];
  alignas(64) int32_t step_of[kWidth];
  store(value_of, value);
  store(step_of, find_step(block, part, value));
  for (; better; better &= better - 1) {
    const int lane = __builtin_ctz(better);
    values[part + lane] = value_of[lane];
    positions[part + lane] = start + step_of[lane];
  }
}

inline void update_extrema_lanes(const Block& block, int64_t start, const BlockExtrema& extrema,
                                 LaneState& state) {
  for (int part = 0; part < kLanes; part += kWidth) {
    const Float low = load<Float>(extrema.min + part), high = load<Float>(extrema.max + part);
    const unsigned lower = lanes_less(low, load<Float>(state.min + part));
    const unsigned higher = lanes_less(load<Float>(state.max + part), high);
    replace_extrema(block, start, part, lower, low, state.min, state.argmin);
    replace_extrema(block, start, part, higher, high, state.max, state.argmax);
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

// Where the count of a bin of a lane is.
struct ByChannel {  // [lanes, kBins], as the result has them
  using Count = int64_t;
  static constexpr int kLane = kBins, kBin = 1;
};

template <int kChannels, typename Counter = int32_t>
struct ByBin {  // [kBins, kChannels]: lanes side by side, as values that occur are few
  using Count = Counter;
  static constexpr int kLane = 1, kBin = kChannels;
};

// Increments counts[list[i]], i < n.
template <typename Count>
inline void increment(Count* counts, const int32_t* list, int n) {
  int i = 0;
  for (; i + 4 <= n; i += 4)
    for (int j = 0; j < 4; ++j) ++counts[list[i + j]];
  for (; i < n; ++i) ++counts[list[i]];
}

// Adds a planar block of finite values to the counts of its channel. Zeros, many after a ReLU,
// would wait for each other: they are what remains.
inline void count_block_planar(const Block& block, int64_t* counts) {
  int32_t bins[kSteps * kLanes + kWidth];
  int n = 0;
  for (int i = 0; i < block.steps; ++i)
    for (int part = 0; part < kLanes; part += kWidth) {
      const float* p = block.step(i) + part;
      const int valid = i < block.full() ? kWidth : block.last - part;
      const Int bin = bin_offset(valid < kWidth ? load_first(p, valid, Float{}) : load<Float>(p));
      n = append(bins, n, bin, bin != 0);
    }
  increment(counts + kZeroBin, bins, n);
  counts[kZeroBin] += (block.steps - 1) * kLanes + block.last - n;
}

// The same for lanes that are channels.
template <typename Layout>
inline void count_block_lanes(const Block& block, typename Layout::Count* counts) {
  int32_t bins[kSteps * kLanes];
  for (int part = 0; part < kLanes; part += kWidth) {
    const Int lane_offset = lane_numbers(part) * Layout::kLane + kZeroBin * Layout::kBin;
    for (int i = 0; i < block.steps; ++i)
      store(bins + i * kLanes + part,
            bin_offset(load<Float>(block.step(i) + part)) * Layout::kBin + lane_offset);
  }
  for (int i = 0; i < block.steps; ++i) increment(counts, bins + i * kLanes, block.lanes);
}

// The same with non-finite values among them; planar: all lanes are of one channel.
template <bool kPlanar, typename Layout>
inline void count_block_carefully(const Block& block, typename Layout::Count* counts) {
  for (int i = 0; i < block.steps; ++i) {
    const int lanes = i < block.full() ? block.lanes : block.last;
    for (int lane = 0; lane < lanes; ++lane) {
      const float x = block.step(i)[lane];
      const int bin = kZeroBin + bin_offset(splat(x))[0];
      if (is_finite(x)) ++counts[bin * Layout::kBin + (kPlanar ? 0 : lane * Layout::kLane)];
    }
  }
}

// The rest of a block that add_blocks took, all of it where it found values that are not finite.
template <typename Layout>
inline void complete_block(const Block& block, int64_t start, bool finite, LaneState& state,
                           typename Layout::Count* counts, BlockExtrema& extrema) {
  if (!finite) add_block_carefully(block, state, extrema);
  update_extrema_lanes(block, start, extrema, state);
  if (counts == nullptr) return;
  if (!finite) return count_block_carefully<false, Layout>(block, counts);
  count_block_lanes<Layout>(block, counts);
}

}  // namespace
}  // namespace fastconv
