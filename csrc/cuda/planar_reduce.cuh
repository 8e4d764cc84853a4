// Reductions of x [N, C, positions] whose positions are contiguous.
//
// A row segment belongs to a group of 8 or 32 lanes. A lane takes every kGroup-th run of 16 bytes:
// which one does not depend on how the row is aligned, and so neither do the bits of a sum.
//
// Budget, sm_80 and later: 128 registers (2 blocks of 256 threads), no spills; shared memory: none,
// or 10,256 bytes of counts.
#pragma once
#include "lane_state.cuh"

namespace fastconv {

constexpr int kThreads = 256;
constexpr int kPlanarSegment = 8192;  // positions; a multiple of any run
constexpr int kPlanarUnroll = 4;      // reads of 16 bytes that a lane has in flight
constexpr int kShortRow = 512;        // positions up to which 8 lanes share a row

struct PlanarParams {
  ChannelReduceParams reduce;
  int width;     // bytes that divide every row's address
  int segments;  // of a row
  int blocks;    // that share a channel, where values are counted
};

// What one lane does with its share of a row segment.
template <typename E, bool kPlain, bool kCounts>
struct PlanarLane {
  const ChannelReduceParams& p;
  const typename E::Raw* row;
  int64_t sample;
  int channel;
  float scale, shift;
  BlockBins<false> bins;
  LaneState state;
  int zeros;

  template <int kCount>
  __device__ void transform(float (&v)[kCount]) const {
    if constexpr (!kPlain) {
#pragma unroll
      for (int i = 0; i < kCount; ++i) {
        if (p.scale != nullptr) v[i] = v[i] * scale;
        if (p.shift != nullptr) v[i] = v[i] + shift;
      }
      activate_all(p.activation, v);
    }
  }

  __device__ float value(int position) const {
    float v[1] = {E::widen(__ldg(row + position))};
    transform(v);
    return v[0];
  }

  // Counts and lists of one value, which may be any.
  __device__ void note(float x, int position) {
    if constexpr (kCounts)
      if (is_finite(x)) bins.add(0, bin_of(x), zeros);
    if (p.candidates.threshold != nullptr)
      list_candidate(p.candidates, channel, x, sample * p.positions + position);
  }

  __device__ void extrema(float low, float high, int run) {
    if (high > state.max) state.max = high, state.argmax = run;
    if (low < state.min) state.min = low, state.argmin = run;
  }

  // kCount full runs from `run` on, `step` apart.
  template <int kCount>
  __device__ void add(const Words (&x)[kCount], int run, int step) {
    constexpr int kVector = E::kVector;
    float sum = 0.0f, sumsq = 0.0f;
    uint32_t count = 0;
#pragma unroll
    for (int u = 0; u < kCount; ++u) {
      float v[kVector];
#pragma unroll
      for (int i = 0; i < kVector; ++i) v[i] = E::at(x[u], i);
      transform(v);
#pragma unroll
      for (int i = 0; i < kVector; ++i) {
        sum += v[i];
        sumsq = fmaf(v[i], v[i], sumsq);
      }
      float low, high;
      if constexpr (kPlain) {
        const uint32_t (&w)[4] = x[u].w;
        const uint32_t l = E::smaller(E::smaller(w[0], w[1]), E::smaller(w[2], w[3]));
        const uint32_t h = E::larger(E::larger(w[0], w[1]), E::larger(w[2], w[3]));
        low = fminf(E::low(l), E::high(l)), high = fmaxf(E::low(h), E::high(h));
#pragma unroll
        for (int i = 0; i < 4; ++i) count = E::count_positive(count, w[i]);
      } else {
        low = high = v[0];
#pragma unroll
        for (int i = 0; i < kVector; ++i) {
          low = fminf(low, v[i]), high = fmaxf(high, v[i]);
          state.positive += v[i] > 0.0f;
        }
      }
      const int at = run + u * step;
      extrema(low, high, at);
      const CandidateLists& lists = p.candidates;
      const bool listed =
          lists.threshold != nullptr && (lists.largest ? high >= __ldg(lists.threshold + channel)
                                                       : low <= __ldg(lists.threshold + channel));
      if (listed)
        list_values(lists, channel, 0, sample * p.positions + at * kVector, 1, kVector,
                    four_of(v, 0), four_of(v, 4));
      if constexpr (kCounts) {
#pragma unroll
        for (int i = 0; i < kVector; ++i)
          if (is_finite(v[i])) bins.add(0, bin_of(v[i]), zeros);
      }
    }
    if constexpr (kPlain) state.positive += E::counted(count);
    state.sum += sum;
    state.sumsq += sumsq;
  }

