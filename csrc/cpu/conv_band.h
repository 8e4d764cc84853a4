// A band of the output in tiles: multiplied, reduced, written.
#pragma once
#include "candidates.h"
#include "conv_amx.h"
#include "conv_counts.h"
#include "conv_depthwise.h"
#include "conv_epilogue.h"
#include "conv_mainloop.h"

namespace fastconv {
namespace {

// One channel block of one sample over one band.
struct BandJob {
  const ConvReduceParams& p;
  const ConvPlan& plan;
  const TileTransform& measured;
  const TileTransform* post_ops;  // or null: the network reads what is measured
  const float* slab;
  const float* panel;
  int64_t sample, channel;  // of all groups
  int channels;
  int64_t plane, row;  // of the output, the first of the band
  int64_t first_position, positions;
  int32_t* counts;  // of the channel block, by bin, or null
  Ahead& ahead;

  void run(BlockState& state) const {
    alignas(64) float tile[kSteps * kChannelBlock];
    if (plan.amx) return run_amx(tile, state);
    const int64_t group = positions_at_once();
    for (int64_t begin = 0; begin < positions; begin += group) {
      const int64_t end = begin + group < positions ? begin + group : positions;
      if (plan.depthwise && !plan.by_rows) ahead.fetch(end - begin);
      if (plan.depthwise)
        multiply_depthwise(p, plan, slab, plane, row, begin, end, panel,
                           measured_early() ? &measured.affine : nullptr, ahead, tile);
      else
        multiply(begin, end, tile);
      if (plan.merged > 1) multiply_own_where_needed(begin, end, tile);
      finish_tile(static_cast<int>(end - begin), first_position + begin, tile, state);
    }
  }

  // Windows that lie evenly apart are multiplied 32 at a time: all of a band where nothing is
  // skipped (and then those across the ends of rows are dropped), else those of an output row.
  void run_amx(float* tile, BlockState& state) const {
    const int64_t width = p.out_size[2], height = positions / width, zero = 0;
    const bool dense = !plan.copies_windows &&
                       (width == 1 || (p.stride[1] == plan.step[1] && p.stride[2] == plan.step[2]));
    const int64_t period = dense && width > 1 ? plan.slab_size[2] : width;
    const int64_t length = dense                 ? (height - 1) * period + width
                           : plan.copies_windows ? positions
                                                 : width;
    AmxRows rows{nullptr, plan.window, plan.runs, plan.run_length / kTileDepth, plan.run};
    if (plan.copies_windows)
      rows = {nullptr, plan.row_pitch, 1, plan.row_pitch / kTileDepth - 1, &zero};
    int filled = 0;
    int64_t position = first_position;
    auto flush = [&] {
      finish_tile(filled, position, tile, state);
      position += filled;
      filled = 0;
    };
    for (int64_t first = 0; first < positions; first += dense ? positions : length) {
      const auto* base =
          reinterpret_cast<const uint16_t*>(slab) + (plan.copies_windows ? 0 : plan.offset[first]);
      for (int64_t q = 0; q < length; q += 32) {
        const int64_t count = length - q < 32 ? length - q : 32;
        ahead.fetch(count);
        rows.x = base + q * rows.pitch;
        float* out = tile + filled * kChannelBlock;
        multiply_amx(rows, count, reinterpret_cast<const uint16_t*>(panel), out);
        filled += period == width ? count : keep_columns(q, count, period, width, out);
        if (filled > kSteps - 32) flush();
      }
    }
    if (filled > 0) flush();
  }

  // Moves up rows [first, first + count) that lie in columns below `width` of `period`: how many.
  static int keep_columns(int64_t first, int64_t count, int64_t period, int64_t width,
                          float* rows) {
    int64_t kept = 0;
    for (int64_t i = 0; i < count;) {
      const int64_t column = (first + i) % period;
      const int64_t left = column < width ? width - column : 0;
      const int64_t length = left < count - i ? left : count - i;
      if (kept != i && length > 0)
        __builtin_memmove(rows + kept * kChannelBlock, rows + i * kChannelBlock,
                          length * kChannelBlock * sizeof *rows);
      kept += length;
      i += length > 0 ? length : period - column;
    }
    return static_cast<int>(kept);
  }

