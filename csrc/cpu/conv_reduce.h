// conv_reduce: mainloop and epilogue over the units of a plan.
#pragma once
#include "candidates.h"
#include "conv_amx.h"
#include "conv_counts.h"
#include "conv_depthwise.h"
#include "conv_epilogue.h"
#include "conv_mainloop.h"
#include "conv_pack.h"
#include "unit_queue.h"

namespace fastconv {
namespace {

template <Dtype kDtype>
struct DtypeConstant {
  static constexpr Dtype value = kDtype;
};

template <typename Function>
inline void for_dtype(Dtype dtype, Function f) {
  switch (dtype) {
    case Dtype::kFloat32: return f(DtypeConstant<Dtype::kFloat32>{});
    case Dtype::kFloat16: return f(DtypeConstant<Dtype::kFloat16>{});
    case Dtype::kBFloat16: return f(DtypeConstant<Dtype::kBFloat16>{});
  }
}

// Panels [begin, end) of all groups.
void conv_pack_weight(const ConvReduceParams& p, const ConvPlan& plan, int64_t begin, int64_t end,
                      float* panels) {
  for (int64_t i = begin; i < end; ++i) {
    float* panel = panels + i * plan.panel_elements;
    if (plan.amx) {
      pack_amx_panel(p, plan, i / plan.blocks, i % plan.blocks,
                     reinterpret_cast<uint16_t*>(panels) + i * plan.panel_elements);
      continue;
    }
    for_dtype(p.dtype, [&](auto dtype) {
      if (plan.depthwise)
        pack_depthwise_panel<dtype.value>(p, i, panel);
      else
        pack_panel<dtype.value>(p, plan, i / plan.blocks, i % plan.blocks, panel);
    });
  }
}

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
      if (plan.skips[2] || (plan.depthwise && !plan.by_rows)) ahead.fetch(end - begin);
      if (plan.depthwise)
        multiply_depthwise(p, plan, slab, plane, row, begin, end, panel, ahead, tile);
      else
        multiply(begin, end, tile);
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

  // Whole output rows where they are cut into columns, and where depthwise if that may be.
  int64_t positions_at_once() const {
    const int64_t width = p.out_size[2];
    if (!plan.depthwise && !plan.skips[2]) return kEpilogueRows;
    return width <= kEpilogueRows ? kEpilogueRows / width * width : 56;
  }

  // Positions [begin, end) of the band in tiles of near equal height.
  void multiply(int64_t begin, int64_t end, float* tile) const {
    if (plan.skips[2]) return multiply_columns(begin, end, tile);
    Taps taps = taps_of_plane();
    for_tiles(begin, end, [&](int64_t from, int64_t to) {
      if (plan.skips[1]) {
        taps.row.begin = taps_inside(p, 1, row + (to - 1) / p.out_size[2]).begin;
        taps.row.end = taps_inside(p, 1, row + from / p.out_size[2]).end;
      }
      multiply_tile_at(from, to, taps, false, tile + (from - begin) * kChannelBlock);
    });
  }

  // The same for whole output rows, column by column of the kernel: no padding is multiplied.
  void multiply_columns(int64_t begin, int64_t end, float* tile) const {
    const int64_t width = p.out_size[2];
    __builtin_memset(tile, 0, (end - begin) * kChannelBlock * sizeof *tile);
    const Taps all = taps_of_plane();
    for (int64_t a = all.plane.begin; a < all.plane.end; ++a)
      for (int64_t b = all.row.begin; b < all.row.end; ++b)
        for (int64_t c = all.column.begin; c < all.column.end; ++c)
          for (int64_t first = begin; first < end; first += width) {
            const Range rows = taps_inside(p, 1, row + first / width);
            if (plan.skips[1] && (b < rows.begin || b >= rows.end)) continue;
            const Range columns = outputs_inside(c);
            for_tiles(first + columns.begin, first + columns.end, [&](int64_t from, int64_t to) {
              multiply_tile_at(from, to, {{a, a + 1}, {b, b + 1}, {c, c + 1}}, true,
                               tile + (from - begin) * kChannelBlock);
            });
          }
  }

