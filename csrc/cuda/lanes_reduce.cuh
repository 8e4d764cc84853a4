// Reductions of x [N, positions, C] whose channels are contiguous.
//
// A thread takes 16 bytes of channels at runs of four consecutive positions, one sum for each
// channel; threads that share channels are put together in the end. At most 32 values go into a
// float32 sum, then float64.
//
// Budget, sm_80 and later: 128 registers (2 blocks of 256 threads; counts of transformed values:
// 255 registers, 1 block), no spills; shared memory: 20,480 bytes, or 87,168 with counts.
#pragma once
#include "planar_reduce.cuh"

namespace fastconv {

constexpr int kRun = 4;    // positions
constexpr int kSteps = 8;  // runs of a thread in a segment
constexpr int kMostLanes = 8;
constexpr int kCountedLanes = 2;  // where values are counted: 32 bytes of channels, a sector

struct LanesParams {
  ChannelReduceParams reduce;
  int width;           // bytes that divide every address of 16 bytes of channels
  int lanes_c;         // threads side by side along the channels: 1, 2, 4 or 8
  int channel_blocks;  // of lanes_c * kVector channels
  int segments;        // of a sample
};

__host__ __device__ inline int lanes_segment(int lanes_c) {
  return kThreads / lanes_c * kSteps * kRun;
}

// Extrema of each channel of a thread: packed as in memory, or as floats once transformed.
template <typename E, bool kPlain>
struct Extrema {
  Words low, high;

  __device__ void clear() {
#pragma unroll
    for (int i = 0; i < 4; ++i) low.w[i] = E::kInfinities, high.w[i] = E::kInfinities | E::kSigns;
  }
  __device__ void add(const Words& x) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      low.w[i] = E::smaller(low.w[i], x.w[i]);
      high.w[i] = E::larger(high.w[i], x.w[i]);
    }
  }
  __device__ float low_of(int j) const { return E::at(low, j); }
  __device__ float high_of(int j) const { return E::at(high, j); }
  __device__ void take(const Extrema& o) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      low.w[i] = E::smaller(low.w[i], o.low.w[i]);
      high.w[i] = E::larger(high.w[i], o.high.w[i]);
    }
  }
};

template <typename E>
struct Extrema<E, false> {
  float low[E::kVector], high[E::kVector];

  __device__ void clear() {
#pragma unroll
    for (int j = 0; j < E::kVector; ++j) low[j] = kInfinite, high[j] = -kInfinite;
  }
  __device__ float low_of(int j) const { return low[j]; }
  __device__ float high_of(int j) const { return high[j]; }
};

template <typename E, bool kPlain, bool kCounts>
struct LanesThread {
  static constexpr int kVector = E::kVector, kHalves = kVector / 4;  // channels of a word
  const ChannelReduceParams& p;
  int width, channels;  // that exist, of kVector
  int64_t sample, first;
  int bin_channel;  // of `first`, in the block
  BlockBins<true> bins;

  float sum[kVector], sumsq[kVector];
  Extrema<E, kPlain> best;
  int argmin[kVector], argmax[kVector];
  uint32_t positive[4];  // of each channel: as E counts, or two integers to a word
  int zeros[kCounts ? kVector : 1];

  __device__ void clear() {
#pragma unroll
    for (int j = 0; j < kVector; ++j) sum[j] = sumsq[j] = 0.0f, argmin[j] = argmax[j] = kNone;
    for (uint32_t& count : positive) count = 0;
    for (int& count : zeros) count = 0;
    best.clear();
  }

  __device__ const typename E::Raw* at(int position) const {
    return static_cast<const typename E::Raw*>(p.x) + sample * p.stride_n + position * p.stride_p +
           first;
  }

  __device__ Words load(int position) const {
    return channels == kVector ? load_words(at(position), width)
                               : load_first<E>(at(position), channels);
  }