  // Whole output rows where depthwise, if that may be.
  int64_t positions_at_once() const {
    const int64_t width = p.out_size[2];
    if (!plan.depthwise) return kEpilogueRows;
    return width <= kEpilogueRows ? kEpilogueRows / width * width : 56;
  }

  // Positions [begin, end) of the band in tiles of near equal height.
  void multiply(int64_t begin, int64_t end, float* tile) const {
    Taps taps = taps_of_plane();
    for_tiles(begin, end, [&](int64_t from, int64_t to) {
      if (plan.skips[1]) {
        taps.row.begin = taps_inside(p, 1, row + (to - 1) / p.out_size[2]).begin;
        taps.row.end = taps_inside(p, 1, row + from / p.out_size[2]).end;
      }
      multiply_tile_at(slab, plan.offset + from, to - from, taps,
                       tile + (from - begin) * kChannelBlock);
    });
  }

  // The same of several groups in one, whose lanes meet the inputs of other groups with a weight of
  // zero: where a sum is not finite, lane by lane, its own inputs alone.
  void multiply_own_where_needed(int64_t begin, int64_t end, float* tile) const {
    Float poison{};
    for (int64_t at = 0; at < end - begin; ++at)
      for (int v = 0; v < kLanes; v += kWidth)
        poison += load<Float>(tile + at * kChannelBlock + v) * 0.0f;
    if (lanes_equal(poison, Float{}) == (1u << kWidth) - 1) return;
    for (int64_t at = begin; at < end; ++at, tile += kChannelBlock)
      for (int lane = 0; lane < channels; ++lane) {
        Float sum{};
        for (int64_t r = 0; r < plan.runs; ++r)
          for (int64_t i = 0; i < plan.run_length; ++i) {
            if (i % plan.c_in / p.c_in != lane / p.c_out) continue;
            const float weight = panel[(r * plan.run_length + i) * kChannelBlock + lane];
            sum = multiply_add(splat(slab[plan.offset[at] + plan.run[r] + i]), splat(weight), sum);
          }
        tile[lane] = sum[0];
      }
  }

  Taps taps_of_plane() const {
    const Range planes = plan.skips[0] ? taps_inside(p, 0, plane) : Range{0, plan.taps[0]};
    return {planes, {0, plan.taps[1]}, {0, plan.taps[2]}};
  }

  template <typename Function>
  static void for_tiles(int64_t begin, int64_t end, Function f) {
    const int64_t tiles = (end - begin + kTileRows - 1) / kTileRows;
    for (int64_t i = 0; i < tiles; ++i)
      f(begin + i * (end - begin) / tiles, begin + (i + 1) * (end - begin) / tiles);
  }

  void multiply_tile_at(const float* base, const int64_t* offset, int64_t rows, const Taps& taps,
                        float* tile) const {
    const TileInput in{.slab = base,
                       .offset = offset,
                       .panel = panel,
                       .taps = taps,
                       .transform = measured_early() ? &measured.affine : nullptr,
                       .ahead = ahead.spread(rows, plan.gemm_k, panel)};
    if (kWidth < kLanes || channels > kLanes)  // the reductions take 16 lanes
      multiply_rows<kChannelBlock / kWidth>(rows, plan, in, tile);
    else
      multiply_rows<kChannelBlock / kWidth - 1>(rows, plan, in, tile);
  }

  // outputs [samples, positions, kChannelBlock] of the slabs of some samples, one after the other:
  // a tile has windows of all samples that meet the same taps.
  void multiply_sorted(int64_t samples, float* outputs) const {
    alignas(64) float tile[kTileRows * kChannelBlock];
    for (int64_t k = 0; k < plan.kinds; ++k) {
      const int64_t *first = plan.order + plan.kind[k], *last = plan.order + plan.kind[k + 1];
      const int64_t row = *first / p.out_size[2];
      const Taps taps{taps_inside(p, 0, row / p.out_size[1]),
                      taps_inside(p, 1, row % p.out_size[1]),
                      taps_inside(p, 2, *first % p.out_size[2])};
      const int64_t* position = first;
      int64_t sample = 0;
      for_tiles(0, (last - first) * samples, [&](int64_t from, int64_t to) {
        int64_t offset[kTileRows];
        float* out[kTileRows];
        for (int64_t i = 0; i < to - from; ++i) {
          offset[i] = sample * plan.slab_elements + plan.offset[*position];
          out[i] = outputs + (sample * positions + *position) * kChannelBlock;
          if (++position < last) continue;
          position = first;
          ++sample;
        }
        multiply_tile_at(slab, offset, to - from, taps, tile);
        for (int64_t i = 0; i < to - from; ++i)
          __builtin_memcpy(out[i], tile + i * kChannelBlock, kChannelBlock * sizeof *tile);
      });
    }
  }