  Taps taps_of_plane() const {
    const Range planes = plan.skips[0] ? taps_inside(p, 0, plane) : Range{0, plan.taps[0]};
    return {planes, {0, plan.taps[1]}, {0, plan.taps[2]}};
  }

  // Output columns for which column c of the kernel meets no padding.
  Range outputs_inside(int64_t c) const {
    Range found{0, p.out_size[2]};
    while (found.begin < found.end && taps_inside(p, 2, found.begin).begin > c) ++found.begin;
    while (found.begin < found.end && taps_inside(p, 2, found.end - 1).end <= c) --found.end;
    return found;
  }

  template <typename Function>
  static void for_tiles(int64_t begin, int64_t end, Function f) {
    const int64_t tiles = (end - begin + kTileRows - 1) / kTileRows;
    for (int64_t i = 0; i < tiles; ++i)
      f(begin + i * (end - begin) / tiles, begin + (i + 1) * (end - begin) / tiles);
  }

  void multiply_tile_at(int64_t from, int64_t to, const Taps& taps, bool add, float* tile) const {
    const TileInput in{
        slab,
        plan.offset + from,
        panel,
        taps,
        add,
        measured_early() ? &measured.affine : nullptr,
        add ? Ahead{}.spread(0, 1, panel) : ahead.spread(to - from, plan.gemm_k, panel)};
    if (kWidth < kLanes || channels > kLanes)  // the reductions take 16 lanes
      multiply_rows<kChannelBlock / kWidth>(to - from, plan, in, tile);
    else
      multiply_rows<kChannelBlock / kWidth - 1>(to - from, plan, in, tile);
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
    LaneState* states = state.part + first / kLanes;
    BlockExtrema extrema[kBlocks];
    const bool finite = add_blocks<kBlocks>(blocks, states, extrema);
    for (int b = 0; b < kBlocks; ++b, first += kLanes) {
      Block block = blocks;
      block.values += b * kLanes;
      block.lanes = channels - first < kLanes ? channels - first : kLanes;
      complete_block<false, BlockCounts>(block, position, finite, states[b],
                                         counts == nullptr ? nullptr : counts + first, extrema[b]);
      if (p.candidates.threshold != nullptr)
        list_block(p.candidates, channel + first, block, sample * p.positions() + position,
                   extrema[b]);
    }
  }

  // Whether tiles are transformed where their products are added up.
  bool measured_early() const {
    return measured.clamps && !plan.amx && !plan.depthwise && !plan.skips[2];
  }
};

// One thread's memory, in stretches of 64 bytes.
struct ConvScratch {
  BlockState* states;  // one, or one per channel block where samples have several bands
  float* slabs;
  uint16_t* slab;  // AMX: of one sample; its windows then go to slabs
  int64_t bytes;

  ConvScratch(const ConvReduceParams& p, const ConvPlan& plan, void* memory) {
    auto* at = static_cast<char*>(memory);
    auto take = [&](int64_t size) {
      char* taken = at;
      at += (size + 63) / 64 * 64;
      return taken;
    };
    const int64_t state_count = plan.bands > 1 ? plan.unit_blocks : 1;
    states = reinterpret_cast<BlockState*>(take(state_count * sizeof(BlockState)));
    int64_t size = plan.unit_samples * plan.unit_slabs * plan.slab_elements * 4;
    if (plan.copies_windows)
      size = (plan.unit_samples * plan.band_positions + 32) * plan.row_pitch * 2;
    else if (plan.amx)  // tiles reach beyond the last window
      size = size / 2 + 32 * plan.window * 2;
    slabs = reinterpret_cast<float*>(take(size));
    slab = reinterpret_cast<uint16_t*>(take(plan.copies_windows ? plan.slab_elements * 2 : 0));
    bytes = at - static_cast<char*>(memory);
  }
};

// Bytes of scratch for conv_reduce_units, on one thread.
int64_t conv_scratch_bytes(const ConvReduceParams& p, const ConvPlan& plan) {
  return ConvScratch(p, plan, nullptr).bytes;
}

// Bytes of counts for conv_reduce_units, on one thread; zero before and after.
int64_t conv_count_bytes(const ConvReduceParams& p, const ConvPlan& plan) {
  return ConvCounts::slots(p, plan) * ConvCounts::kTable * 4;
}

// One unit of work: packs the slabs of a band, then runs its channel blocks over them.
struct ConvUnit {
  const ConvReduceParams& p;
  const ConvPlan& plan;
  const float* panels;
  const ConvScratch& scratch;
  ConvCounts& counts;
  int64_t group;
  Range samples, blocks;

