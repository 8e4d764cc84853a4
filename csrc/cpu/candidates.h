// Values that reach a threshold of their channel, put on a list of it.
#pragma once
#include "../params.h"
#include "reduce_block.h"

namespace fastconv {
namespace {

// The values of one channel at steps of a block; `place` is that of the first.
inline void list_lane(const CandidateLists& lists, int64_t channel, const float* x, int64_t stride,
                      int steps, int64_t place, int64_t apart) {
  const float limit = lists.threshold[channel];
  for (int i = 0; i < steps; ++i) {
    const float value = x[i * stride];
    if (!is_finite(value) || (lists.largest ? value < limit : value > limit)) continue;
    const int64_t slot = __atomic_fetch_add(lists.counts + channel, 1, __ATOMIC_RELAXED);
    if (slot >= lists.capacity) continue;
    lists.values[channel * lists.capacity + slot] = value + 0.0f;  // -0 becomes 0
    lists.places[channel * lists.capacity + slot] = place + i * apart;
  }
}

// Those of a block whose lanes are channels from `channel` on; `place` is that of its first step,
// `extrema` are its min and max by lane, or those of more.
template <typename Extrema>
inline void list_block(const CandidateLists& lists, int64_t channel, const Block& block,
                       int64_t place, const Extrema& extrema) {
  for (int lane = 0; lane < block.lanes; ++lane) {
    const float limit = lists.threshold[channel + lane];
    if (lists.largest ? extrema.max[lane] >= limit : extrema.min[lane] <= limit)
      list_lane(lists, channel + lane, block.values + lane, block.stride, block.steps, place, 1);
  }
}

// Those of a planar block of one channel.
template <typename Extrema>
inline void list_planar(const CandidateLists& lists, int64_t channel, const Block& block,
                        int64_t place, const Extrema& extrema) {
  const float limit = lists.threshold[channel];
  for (int lane = 0; lane < kLanes; ++lane)
    if (lists.largest ? extrema.max[lane] >= limit : extrema.min[lane] <= limit)
      list_lane(lists, channel, block.values + lane, block.stride,
                lane < block.last ? block.steps : block.steps - 1, place + lane, kLanes);
}

}  // namespace
}  // namespace fastconv
