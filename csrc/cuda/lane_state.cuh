// Running results of one (sample, channel) in one thread, and how threads put theirs together.
//
// While values go by, argmin and argmax are runs: a run is a few consecutive positions of one
// thread, numbered in their order, so the lowest run with the extremum holds its first position,
// which is looked for once in the end.
#pragma once
#include "element.cuh"

namespace fastconv {

constexpr int kNone = INT_MAX;            // no run, no position
constexpr float kMostSquares = 0x1p120f;  // a float32 sum of squares below it has lost nothing
constexpr float kInfinite = __builtin_inff();
constexpr unsigned kAllLanes = 0xffffffffu;

struct LaneState {
  double sum, sumsq;
  float min, max;
  int argmin, argmax, positive, nonfinite;
};

__device__ inline LaneState nothing() {
  return {0.0, 0.0, kInfinite, -kInfinite, kNone, kNone, 0, 0};
}

// One value at a time, whatever it is: for what the quick way cannot add.
__device__ inline void add_carefully(LaneState& state, float x, int place) {
  if (!is_finite(x)) {
    ++state.nonfinite;
    return;
  }
  state.sum += x;
  state.sumsq += static_cast<double>(x) * x;
  state.positive += x > 0.0f;
  if (x > state.max) state.max = x, state.argmax = place;
  if (x < state.min) state.min = x, state.argmin = place;
}

// Two states as one: the lower run or position wins ties.
__device__ inline LaneState merged(const LaneState& a, const LaneState& b) {
  LaneState m = a;
  m.sum += b.sum;
  m.sumsq += b.sumsq;
  m.positive += b.positive;
  m.nonfinite += b.nonfinite;
  if (b.max > a.max || (b.max == a.max && b.argmax < a.argmax)) m.max = b.max, m.argmax = b.argmax;
  if (b.min < a.min || (b.min == a.min && b.argmin < a.argmin)) m.min = b.min, m.argmin = b.argmin;
  return m;
}

__device__ inline LaneState of_lane_xor(const LaneState& s, int mask) {
  LaneState o;
  o.sum = __shfl_xor_sync(kAllLanes, s.sum, mask);
  o.sumsq = __shfl_xor_sync(kAllLanes, s.sumsq, mask);
  o.min = __shfl_xor_sync(kAllLanes, s.min, mask);
  o.max = __shfl_xor_sync(kAllLanes, s.max, mask);
  o.argmin = __shfl_xor_sync(kAllLanes, s.argmin, mask);
  o.argmax = __shfl_xor_sync(kAllLanes, s.argmax, mask);
  o.positive = __shfl_xor_sync(kAllLanes, s.positive, mask);
  o.nonfinite = __shfl_xor_sync(kAllLanes, s.nonfinite, mask);
  return o;
}

// Of lanes [low, high) apart by powers of two; every lane of the warp takes part. Sums are added in
// one order in both lanes of a pair, so that all lanes hold the same bits.
__device__ inline LaneState merged_lanes(LaneState s, int low, int high) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  for (int mask = low; mask < high; mask *= 2) {
    const LaneState other = of_lane_xor(s, mask);
    s = lane & mask ? merged(other, s) : merged(s, other);
  }
  return s;
}

// Threads of a block in rows of lanes_c (1, 2, 4, 8), each with kChannels channels of its own:
// merges make(j), j < kChannels, over the rows. Thread t < lanes_c * kChannels gets channel t of
// the block; shared has room for warps * lanes_c * kChannels states.
template <int kChannels, typename Make>
__device__ inline LaneState merged_block(int lanes_c, LaneState* shared, const Make& make) {
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
  const int warps = (static_cast<int>(blockDim.x) + 31) / 32, channels = lanes_c * kChannels;
#pragma unroll
  for (int j = 0; j < kChannels; ++j) {
    const LaneState s = merged_lanes(make(j), lanes_c, 32);
    if (lane < lanes_c) shared[warp * channels + lane * kChannels + j] = s;
  }
  __syncthreads();
  LaneState all = nothing();
  if (static_cast<int>(threadIdx.x) < channels)
    for (int i = 0; i < warps; ++i) all = merged(all, shared[i * channels + threadIdx.x]);
  __syncthreads();  // shared may be written again
  return all;
}