  void run() const {
    for (int64_t band = 0; band < plan.bands; ++band) {
      const int64_t d = band / plan.bands_per_plane;
      const int64_t h = band % plan.bands_per_plane * plan.band_rows;
      if (plan.copies_windows || !plan.direct)
        for (int64_t n = samples.begin; n < samples.end; ++n) pack(n, d, h);
      Ahead ahead = after(band, d, h);
      for (int64_t block = blocks.begin; block < blocks.end; ++block)
        run_block(block, band, d, h, ahead);
    }
  }

  // Channels last, no row skipped: the next rows, or the next samples, follow in memory.
  Ahead after(int64_t band, int64_t d, int64_t h) const {
    if (p.in_stride[1] != 1 || plan.step[1] > 1 || (plan.depthwise && plan.block_units > 1))
      return {};
    const int64_t element = p.dtype == Dtype::kFloat32 ? 4 : 2;
    const bool last = band == plan.bands - 1;
    const int64_t row =
        last ? 0
             : (h + plan.band_rows) * p.stride[1] - p.pad[1] + (p.kernel[1] - 1) * p.dilation[1];
    const char* next = static_cast<const char*>(p.input) +
                       element * ((last ? samples.end : samples.begin) * p.in_stride[0] +
                                  d * p.stride[0] * p.in_stride[2] + row * p.in_stride[3]);
    const int64_t bytes = element * (plan.bands > 1 ? plan.band_rows * p.stride[1] * p.in_stride[3]
                                                    : plan.unit_samples * p.in_stride[0]);
    const int64_t work =
        (samples.end - samples.begin) * (blocks.end - blocks.begin) * plan.band_positions;
    return {next, next + bytes, bytes / work / (plan.by_rows && p.stride[2] == 1 ? 2 : 1) + 1};
  }

  float* packed_slab(int64_t sample) const {
    const int64_t elements = plan.copies_windows ? plan.band_positions * plan.row_pitch
                                                 : plan.unit_slabs * plan.slab_elements;
    return scratch.slabs + (sample - samples.begin) * elements / (plan.amx ? 2 : 1);
  }

  void pack(int64_t sample, int64_t d, int64_t h) const {
    const int64_t first = plan.depthwise ? blocks.begin * kLanes : group * plan.c_in;
    const int64_t last =
        plan.depthwise ? smaller(blocks.end * kLanes, plan.c_out) : first + plan.c_in;
    if (plan.amx && !plan.copies_windows) {
      pack_slab<RawElement>(p, plan, sample, first, last - first, d, h,
                            reinterpret_cast<uint16_t*>(packed_slab(sample)));
      return;
    }
    if (plan.amx) {
      const uint16_t* slab = scratch.slab;
      if (plan.direct)
        slab = input_at<uint16_t>(sample, d, h);
      else
        pack_slab<RawElement>(p, plan, sample, first, last - first, d, h, scratch.slab);
      copy_windows(p, plan, slab, rows(h) * p.out_size[2],
                   reinterpret_cast<uint16_t*>(packed_slab(sample)));
      return;
    }
    for_dtype(p.dtype, [&](auto dtype) {
      pack_slab<Element<dtype.value>>(p, plan, sample, first, last - first, d, h,
                                      packed_slab(sample));
    });
  }

