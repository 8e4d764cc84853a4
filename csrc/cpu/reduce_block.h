// Blocks of float32 values in L1, and what is found in one: the place of a value, and the counts.
//
// Values go through 16 lanes, whatever the vector width. Planar: a lane holds every 16th position
// of one channel. Channels last: a lane holds one channel.
#pragma once
#include "../params.h"
#include "vec.h"

namespace fastconv {
namespace {

constexpr int kLanes = 16;
constexpr int kSteps = 64;
constexpr int kAhead = 64;  // steps to prefetch: the arithmetic alone keeps too few reads in flight
constexpr float kInfinity = __builtin_inff();

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

inline bool is_finite(float x) { return x - x == 0.0f; }

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

}  // namespace
}  // namespace fastconv
