// conv_reduce: mainloop and epilogue over the units of a plan.
#pragma once
#include "conv_amx.h"
#include "conv_band.h"
#include "conv_counts.h"
#include "conv_pack.h"
#include "conv_winograd.h"
#include "unit_queue.h"

namespace fastconv {
namespace {

constexpr int64_t kReadAhead = 4096;  // floats: hardware alone stops at the end of every page

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
    if (plan.winograd) {
      pack_winograd_panel(p, plan, i / plan.blocks, i % plan.blocks, panel);
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

// One thread's memory, in stretches of 64 bytes.
struct ConvScratch {
  BlockState* states;  // one, or one per channel block where samples have several bands
  float* slabs;
  uint16_t* slab;   // AMX: of one sample; its windows then go to slabs
  float* windows;   // Winograd: transformed, 16 matrices [tiles, gemm_k]
  float* products;  // of every channel block, 16 matrices [tiles, kChannelBlock]
  float* outputs;   // [positions, kChannelBlock], of some rows of tiles or where sorted all
  float* panel;     // of one channel block, not transformed
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
    auto floats = [&](int64_t count) {
      return reinterpret_cast<float*>(take(plan.winograd ? count * 4 : 0));
    };
    windows = floats(kProducts * plan.window_pitch);
    products = floats(plan.unit_blocks * kProducts * plan.product_pitch);
    outputs = reinterpret_cast<float*>(take(output_rows(p, plan) * kChannelBlock * 4));
    panel = floats(p.kernel[0] * 9 * p.c_in * kChannelBlock);
    int64_t size = plan.unit_samples * plan.unit_slabs * plan.slab_elements * 4;
    if (plan.winograd) size = plan.direct ? 0 : plan.slab_elements * 4;
    if (plan.copies_windows)
      size = (plan.unit_samples * plan.band_positions + 32) * plan.row_pitch * 2;
    else if (plan.amx)  // tiles reach beyond the last window
      size = size / 2 + 32 * plan.window * 2;
    slabs = reinterpret_cast<float*>(take(size));
    slab = reinterpret_cast<uint16_t*>(take(plan.copies_windows ? plan.slab_elements * 2 : 0));
    bytes = at - static_cast<char*>(memory);
  }

  static int64_t output_rows(const ConvReduceParams& p, const ConvPlan& plan) {
    if (plan.sorted) return plan.unit_samples * plan.band_positions;
    return plan.winograd ? 2 * tile_rows_at_once(plan) * p.out_size[2] : 0;
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
      if (plan.winograd) {
        run_winograd(band, d, h);
        continue;
      }
      if (plan.copies_windows || !plan.direct)
        for (int64_t n = samples.begin; n < samples.end; ++n) pack(n, d, h);
      const bool in_order = plan.by_rows && plan.direct && p.stride[2] == 2 && p.in_size[0] == 1;
      if (in_order) read_rows(h);
      Ahead ahead = in_order ? Ahead{} : after(band, d, h);
      for (int64_t block = blocks.begin; block < blocks.end; ++block)
        run_block(block, band, d, h, ahead);
    }
  }

  // Reads what a band has more of the input than the last one, in the order of memory: hardware
  // follows that, but not one block of channels of every pixel, with few products for each.
  void read_rows(int64_t h) const {
    const int64_t above = h * p.stride[1] - p.pad[1];
    const int64_t known = above + (h > 0 ? p.kernel[1] - p.stride[1] : 0);
    const int64_t below = above + (rows(h) - 1) * p.stride[1] + p.kernel[1];
    const int64_t first = known > 0 ? known : 0, last = smaller(below, p.in_size[1]) - 1;
    if (first > last) return;
    const int64_t row = (p.in_size[2] - 1) * p.in_stride[4] + plan.c_out;
    for (int64_t n = samples.begin; n < samples.end; ++n) {
      const float* x = static_cast<const float*>(p.input) + n * p.in_stride[0];
      float sum = 0.0f;
      for (int64_t at = first * p.in_stride[3]; at < last * p.in_stride[3] + row; at += 16) {
        __builtin_prefetch(x + at + kReadAhead);
        sum += x[at];
      }
      asm volatile("" : : "m"(sum));
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
    const int64_t positions = plan.winograd
                                  ? kProducts * (plan.band_rows + 1) / 2 * plan.tile_columns
                                  : plan.band_positions;
    const int64_t work = (samples.end - samples.begin) * (blocks.end - blocks.begin) * positions;
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
           group * plan.c_in * p.in_stride[1] + (d * p.stride[0] - p.pad[0]) * p.in_stride[2] +
           (h * p.stride[1] - p.pad[1]) * p.in_stride[3] - p.pad[2] * p.in_stride[4];
  }

  const float* slab(int64_t sample, int64_t block, int64_t d, int64_t h) const {
    if (plan.direct && !plan.amx)
      return input_at<float>(sample, d, h) + (plan.depthwise ? block * kLanes : 0);
    return packed_slab(sample) + (plan.depthwise ? block - blocks.begin : 0) * plan.slab_elements;
  }

  void run_block(int64_t block, int64_t band, int64_t d, int64_t h, Ahead& ahead) const {
    for_samples(block, band, d, h, ahead, [&](const BandJob& job, BlockState& state) {
      if (!plan.sorted) return job.run(state);
      const int64_t done = job.sample - samples.begin;
      if (done == 0) job.multiply_sorted(samples.end - samples.begin, scratch.outputs);
      job.finish(job.positions, 0, scratch.outputs + done * job.positions * kChannelBlock, state);
    });
  }

  // Calls f(job, state) for a channel block of every sample.
  template <typename Function>
  void for_samples(int64_t block, int64_t band, int64_t d, int64_t h, Ahead& ahead,
                   Function f) const {
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
      f(BandJob{.p = p,
                .plan = plan,
                .measured = of_value,
                .post_ops = has_post_ops ? &post : nullptr,
                .slab = plan.winograd ? nullptr : slab(n, block, d, h),
                .panel = panel(block),
                .sample = n,
                .channel = channel,
                .channels = channels,
                .plane = d,
                .row = h,
                .first_position = (d * p.out_size[1] + h) * p.out_size[2],
                .positions = plan.sorted ? plan.band_positions : rows(h) * p.out_size[2],
                .counts = counts.of(group * plan.blocks + block),
                .ahead = ahead},
        state);
      if (band == plan.bands - 1) finish_block(p, n, channel, channels, state);
    }
  }