  // Output rows of the band that starts at h.
  int64_t rows(int64_t h) const { return smaller(plan.band_rows, p.out_size[1] - h); }

  // The first window of the band, padding included.
  template <typename T>
  const T* input_at(int64_t sample, int64_t d, int64_t h) const {
    return static_cast<const T*>(p.input) + sample * p.in_stride[0] +
           group * p.c_in * p.in_stride[1] + (d * p.stride[0] - p.pad[0]) * p.in_stride[2] +
           (h * p.stride[1] - p.pad[1]) * p.in_stride[3] - p.pad[2] * p.in_stride[4];
  }

  const float* slab(int64_t sample, int64_t block, int64_t d, int64_t h) const {
    if (plan.direct && !plan.amx)
      return input_at<float>(sample, d, h) + (plan.depthwise ? block * kLanes : 0);
    return packed_slab(sample) + (plan.depthwise ? block - blocks.begin : 0) * plan.slab_elements;
  }

  void run_block(int64_t block, int64_t band, int64_t d, int64_t h, Ahead& ahead) const {
    const int64_t in_group = block * plan.channel_block;
    const int64_t channel = group * plan.c_out + in_group;
    const int channels = static_cast<int>(smaller(plan.channel_block, plan.c_out - in_group));
    const bool has_post_ops = p.post_scale != nullptr;
    const TileTransform of_value(p.scale + channel, p.shift + channel, channels, p.activation);
    const TileTransform post((has_post_ops ? p.post_scale : p.scale) + channel,
                             (has_post_ops ? p.post_shift : p.shift) + channel, channels,
                             p.post_activation);
    BlockState& state = scratch.states[plan.bands > 1 ? block - blocks.begin : 0];
    for (int64_t n = samples.begin; n < samples.end; ++n) {
      if (band == 0) state.clear();
      const BandJob job{.p = p,
                        .plan = plan,
                        .measured = of_value,
                        .post_ops = has_post_ops ? &post : nullptr,
                        .slab = slab(n, block, d, h),
                        .panel = panels + (group * plan.blocks + block) * plan.panel_elements /
                                              (plan.amx ? 2 : 1),
                        .sample = n,
                        .channel = channel,
                        .channels = channels,
                        .plane = d,
                        .row = h,
                        .first_position = (d * p.out_size[1] + h) * p.out_size[2],
                        .positions = rows(h) * p.out_size[2],
                        .counts = counts.of(group * plan.blocks + block),
                        .ahead = ahead};
      job.run(state);
      if (band == plan.bands - 1) finish_block(p, n, channel, channels, state);
    }
  }

  static int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
};

// What a thread takes of the units; memory and counts are aligned to 64 bytes.
void conv_reduce_units(const ConvReduceParams& p, const ConvPlan& plan, const float* panels,
                       const UnitQueue& queue, int64_t thread, void* memory, int32_t* tables) {
  const ConvScratch scratch(p, plan, memory);
  ConvCounts counts(p, plan, tables);
  if (plan.amx) configure_tiles();
  for (int64_t unit; (unit = queue.take(thread)) >= 0;) {
    const int64_t sample = unit / (plan.block_units * plan.groups) * plan.unit_samples;
    const int64_t block = unit % plan.block_units * plan.unit_blocks;
    const ConvUnit work{
        .p = p,
        .plan = plan,
        .panels = panels,
        .scratch = scratch,
        .counts = counts,
        .group = unit / plan.block_units % plan.groups,
        .samples = {sample, ConvUnit::smaller(sample + plan.unit_samples, p.n)},
        .blocks = {block, ConvUnit::smaller(block + plan.unit_blocks, plan.blocks)}};
    work.run();
  }
  if (plan.amx) release_tiles();
}

}  // namespace
}  // namespace fastconv