  // Tiles of [positions, kChannelBlock] from position `begin` of the band on.
  void finish(int64_t count, int64_t begin, float* tile, BlockState& state) const {
    for (int64_t at = 0; at < count; at += kSteps) {
      const int rows = static_cast<int>(count - at < kSteps ? count - at : kSteps);
      finish_tile(rows, first_position + begin + at, tile + at * kChannelBlock, state);
    }
  }

  // Reduces a tile, and writes it where that is wanted.
  void finish_tile(int rows, int64_t position, float* tile, BlockState& state) const {
    if (!measured_early()) measured(rows, tile);
    constexpr int kBlocks = kWidth == kLanes ? kStateVectors : 1;
    for (int first = 0; first < channels; first += kBlocks * kLanes) {
      Block block{.values = tile + first, .stride = kChannelBlock, .steps = rows};
      if (plan.by_rows && p.stride[2] == 1) {  // few products: they leave no time to fetch
        const Stretches due = ahead.spread(rows, rows, tile);
        block.ahead = due.next;
        block.ahead_step = due.step;
      }
      if (channels - first > kLanes)
        reduce_lanes<kBlocks>(block, first, position, state);
      else
        reduce_lanes<1>(block, first, position, state);
    }
    if (p.written == nullptr) return;
    if (post_ops != nullptr) (*post_ops)(rows, tile);
    write_tile(p, sample, channel, channels, position, rows, tile);
  }

  // Channels [first, first + 16 kBlocks) of a tile, side by side.
  template <int kBlocks>
  void reduce_lanes(const Block& blocks, int first, int64_t position, BlockState& state) const {
    LaneTotals* totals = state.part + first / kLanes;
    const auto start = static_cast<int32_t>(position);
    const bool finite = adder<kBlocks>(start < kNewExtrema, !at_floor<kBlocks>(totals))(
        blocks, start, totals, nullptr);
    for (int b = 0; b < kBlocks; ++b, first += kLanes) {
      Block block = blocks;
      block.values += b * kLanes;
      block.lanes = channels - first < kLanes ? channels - first : kLanes;
      if (!finite) add_carefully(block, start, totals[b], nullptr);
      if (counts != nullptr && finite) count_block_lanes<BlockCounts>(block, counts + first);
      if (counts != nullptr && !finite)
        count_block_carefully<false, BlockCounts>(block, counts + first);
      if (p.candidates.threshold != nullptr)
        list_block(p.candidates, channel + first, block, sample * p.positions() + position,
                   totals[b]);
    }
  }

  // Whether no value can be below the minima so far, as after a ReLU soon none can.
  template <int kBlocks>
  bool at_floor(const LaneTotals* totals) const {
    unsigned above = 0;
    for (int b = 0; b < kBlocks; ++b)
      for (int lane = 0; lane < kLanes; lane += kWidth)
        above |= lanes_less(splat(measured.affine.floor), load<Float>(totals[b].min + lane));
    return above == 0 && measured.affine.floor > -kInfinity;
  }

  template <int kBlocks>
  static auto adder(bool places, bool lowest) {
    if (places)
      return lowest ? add_finite<false, true, true, kBlocks>
                    : add_finite<false, true, false, kBlocks>;
    return lowest ? add_finite<false, false, true, kBlocks>
                  : add_finite<false, false, false, kBlocks>;
  }

  // Whether tiles are transformed where their products are added up.
  bool measured_early() const {
    return measured.clamps && !plan.amx && plan.depthwise == plan.by_rows && plan.merged == 1;
  }
};

}  // namespace
}  // namespace fastconv
