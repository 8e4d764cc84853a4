// Plain parameter structs: what a kernel needs, no torch. Strides in elements, offsets int64.
#pragma once
#include <cstdint>

namespace fastconv {

enum class Dtype : int { kFloat32 = 0, kFloat16 = 1, kBFloat16 = 2 };

// Order of fastconv.reduction.ACTIVATIONS, after none.
enum class Activation : int {
  kNone = 0,
  kRelu,
  kRelu6,
  kLeakyRelu,
  kElu,
  kGelu,
  kSilu,
  kSigmoid,
  kTanh,
  kHardswish
};

// Log-linear histogram: see fastconv/reduction.py.
constexpr int kBinShift = 18;
constexpr int kFirstExponent = -20;
constexpr int kBinsPerSign = 40 * 32;
constexpr int kBins = 2 * (kBinsPerSign + 1) + 1;
constexpr int kZeroBin = kBinsPerSign + 1;

// Per (sample, channel) results, each [N, C] contiguous.
struct ReductionOut {
  double* sum;
  double* sumsq;
  float* min;
  float* max;
  int64_t* argmax;
  int64_t* argmin;
  int64_t* positive;
  int64_t* nonfinite;
};

// Lists of the values that reach a threshold of their channel: see fastconv.reduction.Append.
struct CandidateLists {
  const float* threshold;  // [C], or null: no lists
  int32_t* counts;         // [C], how many reached it
  float* values;           // [C, capacity], as far as they fit
  int64_t* places;         // [C, capacity]: row * positions + position
  int64_t capacity;
  bool largest;
};

// A convolution of [N, groups * c_in, D, H, W]; missing spatial dimensions are 1.
struct ConvReduceParams {
  const void* input;
  Dtype dtype;                       // of input, weight and activation
  int64_t n, groups, c_in, c_out;    // channels per group
  int64_t in_size[3], in_stride[5];  // strides: n, c, d, h, w
  int64_t out_size[3];
  int64_t kernel[3], stride[3], pad[3], dilation[3];  // pad: before
  const void* weight;                                 // [groups * c_out, c_in, *kernel], contiguous
  bool weight_channels_last;                          // or [groups * c_out, *kernel, c_in]
  const float* scale;                                 // [groups * c_out]; the value reduced is
  const float* shift;                                 // activation(scale * sum of products + shift)
  Activation activation;
  ReductionOut out;
  int64_t* histogram;  // [groups * c_out, kBins] or null
  // What is written for the network, or null: the value reduced, or where post_scale is given
  // post_activation(post_scale * value + post_shift).
  void* written;
  int64_t written_stride[3];  // n, c, position
  const float* post_scale;    // [groups * c_out] or null
  const float* post_shift;
  Activation post_activation;
  CandidateLists candidates;