  const float* panel(int64_t block) const {
    return panels + (group * plan.blocks + block) * plan.panel_elements / (plan.amx ? 2 : 1);
  }

  // A band by Winograd's tiles: windows of all samples, products of all blocks, then sums.
  void run_winograd(int64_t band, int64_t d, int64_t h) const {
    const int64_t tile_rows = (rows(h) + 1) / 2, tiles = tile_rows * plan.tile_columns;
    transform_windows(tiles, d, h);
    Ahead ahead = after(band, d, h);
    for (int i = 0; i < kProducts; ++i)
      for (int64_t block = blocks.begin; block < blocks.end; ++block)
        multiply_matrices(plan, scratch.windows + i * plan.window_pitch,
                          tiles * (samples.end - samples.begin),
                          panel(block) + i * plan.gemm_k * kChannelBlock,
                          plan.c_out - block * kChannelBlock > kLanes, ahead,
                          products(block) + i * plan.product_pitch);
    for (int64_t block = blocks.begin; block < blocks.end; ++block) {
      bool packed = false;
      for_samples(block, band, d, h, ahead, [&](const BandJob& job, BlockState& state) {
        const WinogradRows sums{
            .products = products(block) + (job.sample - samples.begin) * tiles * kChannelBlock,
            .pitch = plan.product_pitch,
            .tile_columns = plan.tile_columns,
            .width = p.out_size[2],
            .height = rows(h),
            .transform = job.measured_early() ? &job.measured.affine : nullptr,
            .channels = job.channels};
        const int64_t step = tile_rows_at_once(plan);
        for (int64_t first = 0; first < tile_rows; first += step)
          finish_tiles(job, sums, {first, smaller(first + step, tile_rows)}, packed, state);
      });
    }
  }

  void transform_windows(int64_t tiles, int64_t d, int64_t h) const {
    float* window = scratch.windows;
    for (int64_t n = samples.begin; n < samples.end; ++n) {
      const Pixels pixels = pixels_of(n, d, h);
      for (int64_t tile = 0; tile < tiles; ++tile, window += plan.gemm_k)
        for (int64_t plane = 0; plane < p.kernel[0]; ++plane)
          transform_window(pixels, plane, tile / plan.tile_columns * 2,
                           tile % plan.tile_columns * 2, p.c_in, plan.window_pitch,
                           window + plane * p.c_in);
    }
  }

  float* products(int64_t block) const {
    return scratch.products + (block - blocks.begin) * kProducts * plan.product_pitch;
  }

  // Some rows of tiles, one product after the other where a sum is not finite; `packed`: whether
  // scratch.panel holds the weights for that.
  void finish_tiles(const BandJob& job, const WinogradRows& sums, const Range& tile_rows,
                    bool& packed, BlockState& state) const {
    const int64_t first = 2 * tile_rows.begin;
    const int64_t positions = (smaller(2 * tile_rows.end, sums.height) - first) * sums.width;
    if (!sums.write(tile_rows.begin, tile_rows.end, scratch.outputs)) {
      if (!packed) pack_taps(job.channel);
      packed = true;
      multiply_windows(p, pixels_of(job.sample, job.plane, job.row), first, positions,
                       scratch.panel, sums.transform, scratch.outputs);
    }
    job.finish(positions, first * sums.width, scratch.outputs, state);
  }

  // The weights of a channel block from `channel` of all groups on, not transformed.
  void pack_taps(int64_t channel) const {
    const int64_t taps = p.kernel[0] * 9, left = (group + 1) * p.c_out - channel;
    const auto* weight = static_cast<const float*>(p.weight) + channel * taps * p.c_in;
    __builtin_memset(scratch.panel, 0, taps * p.c_in * kChannelBlock * sizeof(float));
    pack_weights<Element<Dtype::kFloat32>>(
        p, weight, smaller(kChannelBlock, left), 0, p.c_in,
        [&](int64_t tap, int64_t c) { return scratch.panel + (tap * p.c_in + c) * kChannelBlock; });
  }

  // What the tiles of a band read, packed if that is needed.
  Pixels pixels_of(int64_t sample, int64_t d, int64_t h) const {
    if (!plan.direct) {
      pack_slab<Element<Dtype::kFloat32>>(p, plan, sample, group * plan.c_in, plan.c_in, d, h,
                                          scratch.slabs);
      return {scratch.slabs,
              plan.pixel,
              {{0, plan.slab_size[0]}, {0, plan.slab_size[1]}, {0, plan.slab_size[2]}}};
    }
    const int64_t row = h - p.pad[1];
    return {
        input_at<float>(sample, d, h),
        plan.pixel,
        {taps_inside(p, 0, d), {-row, p.in_size[1] - row}, {p.pad[2], p.in_size[2] + p.pad[2]}}};
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
