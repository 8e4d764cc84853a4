// Every statistic of 16 lanes from blocks of float32 values, read once: beside an extremum stands
// its step, and counts go to a table that stays in the cache.
//
// Planar: a lane holds every 16th position of one channel. Else a lane holds one channel.
#pragma once
#include <cstddef>

#include "reduce_block.h"
#include "transpose.h"

namespace fastconv {
namespace {

// Running results of 16 lanes. Steps are numbered from the start of a sample.
struct alignas(64) LaneTotals {
  double sum[kLanes], sumsq[kLanes];
  float min[kLanes], max[kLanes];
  int32_t min_at[kLanes], max_at[kLanes], positive[kLanes], nonfinite[kLanes];

  void clear() {
    const Int zero{};
    for (int lane = 0; lane < kLanes; lane += kWidth / 2) {
      store(sum + lane, Double{});
      store(sumsq + lane, Double{});
    }
    for (int lane = 0; lane < kLanes; lane += kWidth) {
      store(min + lane, splat(kInfinity));
      store(max + lane, splat(-kInfinity));
      store(min_at + lane, zero - 1);
      store(max_at + lane, zero - 1);
      store(positive + lane, zero);
      store(nonfinite + lane, zero);
    }
  }
};

// Those of the lanes of one vector, in registers.
struct VectorTotals {
  Double sum[2], sumsq[2];
  Float low, high;
  Int low_at, high_at, positive, step;

  // Of no values yet.
  VectorTotals()
      : sum{},
        sumsq{},
        low(splat(kInfinity)),
        high(splat(-kInfinity)),
        low_at(Int{} - 1),
        high_at(Int{} - 1),
        positive{},
        step{} {}

  VectorTotals(const LaneTotals& from, int first, int32_t start) {
    for (int half = 0; half < 2; ++half) {
      sum[half] = load<Double>(from.sum + first + half * (kWidth / 2));
      sumsq[half] = load<Double>(from.sumsq + first + half * (kWidth / 2));
    }
    low = load<Float>(from.min + first);
    high = load<Float>(from.max + first);
    low_at = load<Int>(from.min_at + first);
    high_at = load<Int>(from.max_at + first);
    positive = load<Int>(from.positive + first);
    step = Int{} + start;
  }

  void write(LaneTotals& to, int first) const {
    for (int half = 0; half < 2; ++half) {
      store(to.sum + first + half * (kWidth / 2), sum[half]);
      store(to.sumsq + first + half * (kWidth / 2), sumsq[half]);
    }
    store(to.min + first, low);
    store(to.max + first, high);
    store(to.min_at + first, low_at);
    store(to.max_at + first, high_at);
    store(to.positive + first, positive);
  }

  template <bool kPlaces = true, bool kLowest = true>
  void add(const float* p) {
    const Float x = load<Float>(p);
    for (int half = 0; half < 2; ++half) add_half(half, load_wide(p + half * (kWidth / 2)));
    positive = count_positive(positive, x);
    add_extrema<kPlaces, kLowest>(x, x);
  }

  // The first n values at p.
  void add_first(const float* p, int n) {
    for (int half = 0; half < 2; ++half) {
      const int first = half * (kWidth / 2);
      add_half(half, load_wide_first(p + first, n - first));
    }
    positive = count_positive(positive, load_first(p, n, Float{}));
    add_extrema<true, true>(load_first(p, n, splat(kInfinity)),
                            load_first(p, n, splat(-kInfinity)));
  }

  void add_half(int half, Double wide) {
    sum[half] += wide;
    sumsq[half] = add_square(sumsq[half], wide);
  }

  // The first of equal values stays.
  template <bool kPlaces, bool kLowest>
  void add_extrema(Float lowest, Float highest) {
    if (kPlaces && kLowest) low_at = where_less(lowest, low, step, low_at);
    if (kLowest) low = min(lowest, low);
    if (kPlaces) high_at = where_less(high, highest, step, high_at);
    high = max(highest, high);
    if (kPlaces) step += 1;
  }

  // Steps of extrema beyond those before, in lanes of a block from `first` on.
  void find_places(const Block& block, int first, Float lowest, Float highest) {
    if (lanes_less(low, lowest))
      low_at = where_less(low, lowest, step + find_step(block, first, low), low_at);
    if (lanes_less(highest, high))
      high_at = where_less(highest, high, step + find_step(block, first, high), high_at);
  }
};

// Counts [kBins, 16] of 16 channels, lanes side by side, as values that occur are few. A lane takes
// at most kMostCounted values until they are added to the histogram.
using LaneCounts = ByBin<kLanes, uint16_t>;
constexpr int64_t kCountTable = int64_t{(kBins + 7) / 8 * 8} * kLanes;  // whole rows of eight
constexpr int64_t kMostCounted = UINT16_MAX;
constexpr int kRowAhead = 512;  // steps to prefetch of memory that is read in order

// Counts the values of a block, some steps late: what was just stored cannot be loaded in parts.
struct StepCounter {
  static constexpr int kBehind = 8;
  uint16_t* counts;  // of the zero bin of the first lane
  alignas(64) int32_t row[kSteps * kWidth];

