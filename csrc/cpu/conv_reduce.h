// conv_reduce: mainloop and epilogue over the units of a plan.
#pragma once
#include "conv_epilogue.h"
#include "conv_mainloop.h"
#include "conv_pack.h"

namespace fastconv {
namespace {

// Panels [begin, end) of all groups.
void conv_pack_weight(const ConvReduceParams& p, const ConvPlan& plan, int64_t begin, int64_t end,
                      float* panels) {
  for (int64_t i = begin; i < end; ++i) {
    float* panel = panels + i * plan.panel_elements;
    const int64_t group = i / plan.blocks, block = i % plan.blocks;
    switch (p.dtype) {
      case Dtype::kFloat32: pack_panel<Dtype::kFloat32>(p, plan, group, block, panel); break;
      case Dtype::kFloat16: pack_panel<Dtype::kFloat16>(p, plan, group, block, panel); break;
      case Dtype::kBFloat16: pack_panel<Dtype::kBFloat16>(p, plan, group, block, panel); break;
    }
  }
}

inline void pack_any_slab(const ConvReduceParams& p, const ConvPlan& plan, int64_t sample,
                          int64_t group, int64_t d, int64_t h, float* slab) {
  switch (p.dtype) {
    case Dtype::kFloat32: return pack_slab<Dtype::kFloat32>(p, plan, sample, group, d, h, slab);
    case Dtype::kFloat16: return pack_slab<Dtype::kFloat16>(p, plan, sample, group, d, h, slab);
    case Dtype::kBFloat16: return pack_slab<Dtype::kBFloat16>(p, plan, sample, group, d, h, slab);
  }
}

// One channel block of one sample over one band.
struct BandJob {
  const ConvReduceParams& p;
  const ConvPlan& plan;
  TransformTile transform;
  const float* slab;
  const float* panel;
  int64_t sample, channel;  // of all groups
  int channels;
  int64_t first_position;  // of the band
  int64_t positions;
  int64_t* counts;  // [kChannelBlock, kBins] or null

  void run(BlockState& state) const {
    alignas(64) float tile[kEpilogueRows * kChannelBlock] = {};
    alignas(64) float scale[kChannelBlock] = {}, shift[kChannelBlock] = {};
    for (int c = 0; c < channels; ++c) {
      scale[c] = p.scale[channel + c];
      shift[c] = p.shift[channel + c];
    }
    const bool wide = channels > kChannelBlock - kWidth;
    const int64_t tiles = (positions + kTileRows - 1) / kTileRows;
    constexpr int64_t kTiles = kEpilogueRows / kTileRows;
    for (int64_t t = 0; t < tiles; t += kTiles) {
      const int64_t stop = t + kTiles < tiles ? t + kTiles : tiles;
      const int64_t begin = t * positions / tiles, end = stop * positions / tiles;
      for (int64_t i = t; i < stop; ++i) {  // tiles of near equal height
        const int64_t from = i * positions / tiles, to = (i + 1) * positions / tiles;
        float* out = tile + (from - begin) * kChannelBlock;
        if (wide)
          multiply_rows<kChannelBlock / kWidth>(to - from, plan, slab, plan.offset + from, panel, out);
        else
          multiply_rows<kChannelBlock / kWidth - 1>(to - from, plan, slab, plan.offset + from, panel,
                                                    out);
      }
      finish_tile(static_cast<int>(end - begin), first_position + begin, scale, shift, tile, state);
    }
  }

  void finish_tile(int rows, int64_t position, const float* scale, const float* shift, float* tile,
                   BlockState& state) const {
    transform(scale, shift, channels, rows, tile);
    for (int first = 0; first < channels; first += kLanes)
      reduce_block<false>({.values = tile + first,
                           .stride = kChannelBlock,
                           .steps = rows,
                           .lanes = channels - first < kLanes ? channels - first : kLanes},
                          position, state.part[first / kLanes],
                          counts == nullptr ? nullptr : counts + first * kBins);
    if (p.written != nullptr) write_tile(p, sample, channel, channels, position, rows, tile);
  }
};

// One thread's memory, in stretches of 64 bytes.
struct ConvScratch {
  BlockState* states;  // one, or one per channel block where samples have several bands
  int64_t* counts;     // [kChannelBlock, kBins] or null
  float* slabs;
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
    counts = p.histogram == nullptr ? nullptr : reinterpret_cast<int64_t*>(take(kCountBytes));
    slabs = reinterpret_cast<float*>(take(plan.unit_samples * plan.slab_elements * 4));
    bytes = at - static_cast<char*>(memory);
  }