  // The share of lane `lane` of `lanes` in runs [begin, end); positions end at `positions`.
  __device__ void walk(int begin, int end, int lane, int lanes, int width) {
    constexpr int kVector = E::kVector;
    const int positions = static_cast<int>(p.positions), full = positions / kVector;
    int run = begin + lane;
    for (; run + (kPlanarUnroll - 1) * lanes < min(end, full); run += kPlanarUnroll * lanes) {
      Words x[kPlanarUnroll];
#pragma unroll
      for (int u = 0; u < kPlanarUnroll; ++u)
        x[u] = load_words(row + (run + u * lanes) * kVector, width);
      add(x, run, lanes);
    }
    for (; run < min(end, full); run += lanes) {
      const Words x[1] = {load_words(row + run * kVector, width)};
      add(x, run, lanes);
    }
    if (run != full || run >= end) return;
    for (int i = full * kVector; i < positions; ++i) {  // the end of the row: less than a run
      const float x = value(i);
      note(x, i);
      state.sum += x;
      state.sumsq += static_cast<double>(x) * x;
      state.positive += x > 0.0f;
      extrema(x, x, run);
    }
  }

  // The same again, where a value is not finite, or its square is not a float32.
  __device__ void walk_carefully(int begin, int end, int lane, int lanes) {
    state = nothing();
    const int positions = static_cast<int>(p.positions);
    for (int run = begin + lane; run < end; run += lanes)
      for (int i = run * E::kVector; i < min((run + 1) * E::kVector, positions); ++i)
        add_carefully(state, value(i), run);
  }
};

// The first position of a run that holds `wanted`, one lane of the group for each; kNone if none.
template <int kGroup, int kVector, typename Value>
__device__ inline int first_in_run(int run, float wanted, int positions, const Value& value) {
  const int lane = static_cast<int>(threadIdx.x) % kGroup, at = run * kVector + lane;
  const bool hit = run != kNone && lane < kVector && at < positions && value(at) == wanted;
  unsigned hits = __ballot_sync(kAllLanes, hit);
  if constexpr (kGroup < 32)
    hits = (hits >> (threadIdx.x % 32 / kGroup * kGroup)) & ((1u << kGroup) - 1);
  return hits == 0 ? kNone : run * kVector + __ffs(static_cast<int>(hits)) - 1;
}

// Which row segment an item is: those of one channel (counted), or all, channels side by side.
struct PlanarItem {
  int64_t sample, channel;
  int segment;
};

template <bool kCounts>
__device__ inline PlanarItem planar_item(const PlanarParams& q, int64_t item) {
  const int64_t row = item / q.segments;
  const int segment = static_cast<int>(item % q.segments);
  if (kCounts) return {row, static_cast<int64_t>(blockIdx.x) / q.blocks, segment};
  return {row / q.reduce.c, row % q.reduce.c, segment};
}

template <typename E, bool kPlain, int kGroup, bool kCounts>
__global__ void __launch_bounds__(kThreads, 2)
    planar_reduce_kernel(const __grid_constant__ PlanarParams q) {
  constexpr int kGroups = kThreads / kGroup, kRuns = kPlanarSegment / E::kVector;
  const ChannelReduceParams& p = q.reduce;
  __shared__ uint32_t counts[kCounts ? BlockBins<false>::kWords : 1];
  const BlockBins<false> bins{counts};
  if (kCounts) bins.clear(1);
  const int group = static_cast<int>(threadIdx.x) / kGroup;
  const int lane = static_cast<int>(threadIdx.x) % kGroup;
  const int64_t items = (kCounts ? p.n : p.n * p.c) * q.segments;
  const int64_t block = kCounts ? blockIdx.x % q.blocks : blockIdx.x;
  const int64_t apart = int64_t{kCounts ? q.blocks : static_cast<int>(gridDim.x)} * kGroups;
  const int positions = static_cast<int>(p.positions);
  int zeros = 0;
  for (int64_t base = block * kGroups; base < items; base += apart) {  // the whole block together
    const bool active = base + group < items;
    const PlanarItem item = planar_item<kCounts>(q, active ? base + group : base);
    const auto* x = static_cast<const typename E::Raw*>(p.x);
    PlanarLane<E, kPlain, kCounts> work{p,
                                        x + item.sample * p.stride_n + item.channel * p.stride_c,
                                        item.sample,
                                        static_cast<int>(item.channel),
                                        p.scale != nullptr ? __ldg(p.scale + item.channel) : 1.0f,
                                        p.shift != nullptr ? __ldg(p.shift + item.channel) : 0.0f,
                                        bins,
                                        nothing(),
                                        0};
    const int begin = item.segment * kRuns;
    const int end = min(begin + kRuns, (positions + E::kVector - 1) / E::kVector);
    if (active) {
      work.walk(begin, end, lane, kGroup, q.width);
      if (!(work.state.sumsq < kMostSquares)) work.walk_carefully(begin, end, lane, kGroup);
    }
    zeros += work.zeros;
    LaneState all = merged_lanes(work.state, 1, kGroup);
    const auto value = [&](int at) { return work.value(at); };
    all.argmax = first_in_run<kGroup, E::kVector>(all.argmax, all.max, positions, value);
    all.argmin = first_in_run<kGroup, E::kVector>(all.argmin, all.min, positions, value);
    const int64_t row = item.segment * p.n + item.sample;
    if (active && lane == 0) write_state(p.out, row * p.c + item.channel, all);
  }
  if (kCounts) {
    if (zeros) bins.add_times(0, kZeroBin, zeros);
    bins.flush(1, p.histogram + static_cast<int64_t>(blockIdx.x) / q.blocks * kBins);
  }
}

}  // namespace fastconv
