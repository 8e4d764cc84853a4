// The reductions of an activation in memory, read once. A block of up to kSteps x 16 values is
// widened and transformed into a buffer (float32 as it is: taken in place), reduced, and where a
// network goes on with something else that is written.
#pragma once
#include "../params.h"
#include "candidates.h"
#include "channel_blocks.h"
#include "reduce_lanes.h"

namespace fastconv {
namespace {

// One planar channel of a sample.
inline void reduce_row(const Source& source, int64_t n, LaneTotals& totals, float* buffer) {
  const ChannelReduceParams& p = source.p;
  const int64_t c = source.channel;
  int64_t* counts = p.histogram ? p.histogram + c * kBins : nullptr;
  const bool lists = p.candidates.threshold != nullptr;
  constexpr int64_t kBlock = kSteps * kLanes;
  totals.clear();
  for (int64_t start = 0; start < p.positions; start += kBlock) {
    const int64_t values = p.positions - start < kBlock ? p.positions - start : kBlock;
    const int steps = (values + kLanes - 1) / kLanes;
    const int last = values - int64_t{steps - 1} * kLanes;
    const Block block = source.block(n, start, steps, last, buffer);
    const bool finite = reduce_lanes(block, start / kLanes, totals, nullptr);
    if (counts != nullptr && finite) count_block_planar(block, counts);
    if (counts != nullptr && !finite) count_block_carefully<true, ByChannel>(block, counts);
    if (lists) list_planar(p.candidates, c, block, n * p.positions + start, totals);
    source.write(block, n, start);
  }
}

// Planar channels whose blocks want more than reductions.
inline void reduce_rows_in_blocks(const ChannelReduceParams& p, const Range& samples,
                                  const Range& channels) {
  alignas(64) float buffer[kSteps * kLanes];
  LaneTotals totals;
  for (int64_t c = channels.begin; c < channels.end; ++c) {
    const Source source(p, c, kLanes, true);
    for (int64_t n = samples.begin; n < samples.end; ++n) {
      reduce_row(source, n, totals, buffer);
      write_joined(p.out, n * p.c + c, totals);
    }
  }
}

// Planar channels, float32 as it lies. Lanes are joined some rows at a time, as each takes long but
// they overlap.
inline void reduce_rows(const ChannelReduceParams& p, const Range& samples, const Range& channels) {
  constexpr int kRows = 16;
  LaneTotals totals[kRows];
  for (int64_t n = samples.begin; n < samples.end; ++n)
    for (int64_t c = channels.begin; c < channels.end; c += kRows) {
      const int rows = channels.end - c < kRows ? channels.end - c : kRows;
      const float* x = static_cast<const float*>(p.x) + n * p.stride_n + c * p.stride_c;
      const unsigned bad = add_rows(x, p.stride_c, rows, p.positions, totals);
      for (int r = 0; r < rows; ++r) {
        if (bad >> r & 1) {
          const int steps = (p.positions + kLanes - 1) / kLanes;
          const int last = p.positions - int64_t{steps - 1} * kLanes;
          totals[r].clear();
          add_carefully({x + r * p.stride_c, kLanes, steps, last}, 0, totals[r], nullptr);
        }
        write_joined(p.out, n * p.c + c + r, totals[r]);
      }
    }
}

// The counts of 16 channels on their way to the histogram.
struct LaneTable {
  uint16_t* counts;  // or null
  int64_t* histogram;
  int channels;
  int64_t counted = 0;  // values of a lane, at most

  // Room for a block.
  uint16_t* take(int steps) {
    if (counts == nullptr) return nullptr;
    if (counted + steps > kMostCounted) finish();
    counted += steps;
    return counts;
  }

