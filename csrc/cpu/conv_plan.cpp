#include "conv_plan.h"

#include <algorithm>

namespace fastconv {
namespace {

constexpr int64_t kSlabElements = 128 * 1024;  // half a megabyte: a quarter of L2
constexpr int64_t kBandPositions = 4096;       // a table of them is read by every thread
constexpr int64_t kDepthwiseChannels = 16;     // of a channel block
constexpr int64_t kAmxDepth = 32;              // of a tile, in bfloat16
constexpr int64_t kDepthwiseRows = 8;          // at least, of a band
constexpr int64_t kTileWindows = 14;           // of a tile, about
constexpr int64_t kWorthSkipping = 64;         // products
constexpr int64_t kShortestRun = 16;           // products of a run, where tiles are sorted
constexpr int64_t kWinogradChannels = 32;      // in and out, at least: transforming costs as much
constexpr int64_t kWinogradPlanes = 3;         // of a kernel, at most
constexpr int64_t kWinogradTiles = 56;  // about, of a unit: for so many weights are read once

int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

// True where every window lies inside an input with channels innermost, and all of it is used.
bool reads_in_place(const ConvReduceParams& p, const ConvPlan& plan, Dtype packed) {
  if (p.dtype != packed || (p.in_stride[1] != 1 && plan.c_in != 1)) return false;
  for (int d = 0; d < 3; ++d) {
    const int64_t last =
        (p.out_size[d] - 1) * p.stride[d] - p.pad[d] + (p.kernel[d] - 1) * p.dilation[d];
    const bool skips = p.kernel[d] == 1 && p.stride[d] > 1;
    if (p.pad[d] > 0 || last >= p.in_size[d] || skips) return false;
  }
  return true;
}

// Groups that together fill the lanes of a channel block, where one alone would leave most empty.
int64_t merged_groups(const ConvReduceParams& p) {
  int64_t found = 1;
  for (int64_t n = 2; n <= p.groups && n * p.c_out <= kDepthwiseChannels; ++n)
    if (p.groups % n == 0) found = n;
  return found;
}

// True where there is a kernel for rows of a depthwise convolution.
bool multiplies_rows(const ConvReduceParams& p) {
  const int64_t k = p.kernel[2];
  return (k == 3 || k == 5 || k == 7) && p.stride[2] <= 2 && p.dilation[2] == 1;
}

// Kernel taps of dimension d, of all outputs, that meet no padding.
int64_t taps_met(const ConvReduceParams& p, int d) {
  int64_t sum = 0;
  for (int64_t at = 0; at < p.out_size[d]; ++at) {
    const Range taps = taps_inside(p, d, at);
    sum += taps.end - taps.begin;
  }
  return sum;
}

// Whether a good part of all products would be of padding.
bool meets_padding(const ConvReduceParams& p) {
  int64_t all = 1, met = 1;
  for (int d = 0; d < 3; ++d) {
    all *= p.out_size[d] * p.kernel[d];
    met *= taps_met(p, d);
  }
  return met * 20 < all * 19;
}

// Input pixels from the first to the last that outputs of dimension d read, padding included.
int64_t extent_of(const ConvReduceParams& p, int d) {
  return (p.out_size[d] - 1) * p.stride[d] + (p.kernel[d] - 1) * p.dilation[d] + 1;
}

// A whole sample as one band.
void plan_sorted_slab(const ConvReduceParams& p, ConvPlan& plan) {
  plan.unit_slabs = plan.bands = plan.bands_per_plane = 1;
  plan.band_rows = p.out_size[1];
  plan.band_positions = p.positions();
  int64_t pixel = plan.c_in;
  for (int d = 2; d >= 0; --d) {
    plan.step[d] = 1;
    plan.slab_size[d] = extent_of(p, d);
    plan.pixel[d] = pixel;
    pixel *= plan.slab_size[d];
  }
  plan.slab_elements = pixel;
}

bool sorts(const ConvReduceParams& p, const ConvPlan& plan) {
  return !plan.depthwise && !plan.amx && plan.merged == 1 && plan.c_in >= kShortestRun &&
         extent_of(p, 0) * extent_of(p, 1) * extent_of(p, 2) * plan.c_in <= kSlabElements &&
         meets_padding(p);
}

void plan_slab(const ConvReduceParams& p, ConvPlan& plan) {
  plan.copies_windows = plan.amx && p.c_in % kAmxDepth != 0;
  plan.by_rows = plan.depthwise && multiplies_rows(p);
  if (plan.depthwise)
    plan.direct = plan.by_rows && p.dtype == Dtype::kFloat32 && p.in_stride[1] == 1 &&
                  plan.c_out % kDepthwiseChannels == 0;
  else
    plan.direct = plan.amx == plan.copies_windows &&
                  reads_in_place(p, plan, plan.amx ? Dtype::kBFloat16 : Dtype::kFloat32);
  plan.step[0] = p.dilation[0];
  for (int d = 1; d < 3; ++d) plan.step[d] = p.kernel[d] == 1 ? p.stride[d] : 1;
  auto extent = [&](int64_t outputs, int d) {
    return ((outputs - 1) * p.stride[d] + (p.kernel[d] - 1) * p.dilation[d]) / plan.step[d] + 1;
  };
  plan.slab_size[0] = p.kernel[0];
  plan.slab_size[2] = extent(p.out_size[2], 2);
  auto elements = [&](int64_t rows) {
    return plan.slab_size[0] * extent(rows, 1) * plan.slab_size[2] * plan.c_in;
  };
  int64_t rows = p.out_size[1];
  plan.unit_slabs = 1;
  if (plan.depthwise) {
    const int64_t fitting = 2 * kSlabElements / elements(std::min(rows, kDepthwiseRows));
    plan.unit_slabs = plan.direct ? plan.blocks : std::clamp<int64_t>(fitting, 1, plan.blocks);
  }
  auto fits = [&](int64_t n) {
    return elements(n) * plan.unit_slabs <= kSlabElements &&
           (plan.depthwise || n * p.out_size[2] <= kBandPositions) &&
           (!plan.copies_windows || n * p.out_size[2] * plan.row_pitch <= 2 * kSlabElements);
  };
  if (!fits(rows)) {
    rows = 1;
    while (fits(rows + 1)) ++rows;
    rows = divide_up(p.out_size[1], divide_up(p.out_size[1], rows));  // even bands
  }
  plan.band_rows = rows;
  plan.bands_per_plane = divide_up(p.out_size[1], rows);
  plan.bands = plan.bands_per_plane * p.out_size[0];
  plan.band_positions = rows * p.out_size[2];
  plan.slab_size[1] = extent(rows, 1);
  plan.slab_elements = elements(rows);
  plan.pixel[2] = plan.direct ? p.in_stride[4] * plan.step[2] : plan.c_in;
  plan.pixel[1] = plan.direct ? p.in_stride[3] * plan.step[1] : plan.pixel[2] * plan.slab_size[2];
  plan.pixel[0] = plan.direct ? p.in_stride[2] * plan.step[0] : plan.pixel[1] * plan.slab_size[1];
}

// Positions by the taps that they meet: in each dimension stretches of outputs meet the same.
void plan_order(const ConvReduceParams& p, ConvPlan& plan, std::vector<int64_t>& table) {
  std::vector<int64_t> ends[3], order, kind;
  for (int d = 0; d < 3; ++d)
    for (int64_t at = 0; at < p.out_size[d]; ++at) {
      const Range taps = taps_inside(p, d, at), before = taps_inside(p, d, at > 0 ? at - 1 : 0);
      if (at > 0 && taps.begin == before.begin && taps.end == before.end) ends[d].pop_back();
      ends[d].push_back(at + 1);
    }
  auto begin = [&](int d, size_t i) { return i == 0 ? 0 : ends[d][i - 1]; };
  for (size_t a = 0; a < ends[0].size(); ++a)
    for (size_t b = 0; b < ends[1].size(); ++b)
      for (size_t c = 0; c < ends[2].size(); ++c) {
        kind.push_back(static_cast<int64_t>(order.size()));
        for (int64_t d = begin(0, a); d < ends[0][a]; ++d)
          for (int64_t h = begin(1, b); h < ends[1][b]; ++h)
            for (int64_t w = begin(2, c); w < ends[2][c]; ++w)
              order.push_back((d * p.out_size[1] + h) * p.out_size[2] + w);
      }
  plan.kinds = static_cast<int64_t>(kind.size());
  kind.push_back(static_cast<int64_t>(order.size()));
  table.insert(table.end(), order.begin(), order.end());
  table.insert(table.end(), kind.begin(), kind.end());
  plan.order = table.data() + table.size() - kind.size() - order.size();
  plan.kind = table.data() + table.size() - kind.size();
}

// Kernel taps whose input elements follow one another make one run.
void plan_runs(const ConvReduceParams& p, ConvPlan& plan, std::vector<int64_t>& table) {
  const int64_t tap[3] = {plan.pixel[0] * p.dilation[0] / plan.step[0],
                          plan.pixel[1] * p.dilation[1], plan.pixel[2] * p.dilation[2]};
  int64_t (&taps)[3] = plan.taps;
  for (int d = 0; d < 3; ++d) taps[d] = p.kernel[d];
  plan.run_length = plan.depthwise ? 0 : plan.c_in;  // depthwise: one run a tap
  for (int d = 2; d >= 0 && !plan.sorted && (taps[d] == 1 || tap[d] == plan.run_length); --d) {
    plan.run_length *= taps[d];
    taps[d] = 1;
  }
  plan.runs = taps[0] * taps[1] * taps[2];
  const int line = p.out_size[2] == 1 ? 1 : 2;
  plan.window = plan.pixel[line] * p.stride[line] / plan.step[line];
  plan.window_step =
      plan.depthwise ? 0 : divide_up(kTileWindows * plan.window * 4, plan.run_length);
  plan.skips[0] = taps[0] > 1;
  plan.skips[1] = taps[1] > 1 && plan.run_length * taps[2] >= kWorthSkipping;
  table.clear();
  for (int64_t a = 0; a < taps[0]; ++a)
    for (int64_t b = 0; b < taps[1]; ++b)
      for (int64_t c = 0; c < taps[2]; ++c) table.push_back(a * tap[0] + b * tap[1] + c * tap[2]);
  const int64_t row = p.stride[1] / plan.step[1] * plan.pixel[1];
  const int64_t column = p.stride[2] / plan.step[2] * plan.pixel[2];
  for (int64_t d = 0; d < (plan.sorted ? p.out_size[0] : 1); ++d)
    for (int64_t h = 0; h < plan.band_rows; ++h)
      for (int64_t w = 0; w < p.out_size[2]; ++w)
        table.push_back(d * p.stride[0] * plan.pixel[0] + h * row + w * column);
  if (plan.sorted) plan_order(p, plan, table);
  plan.run = table.data();
  plan.offset = table.data() + plan.runs;
}

// Samples that a unit may take at once.
int64_t fitting_samples(const ConvPlan& plan) {
  if (plan.bands > 1) return 1;
  if (plan.winograd)
    return std::max<int64_t>(1,
                             kWinogradTiles / (plan.tile_columns * divide_up(plan.band_rows, 2)));
  const int64_t sample = plan.copies_windows ? plan.band_positions * plan.row_pitch / 2
                                             : plan.slab_elements * plan.unit_slabs;
  if (plan.sorted)
    return std::clamp<int64_t>(kSlabElements / (plan.band_positions * plan.channel_block), 1,
                               std::max<int64_t>(1, 2 * kSlabElements / sample));
  return std::max<int64_t>(1, 2 * kSlabElements / sample);
}

void plan_units(const ConvReduceParams& p, int64_t threads, ConvPlan& plan) {
  const int64_t fitting = fitting_samples(plan);
  plan.sample_units = divide_up(p.n, fitting);
  if (p.n >= threads) plan.sample_units = divide_up(plan.sample_units, threads) * threads;
  plan.unit_samples = divide_up(p.n, std::min(plan.sample_units, p.n));
  plan.sample_units = divide_up(p.n, plan.unit_samples);
  const int64_t wanted = divide_up(threads, plan.sample_units * plan.groups);
  const int64_t spread = divide_up(plan.blocks, std::min(wanted, plan.blocks));
  plan.unit_blocks = plan.depthwise ? std::min(spread, plan.unit_slabs) : spread;
  plan.block_units = divide_up(plan.blocks, plan.unit_blocks);
  plan.units = plan.sample_units * plan.groups * plan.block_units;
}

// True where Winograd's tiles of 2x2 outputs pay: by the weight and how it moves, not by the input,
// so that a weight can be packed before an input is there.
bool pays_winograd(const ConvReduceParams& p) {
  auto plain = [&](int d) { return p.stride[d] == 1 && p.dilation[d] == 1; };
  return p.dtype == Dtype::kFloat32 && p.kernel[1] == 3 && p.kernel[2] == 3 && plain(1) &&
         plain(2) && p.kernel[0] <= kWinogradPlanes && p.c_in % kDepthwiseChannels == 0 &&
         p.c_in >= kWinogradChannels && p.c_out >= kWinogradChannels;
}

// The slab of a band is that of whole tiles; products are those of matrices [tiles, gemm_k].
void plan_winograd(const ConvReduceParams& p, ConvPlan& plan, std::vector<int64_t>& table) {
  plan.direct = p.in_stride[1] == 1;
  plan.tile_columns = divide_up(p.out_size[2], 2);
  const int64_t tile_rows = divide_up(p.out_size[1], 2);
  const int64_t fitting = std::max<int64_t>(1, kWinogradTiles / plan.tile_columns);
  const int64_t rows = divide_up(tile_rows, divide_up(tile_rows, std::min(fitting, tile_rows)));
  plan.band_rows = std::min(2 * rows, p.out_size[1]);
  plan.bands_per_plane = divide_up(p.out_size[1], plan.band_rows);
  plan.bands = plan.bands_per_plane * p.out_size[0];
  plan.band_positions = plan.band_rows * p.out_size[2];
  plan.slab_size[0] = p.kernel[0];
  plan.slab_size[1] = 2 * rows + 2;
  plan.slab_size[2] = 2 * plan.tile_columns + 2;
  plan.slab_elements = p.kernel[0] * plan.slab_size[1] * plan.slab_size[2] * p.c_in;
  plan.step[0] = p.dilation[0];
  plan.step[1] = plan.step[2] = 1;
  plan.pixel[2] = plan.direct ? p.in_stride[4] : p.c_in;
  plan.pixel[1] = plan.direct ? p.in_stride[3] : plan.pixel[2] * plan.slab_size[2];
  plan.pixel[0] = plan.direct ? p.in_stride[2] * p.dilation[0] : plan.pixel[1] * plan.slab_size[1];
  plan.unit_slabs = plan.runs = 1;
  plan.taps[0] = plan.taps[1] = plan.taps[2] = 1;
  plan.run_length = plan.window = plan.gemm_k;
  plan.window_step = 4 * kTileWindows;
  table.assign(1, 0);
  for (int64_t i = 0; i < kTileWindows; ++i) table.push_back(i * plan.gemm_k);
  plan.run = table.data();
  plan.offset = table.data() + 1;
}

}  // namespace

ConvPlan plan_conv(const ConvReduceParams& params, int64_t channel_block, bool amx, int64_t threads,
                   std::vector<int64_t>& table) {
  ConvPlan plan{};
  plan.depthwise = params.groups > 1 && params.c_in == 1 && params.c_out == 1;
  plan.amx = amx && params.dtype == Dtype::kBFloat16 && !plan.depthwise;
  plan.merged = plan.depthwise || plan.amx ? 1 : merged_groups(params);
  plan.groups = plan.depthwise ? 1 : params.groups / plan.merged;
  plan.c_in = plan.depthwise ? kDepthwiseChannels : params.c_in * plan.merged;
  plan.c_out = plan.depthwise ? params.groups : params.c_out * plan.merged;
  plan.channel_block = plan.depthwise ? kDepthwiseChannels : channel_block;
  plan.blocks = divide_up(plan.c_out, plan.channel_block);
  plan.gemm_k =
      params.kernel[0] * params.kernel[1] * params.kernel[2] * (plan.depthwise ? 1 : plan.c_in);
  if (plan.amx) {
    plan.gemm_k = divide_up(plan.gemm_k, kAmxDepth) * kAmxDepth;
    plan.row_pitch = plan.gemm_k + kAmxDepth;  // no power of two: rows spread over the cache
  }
  plan.winograd = !plan.depthwise && pays_winograd(params);
  if (plan.winograd) plan.gemm_k = params.kernel[0] * params.c_in;
  plan.panel_elements = plan.gemm_k * plan.channel_block * (plan.winograd ? 16 : 1);
  if (plan.winograd) {
    plan_winograd(params, plan, table);
  } else {
    plan.sorted = sorts(params, plan);
    if (plan.sorted)
      plan_sorted_slab(params, plan);
    else
      plan_slab(params, plan);
    plan_runs(params, plan, table);
  }
  plan_units(params, threads, plan);
  const int64_t tiles = plan.unit_samples * divide_up(plan.band_rows, 2) * plan.tile_columns;
  plan.window_pitch = tiles * plan.gemm_k;
  plan.product_pitch = tiles * plan.channel_block;
  return plan;
}

}  // namespace fastconv