// In the final form; argmin and argmax are positions.
__device__ inline void write_state(const ReductionOut& out, int64_t at, const LaneState& state) {
  out.sum[at] = state.sum;
  out.sumsq[at] = state.sumsq;
  out.min[at] = state.min + 0.0f;  // -0 becomes 0
  out.max[at] = state.max + 0.0f;
  out.argmax[at] = state.argmax == kNone ? -1 : state.argmax;
  out.argmin[at] = state.argmin == kNone ? -1 : state.argmin;
  out.positive[at] = state.positive;
  out.nonfinite[at] = state.nonfinite;
}

// Counts of a block in shared memory, [channels, kBins]. kPacked: two to a word, which must be
// flushed before a channel has seen 65536 values.
template <bool kPacked>
struct BlockBins {
  static constexpr int kWords = kPacked ? (kBins + 1) / 2 : kBins;
  uint32_t* words;

  __device__ void clear(int channels) const {
    for (int i = threadIdx.x; i < channels * kWords; i += blockDim.x) words[i] = 0;
    __syncthreads();
  }

  // Zeros, many after a ReLU, would wait for each other: the caller counts them.
  __device__ void add(int channel, int bin, int& zeros) const {
    if (bin == kZeroBin)
      ++zeros;
    else
      add_times(channel, bin, 1);
  }

  __device__ void add_times(int channel, int bin, uint32_t times) const {
    uint32_t* at = words + channel * kWords;
    if (kPacked)
      atomicAdd(at + bin / 2, bin % 2 ? times << 16 : times);
    else
      atomicAdd(at + bin, times);
  }

  // Adds all to histogram [channels, kBins] and clears them.
  __device__ void flush(int channels, int64_t* histogram) const {
    __syncthreads();
    for (int i = threadIdx.x; i < channels * kWords; i += blockDim.x) {
      const uint32_t word = words[i];
      words[i] = 0;
      if (word == 0) continue;
      const int channel = i / kWords, bin = i % kWords * (kPacked ? 2 : 1);
      auto* to = reinterpret_cast<unsigned long long*>(histogram + int64_t{channel} * kBins + bin);
      const uint32_t first = kPacked ? word & 0xffff : word, second = kPacked ? word >> 16 : 0;
      if (first) atomicAdd(to, static_cast<unsigned long long>(first));
      if (second) atomicAdd(to + 1, static_cast<unsigned long long>(second));
    }
    __syncthreads();
  }
};

// Puts a value on the list of its channel, if it reaches the threshold.
__device__ inline void list_candidate(const CandidateLists& lists, int64_t channel, float x,
                                      int64_t place) {
  const float limit = __ldg(lists.threshold + channel);
  if (!is_finite(x) || (lists.largest ? x < limit : x > limit)) return;
  const int slot = atomicAdd(lists.counts + channel, 1);
  if (slot >= lists.capacity) return;
  lists.values[channel * lists.capacity + slot] = x + 0.0f;  // -0 becomes 0
  lists.places[channel * lists.capacity + slot] = place;
}

// Up to eight values: value i is of channel + i * channel_step, at place + i * place_step. Seldom
// wanted, so not inlined.
static __device__ __noinline__ void list_values(const CandidateLists& lists, int64_t channel,
                                                int channel_step, int64_t place, int place_step,
                                                int count, float4 a, float4 b) {
  const float v[8] = {a.x, a.y, a.z, a.w, b.x, b.y, b.z, b.w};
#pragma unroll
  for (int i = 0; i < 8; ++i)
    if (i < count) list_candidate(lists, channel + i * channel_step, v[i], place + i * place_step);
}

// The first and the second four of some values, repeated where there are fewer.
template <int kCount>
__device__ inline float4 four_of(const float (&v)[kCount], int first) {
  const auto at = [&](int i) { return v[(first + i) % kCount]; };
  return make_float4(at(0), at(1), at(2), at(3));
}

}  // namespace fastconv
