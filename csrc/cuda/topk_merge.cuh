// Running top-k per channel: an entry's slot is how many come before it in the total order.
//
// A block takes a channel. Candidates that cannot enter, worse than all k running entries, are left
// out first; after a few batches these are nearly all.
//
// Budget, sm_80 and later: 64 registers, no spills; 8,204 bytes of shared memory.
#pragma once
#include "lane_state.cuh"

namespace fastconv {

constexpr int kTopkThreads = 256;
constexpr int kListed = 2048;  // entries left that are listed; beyond, all are looked at

// The entries of one channel: the running ones, then the candidates.
struct TopkEntries {
  const TopkMergeParams& p;
  int64_t channel;

  __device__ int64_t offset(int64_t i) const {
    return i < p.k ? channel * p.k + i : channel * p.candidates + i - p.k;
  }
  __device__ float value(int64_t i) const {
    return __ldg((i < p.k ? p.values : p.new_values) + offset(i));
  }
  __device__ int64_t sample(int64_t i) const {
    return (i < p.k ? p.samples : p.new_samples)[offset(i)];
  }
  __device__ int64_t position(int64_t i) const {
    return (i < p.k ? p.positions : p.new_positions)[offset(i)];
  }
  __device__ bool valid(int64_t i) const { return sample(i) >= 0 && is_finite(value(i)); }

  // Whether a ranks before b in the total order: value, sample, position, index.
  __device__ bool before(int64_t a, int64_t b, float value_of_b) const {
    const float value_of_a = value(a);
    if (value_of_a != value_of_b)
      return p.largest ? value_of_a > value_of_b : value_of_a < value_of_b;
    const int64_t sample_a = sample(a), sample_b = sample(b);
    if (sample_a != sample_b) return sample_a < sample_b;
    const int64_t position_a = position(a), position_b = position(b);
    return position_a != position_b ? position_a < position_b : a < b;
  }
};

// Unsigned integers in the order of values, the best lowest; -0 is 0.
__device__ inline unsigned topk_key(float value, bool largest) {
  const unsigned bits = __float_as_uint(value + 0.0f);
  const unsigned ascending = bits & 0x80000000u ? ~bits : bits | 0x80000000u;
  return largest ? ~ascending : ascending;
}

__global__ void __launch_bounds__(kTopkThreads)
    topk_merge_kernel(const __grid_constant__ TopkMergeParams p) {
  __shared__ int listed;
  __shared__ unsigned worst;  // key of the running entries
  __shared__ int list[kListed];
  const TopkEntries entries{p, static_cast<int64_t>(blockIdx.x)};
  const int64_t total = p.k + p.candidates;
  if (threadIdx.x == 0) listed = 0, worst = 0;
  __syncthreads();
  for (int64_t i = threadIdx.x; i < p.k; i += blockDim.x)
    atomicMax(&worst, entries.valid(i) ? topk_key(entries.value(i), p.largest) : 0xffffffffu);
  __syncthreads();
  for (int64_t i = threadIdx.x; i < total; i += blockDim.x) {
    if (!entries.valid(i)) continue;
    if (i >= p.k && topk_key(entries.value(i), p.largest) > worst) continue;
    const int slot = atomicAdd(&listed, 1);
    if (slot < kListed) list[slot] = static_cast<int>(i);
  }
  __syncthreads();
  const int64_t to = static_cast<int64_t>(blockIdx.x) * p.k;
  const bool all = listed > kListed;
  const int64_t count = all ? total : listed;
  for (int64_t i = threadIdx.x; i < count; i += blockDim.x) {
    const int64_t mine = all ? i : list[i];
    if (all && !entries.valid(mine)) continue;
    const float value = entries.value(mine);
    int64_t rank = 0;
    for (int64_t o = 0; o < count && rank < p.k; ++o) {
      const int64_t other = all ? o : list[o];
      rank += (!all || entries.valid(other)) && entries.before(other, mine, value);
    }
    if (rank >= p.k) continue;
    p.out_values[to + rank] = value;
    p.out_samples[to + rank] = entries.sample(mine);
    p.out_positions[to + rank] = entries.position(mine);
    p.out_source[to + rank] = mine;
  }
  for (int64_t i = listed + threadIdx.x; i < p.k; i += blockDim.x) {
    p.out_values[to + i] = __uint_as_float(0x7fc00000u);
    p.out_samples[to + i] = p.out_positions[to + i] = p.out_source[to + i] = -1;
  }
}

}  // namespace fastconv