  __device__ void values(const Words& x, float (&v)[kVector]) const {
#pragma unroll
    for (int j = 0; j < kVector; ++j) v[j] = E::at(x, j);
    if constexpr (!kPlain) {
#pragma unroll
      for (int j = 0; j < kVector; ++j) {
        if (p.scale != nullptr && j < channels) v[j] = v[j] * __ldg(p.scale + first + j);
        if (p.shift != nullptr && j < channels) v[j] = v[j] + __ldg(p.shift + first + j);
      }
      activate_all(p.activation, v);
    }
  }

  // Counts and lists of the channels of one position.
  __device__ void note(const float (&v)[kVector], int position) {
    if constexpr (kCounts) {
#pragma unroll
      for (int j = 0; j < kVector; ++j)
        if (j < channels && is_finite(v[j])) bins.add(bin_channel + j, bin_of(v[j]), zeros[j]);
    }
    if (p.candidates.threshold != nullptr)
      list_values(p.candidates, first, 1, sample * p.positions + position, 0, channels,
                  four_of(v, 0), four_of(v, 4));
  }

  // One position of a run; packed: its extrema go into those of the run.
  __device__ void add_one(const Words& x, int run, int u, Extrema<E, true>& here) {
    float v[kVector];
    values(x, v);
#pragma unroll
    for (int j = 0; j < kVector; ++j) {
      sum[j] += v[j];
      sumsq[j] = fmaf(v[j], v[j], sumsq[j]);
    }
    if constexpr (kPlain) {
      here.add(x);
#pragma unroll
      for (int i = 0; i < 4; ++i) positive[i] = E::count_positive(positive[i], x.w[i]);
    } else {
#pragma unroll
      for (int j = 0; j < kVector; ++j) {
        positive[j / kHalves] += static_cast<uint32_t>(v[j] > 0.0f) << (16 * (j % kHalves));
        if (v[j] > best.high[j]) best.high[j] = v[j], argmax[j] = run;
        if (v[j] < best.low[j]) best.low[j] = v[j], argmin[j] = run;
      }
    }
    if (kCounts || p.candidates.threshold != nullptr) note(v, run * kRun + u);
  }

  // `count` positions of a run; kRun of them but at the end of the map.
  __device__ void add(const Words (&x)[kRun], int run, int count) {
    Extrema<E, true> here;
    here.clear();
#pragma unroll
    for (int u = 0; u < kRun; ++u)
      if (u < count) add_one(x[u], run, u, here);
    if constexpr (kPlain) {
#pragma unroll
      for (int j = 0; j < kVector; ++j) {
        if (here.high_of(j) > best.high_of(j)) argmax[j] = run;
        if (here.low_of(j) < best.low_of(j)) argmin[j] = run;
      }
      best.take(here);
    }
  }

  // Runs begin, begin + step, ... below end.
  __device__ void walk(int begin, int end, int step) {
    const int positions = static_cast<int>(p.positions);
    if (channels <= 0) return;
    for (int run = begin; run < end && run * kRun < positions; run += step) {
      const int count = min(positions - run * kRun, kRun);
      Words x[kRun];
#pragma unroll
      for (int u = 0; u < kRun; ++u) x[u] = load(min(run * kRun + u, positions - 1));
      add(x, run, count);
    }
  }

  // Whether every sum is what it would be in float64, up to rounding.
  __device__ bool fine() const {
    float all = 0.0f;
#pragma unroll
    for (int j = 0; j < kVector; ++j) all += sumsq[j];
    return all < kMostSquares;
  }

  __device__ float value(int j, int position) const {
    float v[1] = {E::widen(__ldg(at(position) + j))};
    if constexpr (!kPlain) {
      if (p.scale != nullptr) v[0] = v[0] * __ldg(p.scale + first + j);
      if (p.shift != nullptr) v[0] = v[0] + __ldg(p.shift + first + j);
      activate_all(p.activation, v);
    }
    return v[0];
  }

  // One channel again, a value at a time.
  __device__ LaneState carefully(int j, int begin, int end, int step) const {
    LaneState state = nothing();
    const int positions = static_cast<int>(p.positions);
    if (j < channels)
      for (int run = begin; run < end; run += step)
        for (int at = run * kRun; at < min((run + 1) * kRun, positions); ++at)
          add_carefully(state, value(j, at), run);
    return state;
  }