  constexpr int64_t positions() const { return out_size[0] * out_size[1] * out_size[2]; }
};

// How one convolution is cut into work: decided once per call, from shapes and threads only.
//
// A sample is read in bands: one output plane d, some output rows h, all columns w. The input of a
// band is a slab [planes, rows, columns, c_in] of floats: padded, channels innermost, and copied
// unless the tensor itself will do. Input pixels that no window reads are left out of it.
// A unit is (some samples) x (one group) x (some channel blocks); units are independent, and the
// bits of a (sample, channel) do not depend on the unit that computed them.
// Depthwise: all channels count as one group, and every channel block has a slab of its own, or
// reads the tensor where channels are innermost.
struct ConvPlan {
  bool depthwise;       // one input and one output channel in every group
  bool amx;             // bfloat16, slab and panels
  bool copies_windows;  // AMX: out of the slab, in rows of row_pitch, as runs are no whole tiles
  bool winograd;        // 16 products for a tile of 2x2 outputs, in place of 36
  bool direct;          // the slab is the input tensor itself
  bool by_rows;         // depthwise: row by row of the output, no padding read
  int64_t merged;       // groups of few channels taken as one, others' weights zero; or 1
  int64_t groups, c_in, c_out;  // c_in: of a slab; c_out: of a group
  int64_t step[3];              // input pixels from one slab plane, row, column to the next
  int64_t slab_size[3];         // planes, rows, columns
  int64_t pixel[3];             // elements from one slab plane, row, column to the next
  int64_t slab_elements;        // direct or not
  int64_t row_pitch;            // elements; gemm_k and 32 more
  int64_t band_rows, bands_per_plane, bands, band_positions;
  int64_t gemm_k;            // AMX: in whole tiles of 32
  int64_t run_length, runs;  // weights of an output channel that meet consecutive slab elements
  int64_t taps[3];           // runs: planes x rows x columns of the kernel, or longer
  bool skips[2];             // planes, rows: whether taps that lie in the padding are left out
  int64_t window;            // slab elements from one window of an output row, or column one wide
  int64_t window_step;       // bytes for every weight, to fetch a tile of windows in a run
  const int64_t* run;        // [runs] slab offset of each
  const int64_t* offset;     // [band_positions] slab offset of each window
  // Windows that meet the same taps make tiles, those of all samples of a unit, so that no padding
  // is multiplied: positions in that order, where in it each of `kinds` begins, and its end.
  bool sorted;
  const int64_t* order;
  const int64_t* kind;
  int64_t kinds;
  int64_t channel_block, blocks;  // output channels of a packed panel; panels of a group
  int64_t panel_elements;         // weights of a panel: [kernel taps, c_in, channel_block]
  int64_t unit_samples, unit_blocks;
  int64_t unit_slabs;  // of one sample
  int64_t sample_units, block_units, units;
  // Winograd, for all samples of a unit: tiles in a row of them; elements from one of 16 matrices
  // of windows, and of products of a channel block, to the next.
  int64_t tile_columns, window_pitch, product_pitch;
};

struct Range {
  int64_t begin, end;
};

// x [N, C, positions] -> ReductionOut of activation(scale * x + shift).
struct ChannelReduceParams {
  const void* x;
  Dtype dtype;
  int64_t n, c, positions;
  int64_t stride_n, stride_c, stride_p;
  bool channels_last;  // stride_c is 1; else stride_p is 1
  const float* scale;  // [C] or null
  const float* shift;  // [C] or null
  Activation activation;
  int64_t* histogram;  // [C, kBins], added into, or null
  ReductionOut out;
  CandidateLists candidates;
  // x, to be overwritten by post_activation(post_scale * value + post_shift), or null.
  float* written;
  const float* post_scale;  // [C], and post_shift; or null
  const float* post_shift;
  Activation post_activation;
};

// Running top-k of C channels and M candidates each; every tensor contiguous.
struct TopkMergeParams {
  const float* values;           // [C, k]
  const int64_t* samples;        // [C, k]
  const int64_t* positions;      // [C, k]
  const float* new_values;       // [C, M]
  const int64_t* new_samples;    // [C, M]
  const int64_t* new_positions;  // [C, M]
  float* out_values;             // [C, k]
  int64_t* out_samples;          // [C, k]
  int64_t* out_positions;        // [C, k]
  int64_t* out_source;           // [C, k]
  int64_t k;
  int64_t candidates;
  bool largest;
};

// Taps of dimension d whose input of output `at` is no padding; both ends fall as `at` rises.
inline Range taps_inside(const ConvReduceParams& p, int d, int64_t at) {
  const int64_t first = at * p.stride[d] - p.pad[d], step = p.dilation[d];
  const int64_t begin = first < 0 ? (step - 1 - first) / step : 0;
  const int64_t end = first < p.in_size[d] ? (p.in_size[d] - first + step - 1) / step : 0;
  return {begin < p.kernel[d] ? begin : p.kernel[d], end < p.kernel[d] ? end : p.kernel[d]};
}

}  // namespace fastconv
