// What the bindings start: launches on a stream of the current device, checked. No torch, no CUDA.
#pragma once
#include "../params.h"

namespace fastconv {

// Null, or what CUDA says of a launch that failed.
using LaunchError = const char*;

// How an activation is cut: what the caller needs to know for the size of `parts`.
int64_t channel_reduce_segments(const ChannelReduceParams& params);
int64_t depthwise_segments(const ConvReduceParams& params, bool channels_last);

// parts: [segments * n, c] of each field, or out itself where there is one segment.
LaunchError channel_reduce(const ChannelReduceParams& params, const ReductionOut& parts,
                           void* stream);

// Taps of a row: 3, 5 or 7; stride along a row: 1 or 2; depth 1. scale and shift may be null.
LaunchError depthwise_reduce(const ConvReduceParams& params, const void* bias, bool channels_last,
                             const ReductionOut& parts, void* stream);

LaunchError topk_merge(const TopkMergeParams& params, int64_t channels, void* stream);

struct PatchParams {
  const void* input;     // [N, C, depth, height, width], any strides
  const int64_t* index;  // [M]; a row that does not exist gives zeros
  const int64_t* start;  // [M, 3]
  const int64_t* slot;   // [M]: the place of patch m in out, none below 0; null: m itself
  const float* low;      // [C]: null, or out is the colours (value - low) * scale
  const float* scale;
  void* out;  // contiguous: [slots, C, size...], or uint8 [slots, size..., 3]
  int64_t samples, channels, patches, extent[3], size[3];
  int64_t stride_n, stride_c, stride[3];
  int64_t blocks;  // of a patch; filled in by the launch
};

// bytes: of an element; colours are made of float32 (4) or uint8 (1).
LaunchError place_patches(const PatchParams& params, int bytes, void* stream);

}  // namespace fastconv