  __device__ LaneState state(int j) const {
    const uint32_t word = positive[j / kHalves];
    int count = static_cast<int>(kHalves == 1 ? word : j % 2 ? word >> 16 : word & 0xffff);
    if constexpr (kPlain && kHalves == 2)
      count = static_cast<int>(j % 2 ? E::high(word) : E::low(word));
    return {sum[j], sumsq[j], best.low_of(j), best.high_of(j), argmin[j], argmax[j], count, 0};
  }
};

template <typename E, bool kPlain, bool kCounts>
__global__ void __launch_bounds__(kThreads, kCounts && !kPlain ? 1 : 2)
    lanes_reduce_kernel(const __grid_constant__ LanesParams q) {
  constexpr int kVector = E::kVector;
  constexpr uint32_t kMostCounted = 65535;  // of a channel between two flushes
  const ChannelReduceParams& p = q.reduce;
  constexpr int kLanes = kCounts ? kCountedLanes : kMostLanes;
  __shared__ LaneState shared[kThreads / 32 * kLanes * kVector];
  FASTCONV_DYNAMIC_SHARED(uint32_t, words);
  const BlockBins<true> bins{words};
  const int lanes_c = kCounts ? kCountedLanes : q.lanes_c;
  const int lane_c = static_cast<int>(threadIdx.x) % lanes_c;
  const int lane_p = static_cast<int>(threadIdx.x) / lanes_c, lanes_p = kThreads / lanes_c;
  const int64_t block_first =
      static_cast<int64_t>(blockIdx.x) % q.channel_blocks * lanes_c * kVector;
  const int64_t left = p.c - block_first;
  const int block_channels = static_cast<int>(left < lanes_c * kVector ? left : lanes_c * kVector);
  if (kCounts) bins.clear(block_channels);
  uint32_t counted = 0;
  const int64_t apart = gridDim.x / q.channel_blocks;
  for (int64_t item = blockIdx.x / q.channel_blocks; item < p.n * q.segments; item += apart) {
    const int64_t sample = item / q.segments;
    const int segment = static_cast<int>(item % q.segments);
    LanesThread<E, kPlain, kCounts> work{
        p,
        q.width,
        static_cast<int>(left - lane_c * kVector < kVector ? left - lane_c * kVector : kVector),
        sample,
        block_first + lane_c * kVector,
        lane_c * kVector,
        bins};
    work.clear();
    const int begin = segment * lanes_p * kSteps + lane_p, end = (segment + 1) * lanes_p * kSteps;
    if (kCounts && (counted += lanes_segment(lanes_c)) > kMostCounted) {
      bins.flush(block_channels, p.histogram + block_first * kBins);
      counted = lanes_segment(lanes_c);
    }
    work.walk(begin, end, lanes_p);
    const bool fine = work.fine();
    LaneState all = merged_block<kVector>(lanes_c, shared, [&](int j) {
      return fine ? work.state(j) : work.carefully(j, begin, end, lanes_p);
    });
    if constexpr (kCounts)
#pragma unroll
      for (int j = 0; j < kVector; ++j)
        if (work.zeros[j]) bins.add_times(lane_c * kVector + j, kZeroBin, work.zeros[j]);
    if (static_cast<int>(threadIdx.x) >= block_channels) continue;
    const int64_t channel = block_first + threadIdx.x;
    work.first = channel;
    const auto first_of = [&](int run, float wanted) {
      if (run == kNone) return kNone;
      int at = run * kRun;
      for (int i = 1; i < kRun && work.value(0, at) != wanted; ++i) ++at;
      return at;
    };
    all.argmax = first_of(all.argmax, all.max);
    all.argmin = first_of(all.argmin, all.min);
    write_state(p.out, (segment * p.n + sample) * p.c + channel, all);
  }
  if (kCounts) bins.flush(block_channels, p.histogram + block_first * kBins);
}

}  // namespace fastconv