  void finish() {
    if (counted > 0) add_counts(counts, histogram, channels);
    counted = 0;
  }
};

// Positions of 16 channels of a sample; a line is fetched from `ahead` at every step, unless null.
inline void reduce_lanes_of(const Source& source, int64_t n, const Range& positions,
                            LaneTotals& totals, LaneTable& table, const char*& ahead,
                            float* buffer) {
  const ChannelReduceParams& p = source.p;
  for (int64_t at = positions.begin; at < positions.end; at += kSteps) {
    const int steps = positions.end - at < kSteps ? positions.end - at : kSteps;
    Block block = source.block(n, at, steps, kLanes, buffer);
    if (ahead != nullptr) {
      block.ahead = ahead;
      block.ahead_step = kLanes * sizeof(float);
      ahead += steps * block.ahead_step;
    }
    reduce_lanes(block, at, totals, table.take(steps));
    if (p.candidates.threshold != nullptr)
      list_block(p.candidates, source.channel, block, n * p.positions + at, totals);
    source.write(block, n, at);
  }
}

// Up to kGroups x 16 channels, tile by tile: some positions of one sample or some whole samples, of
// a size that stays in L2 with the next, which is fetched meanwhile in the order of memory.
constexpr int kGroups = 32, kCountedGroups = 8;
constexpr int64_t kTileValues = 1 << 15;

inline void reduce_tiles(const ChannelReduceParams& p, const Range& samples, const Range& channels,
                         uint16_t* tables) {
  alignas(64) float buffer[kSteps * kLanes] = {};
  const int groups = (channels.end - channels.begin + kLanes - 1) / kLanes;
  const bool linear = Source(p, 0, kLanes, false).in_place() && p.stride_p == p.c &&
                      channels.end - channels.begin == p.c;
  const int64_t fits = (linear ? 1 : 8) * kTileValues / (groups * kLanes);  // positions
  const int64_t together = p.channels_last && fits > p.positions ? fits / p.positions : 1;
  const int64_t tile = p.channels_last && fits < p.positions ? fits : p.positions;
  LaneTotals totals[kGroups];
  LaneTable counts[kGroups];
  for (int g = 0; g < groups; ++g) {
    const int64_t c = channels.begin + g * kLanes;
    const int lanes = channels.end - c < kLanes ? channels.end - c : kLanes;
    counts[g] = {p.histogram ? tables + g * kCountTable : nullptr,
                 p.histogram ? p.histogram + c * kBins : nullptr, lanes};
  }
  for (int64_t first = samples.begin; first < samples.end; first += together)
    for (int64_t start = 0; start < p.positions; start += tile) {
      const int64_t last = samples.end - first < together ? samples.end : first + together;
      const int64_t end = p.positions - start < tile ? p.positions : start + tile;
      const float* x = static_cast<const float*>(p.x) + first * p.stride_n + start * p.stride_p;
      const char* ahead =
          linear ? reinterpret_cast<const char*>(x + together * tile * p.c) : nullptr;
      for (int g = 0; g < groups; ++g) {
        const int64_t c = channels.begin + g * kLanes;
        const Source source(p, c, counts[g].channels, false);
        for (int64_t n = first; n < last; ++n) {
          if (start == 0) totals[g].clear();
          reduce_lanes_of(source, n, {start, end}, totals[g], counts[g], ahead, buffer);
          if (end == p.positions) write_lanes(p.out, n * p.c + c, totals[g], counts[g].channels);
        }
      }
    }
  for (int g = 0; g < groups; ++g) counts[g].finish();
}

// Bytes of counts that channel_reduce needs on one thread: zero before and after.
inline int64_t channel_count_bytes(const ChannelReduceParams& p) {
  const int64_t groups = (p.c + kLanes - 1) / kLanes;
  const int64_t tables = groups < kCountedGroups ? groups : kCountedGroups;
  const bool wanted = p.histogram && (p.channels_last || p.positions <= kSteps);
  return wanted ? tables * kCountTable * static_cast<int64_t>(sizeof(uint16_t)) : 0;
}

// The reductions of samples x channels; a thread that counts owns its channels.
inline void channel_reduce(const ChannelReduceParams& p, const Range& samples,
                           const Range& channels, void* tables) {
  if (!p.channels_last && p.positions > kSteps) {
    const bool plain = Source(p, 0, kLanes, true).in_place() && p.histogram == nullptr &&
                       p.candidates.threshold == nullptr && p.written == nullptr;
    return (plain ? reduce_rows : reduce_rows_in_blocks)(p, samples, channels);
  }
  // Rows of at most kSteps positions: 16 channels in lanes, so that starting and ending costs as
  // much as for one.
  const int64_t step = (p.histogram ? kCountedGroups : kGroups) * kLanes;
  for (int64_t c = channels.begin; c < channels.end; c += step) {
    const int64_t end = c + step < channels.end ? c + step : channels.end;
    reduce_tiles(p, samples, {c, end}, static_cast<uint16_t*>(tables));
  }
}

}  // namespace
}  // namespace fastconv