  void add(int i, const float* p) {
    store(row + i * kWidth, bin_offset(load<Float>(p)) * LaneCounts::kBin);
    if (i >= kBehind) count(i - kBehind);
  }

  void finish(int steps) {
    for (int i = steps < kBehind ? 0 : steps - kBehind; i < steps; ++i) count(i);
  }

  void count(int i) {
    const int32_t* rows = row + i * kWidth;
#pragma GCC unroll 16
    for (int lane = 0; lane < kWidth; ++lane) ++counts[int64_t{rows[lane]} + lane];
  }
};

// Until here in a sample a block that has no new extremum in any lane is rare.
constexpr int32_t kNewExtrema = 512;

// Adds kBlocks blocks side by side, whose steps begin at `start`, to the totals, and where kCounts
// counts the values of the first; false, and the totals as they were, if a value is not finite: its
// square, and only such a square, is not finite in float64. kPlaces: steps of extrema are kept
// while adding, else they are looked for after a block that has new ones, whose steps are all of 16
// values. kLowest: else no value is below the minima so far. Never inlined: among other code its
// loops lose registers.
template <bool kCounts, bool kPlaces = true, bool kLowest = true, int kBlocks = 1>
__attribute__((noinline)) bool add_finite(const Block& block, int32_t start, LaneTotals* totals,
                                          uint16_t* counts) {
  LaneTotals after[kBlocks];
  bool finite = true;
  const int full = block.full();
  for (int first = 0; first < kLanes; first += kWidth) {
    VectorTotals now[kBlocks];
#pragma GCC unroll 2
    for (int b = 0; b < kBlocks; ++b) now[b] = VectorTotals(totals[b], first, start);
    StepCounter counter;
    if constexpr (kCounts) counter.counts = counts + kZeroBin * LaneCounts::kBin + first;
    const float* p = block.values + first;
    const char* ahead = block.ahead == nullptr ? reinterpret_cast<const char*>(p) : block.ahead;
    for (int i = 0; i < full; ++i, p += block.stride, ahead += block.ahead_step) {
      __builtin_prefetch(ahead);
#pragma GCC unroll 2
      for (int b = 0; b < kBlocks; ++b) now[b].template add<kPlaces, kLowest>(p + b * kLanes);
      if constexpr (kCounts) counter.add(i, p);
    }
    if constexpr (kCounts) counter.finish(full);
#pragma GCC unroll 2
    for (int b = 0; b < kBlocks; ++b) {
      if (kPlaces && block.last < kLanes) now[b].add_first(p + b * kLanes, block.last - first);
      finite &= all_finite(now[b].sumsq[0] + now[b].sumsq[1]);
    }
    if (kWidth == kLanes && !finite) return false;
#pragma GCC unroll 2
    for (int b = 0; b < kBlocks; ++b) {
      if (!kPlaces)
        now[b].find_places(block, b * kLanes + first, load<Float>(totals[b].min + first),
                           load<Float>(totals[b].max + first));
      now[b].write(kWidth < kLanes ? after[b] : totals[b], first);
    }
  }
  if (kWidth < kLanes && finite)
    for (int b = 0; b < kBlocks; ++b)
      __builtin_memcpy(&totals[b], &after[b], offsetof(LaneTotals, nonfinite));
  return finite;
}

// The totals of `rows` planar rows, `pitch` floats apart; one bit for each that holds a non-finite
// value, whose totals are wrong. One call for many rows, as short ones are soon done.
__attribute__((noinline)) inline unsigned add_rows(const float* x, int64_t pitch, int rows,
                                                   int64_t positions, LaneTotals* totals) {
  const int64_t full = positions / kLanes * kLanes;
  const int rest = static_cast<int>(positions - full);
  unsigned bad = 0;
  for (int r = 0; r < rows; ++r, x += pitch)
    for (int first = 0; first < kLanes; first += kWidth) {
      VectorTotals now;
      const float* p = x + first;
      for (const float* end = p + full; p < end; p += kLanes) {
        __builtin_prefetch(p + kRowAhead * kLanes);
        now.add(p);
      }
      if (rest > 0) now.add_first(p, rest - first);
      bad |= static_cast<unsigned>(!all_finite(now.sumsq[0] + now.sumsq[1])) << r;
      now.write(totals[r], first);
      store(totals[r].nonfinite + first, Int{});
    }
  return bad;
}

// The same for a block with non-finite values, one value at a time; all of them were counted, so
// these are taken back.
inline void add_carefully(const Block& block, int32_t start, LaneTotals& totals, uint16_t* counts) {
  for (int i = 0; i < block.steps; ++i) {
    const int lanes = i < block.full() ? kLanes : block.last;
    for (int lane = 0; lane < lanes; ++lane) {
      const float x = block.step(i)[lane];
      if (!is_finite(x)) {
        ++totals.nonfinite[lane];
        if (counts != nullptr) --counts[(kZeroBin + bin_offset(splat(x))[0]) * kLanes + lane];
        continue;
      }
      const double wide = x;
      totals.sum[lane] += wide;
      totals.sumsq[lane] += wide * wide;
      totals.positive[lane] += x > 0.0f;
      if (x < totals.min[lane]) totals.min[lane] = x, totals.min_at[lane] = start + i;
      if (x > totals.max[lane]) totals.max[lane] = x, totals.max_at[lane] = start + i;
    }
  }
}

// One block into the totals and, unless null, the counts of its lanes; returns whether all is
// finite.
inline bool reduce_lanes(const Block& block, int32_t start, LaneTotals& totals, uint16_t* counts) {
  const bool finite = counts == nullptr ? add_finite<false>(block, start, &totals, counts)
                                        : add_finite<true>(block, start, &totals, counts);
  if (!finite) add_carefully(block, start, totals, counts);
  return finite;
}

// The first of the positions 16 * step + lane of the lanes that hold `wanted`.
inline int32_t first_position(const float* values, const int32_t* steps, float wanted) {
  alignas(64) int32_t position[kLanes];
  for (int first = 0; first < kLanes; first += kWidth) {
    const Int here = load<Int>(steps + first) * kLanes + lane_numbers(first);
    const Int others = Int{} + INT32_MAX;
    store(position + first, load<Float>(values + first) == splat(wanted) ? here : others);
  }
  return min_16(position);
}

// The lanes of a planar row as the results of row `at`.
inline void write_joined(const ReductionOut& out, int64_t at, const LaneTotals& totals) {
  const float low = min_16(totals.min), high = max_16(totals.max);
  out.sum[at] = sum_16(totals.sum);
  out.sumsq[at] = sum_16(totals.sumsq);
  out.min[at] = low;
  out.max[at] = high;
  out.argmin[at] = low < kInfinity ? first_position(totals.min, totals.min_at, low) : -1;
  out.argmax[at] = high > -kInfinity ? first_position(totals.max, totals.max_at, high) : -1;
  out.positive[at] = sum_16(totals.positive);
  out.nonfinite[at] = sum_16(totals.nonfinite);
}

// The first `channels` lanes, as the results of row `at` on.
inline void write_lanes(const ReductionOut& out, int64_t at, const LaneTotals& totals,
                        int channels) {
  auto copy = [&](auto* to, const auto* from) {
    for (int lane = 0; lane < channels; ++lane) to[at + lane] = from[lane];
  };
  copy(out.sum, totals.sum);
  copy(out.sumsq, totals.sumsq);
  copy(out.min, totals.min);
  copy(out.max, totals.max);
  copy(out.argmin, totals.min_at);
  copy(out.argmax, totals.max_at);
  copy(out.positive, totals.positive);
  copy(out.nonfinite, totals.nonfinite);
}

inline bool all_zero(const uint16_t* values, int n) {  // n: a multiple of 2 kWidth
  Int any{};
  for (int i = 0; i < n; i += 2 * kWidth) any |= load<Int>(values + i);
  return lane_bits(any != 0) == 0;
}

// turned [16, 8] = rows [8, 16] of counts.
inline void turn_counts(const uint16_t* rows, int32_t* turned) {
#if defined(__AVX2__)
  for (int lane = 0; lane < kLanes; lane += 8)
    transpose_eight<CountElement>(rows + lane, kLanes, [&](int i) {
      return reinterpret_cast<float*>(turned + (lane + i) * 8);
    });
#else
  for (int lane = 0; lane < kLanes; ++lane)
    for (int i = 0; i < 8; ++i) turned[lane * 8 + i] = rows[i * kLanes + lane];
#endif
}

// Adds a table to the histogram [channels, kBins] of up to 16 channels, and leaves zeros behind.
inline void add_counts(uint16_t* table, int64_t* histogram, int channels) {
  constexpr int kRows = 8;
  alignas(64) int32_t turned[kLanes][kRows] = {};
  for (int bin = 0; bin < kBins; bin += kRows, table += kRows * kLanes) {
    if (all_zero(table, kRows * kLanes)) continue;
    turn_counts(table, &turned[0][0]);
    const int rows = kBins - bin < kRows ? kBins - bin : kRows;
    for (int c = 0; c < channels; ++c)
      for (int i = 0; i < rows; ++i) histogram[c * kBins + bin + i] += turned[c][i];
    __builtin_memset(table, 0, kRows * kLanes * sizeof *table);
  }
}

}  // namespace
}  // namespace fastconv