  static constexpr int64_t kCountBytes = int64_t{kChannelBlock} * kBins * 8;
};

// Bytes of scratch for conv_reduce_units, on one thread.
int64_t conv_scratch_bytes(const ConvReduceParams& p, const ConvPlan& plan) {
  return ConvScratch(p, plan, nullptr).bytes;
}

// Moves a thread's counts to the histogram, where other threads add to the same channels.
inline void flush_counts(int64_t* counts, int channels, int64_t* histogram) {
  for (int64_t i = 0; i < int64_t{channels} * kBins; ++i) {
    if (counts[i] == 0) continue;
    __atomic_fetch_add(histogram + i, counts[i], __ATOMIC_RELAXED);
    counts[i] = 0;
  }
}

// Units [begin, end); scratch is aligned to 64 bytes.
void conv_reduce_units(const ConvReduceParams& p, const ConvPlan& plan, const float* panels,
                       int64_t begin, int64_t end, void* memory) {
  const ConvScratch scratch(p, plan, memory);
  if (scratch.counts != nullptr) __builtin_memset(scratch.counts, 0, ConvScratch::kCountBytes);
  const TransformTile transform = transform_for(p.activation);
  for (int64_t unit = begin; unit < end; ++unit) {
    const int64_t group = unit / plan.block_units % p.groups;
    const int64_t first_sample = unit / (plan.block_units * p.groups) * plan.unit_samples;
    const int64_t first_block = unit % plan.block_units * plan.unit_blocks;
    auto upto = [](int64_t a, int64_t b) { return a < b ? a : b; };
    const int64_t last_sample = upto(first_sample + plan.unit_samples, p.n);
    const int64_t last_block = upto(first_block + plan.unit_blocks, plan.blocks);
    for (int64_t band = 0; band < plan.bands; ++band) {
      const int64_t d = band / plan.bands_per_plane;
      const int64_t h = band % plan.bands_per_plane * plan.band_rows;
      const int64_t rows = upto(plan.band_rows, p.out_size[1] - h);
      if (!plan.direct)
        for (int64_t n = first_sample; n < last_sample; ++n)
          pack_any_slab(p, plan, n, group, d, h, scratch.slabs + (n - first_sample) * plan.slab_elements);
      for (int64_t block = first_block; block < last_block; ++block) {
        const int64_t channel = block * kChannelBlock;
        const int channels = static_cast<int>(upto(kChannelBlock, p.c_out - channel));
        BlockState& state = scratch.states[plan.bands > 1 ? block - first_block : 0];
        for (int64_t n = first_sample; n < last_sample; ++n) {
          const float* slab = scratch.slabs + (n - first_sample) * plan.slab_elements;
          if (plan.direct)
            slab = static_cast<const float*>(p.input) + n * p.in_stride[0] +
                   group * p.c_in * p.in_stride[1] + d * p.stride[0] * p.in_stride[2] +
                   h * p.stride[1] * p.in_stride[3];
          if (band == 0) state.clear();
          const BandJob job{p,       plan,
                            transform, slab,
                            panels + (group * plan.blocks + block) * plan.panel_elements,
                            n,       group * p.c_out + channel,
                            channels, (d * p.out_size[1] + h) * p.out_size[2],
                            rows * p.out_size[2], scratch.counts};
          job.run(state);
          if (band == plan.bands - 1) finish_block(p, n, group * p.c_out + channel, channels, state);
        }
        if (scratch.counts != nullptr)
          flush_counts(scratch.counts, channels,
                       p.histogram + (group * p.c_out + channel) * kBins);
      }
    }
  }
}

}  // namespace
}  // namespace fastconv
