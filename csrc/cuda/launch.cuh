// Starting a kernel, and hearing what CUDA says of it.
#pragma once
#include "kernels.h"
#include "merge_segments.cuh"
#include "portable.cuh"

namespace fastconv {

constexpr int kMostShared = 82'048;  // dynamic bytes of a block of any kernel

#if !defined(FASTCONV_ON_HOST)
template <typename Params>
LaunchError launch(void (*kernel)(Params), int64_t blocks, int threads, int64_t shared_bytes,
                   void* stream, const Params& params) {
  if (blocks == 0) return nullptr;
  const auto shared = static_cast<int>(shared_bytes);
  if (shared > kMostShared) return "a block would need too much shared memory";
  // of this device; always the same, lest two threads take from each other what they asked for
  if (shared > 0) {
    const cudaError_t error =
        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kMostShared);
    if (error != cudaSuccess) return cudaGetErrorString(error);
  }
  kernel<<<static_cast<unsigned>(blocks), threads, shared, static_cast<cudaStream_t>(stream)>>>(
      params);
  const cudaError_t error = cudaGetLastError();
  return error == cudaSuccess ? nullptr : cudaGetErrorString(error);
}
#endif

// Puts the segments of a row together, where there are several.
inline LaunchError merge_segments(const ReductionOut& parts, const ReductionOut& out, int64_t rows,
                                  int64_t segments, void* stream) {
  if (segments == 1) return nullptr;
  const MergeParams params{parts, out, rows, static_cast<int>(segments)};
  return launch(merge_segments_kernel, (rows + 255) / 256, 256, 0, stream, params);
}

// The largest power of two up to 16 that divides all of these: bytes to be read at once.
template <typename... Offsets>
int common_width(Offsets... offsets) {
  const int64_t bits = (int64_t{16} | ... | static_cast<int64_t>(offsets));
  return static_cast<int>(bits & -bits);
}

inline int64_t element_bytes(Dtype dtype) { return dtype == Dtype::kFloat32 ? 4 : 2; }

inline int64_t divided_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

}  // namespace fastconv
