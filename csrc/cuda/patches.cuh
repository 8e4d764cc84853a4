// Patches cut out of a batch: as they are, or as the colours of a picture. Outside: zeros.
//
// Budget, sm_80 and later: 64 registers, no spills, no shared memory.
#pragma once
#include "element.cuh"
#include "kernels.h"

namespace fastconv {

constexpr int kPatchThreads = 256;
constexpr int kPatchElements = 4;  // of a thread

// 0 to 255, halves to even; 0 for NaN.
__device__ inline uint8_t colour(float value) {
  constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: the sum has no room for a fraction
  value = value > 0.0f ? value : 0.0f;
  value = value < 255.0f ? value : 255.0f;
  return static_cast<uint8_t>((value + kRound) - kRound);
}

// Where an element of patch m lies in the input; negative: outside.
__device__ inline int64_t patch_offset(const PatchParams& p, int64_t m, int64_t point,
                                       int64_t channel) {
  const int64_t sample = p.index[m], row = point / p.size[2];
  const int64_t at[3] = {p.start[3 * m] + row / p.size[1], p.start[3 * m + 1] + row % p.size[1],
                         p.start[3 * m + 2] + point % p.size[2]};
  bool inside = sample >= 0 && sample < p.samples;
  int64_t offset = sample * p.stride_n + channel * p.stride_c;
#pragma unroll
  for (int d = 0; d < 3; ++d) {
    inside = inside && at[d] >= 0 && at[d] < p.extent[d];
    offset += at[d] * p.stride[d];
  }
  return inside ? offset : -1;
}

// T: an element of the input; unsigned integers of any meaning, or what colours are made of.
template <typename T, bool kColours>
__global__ void __launch_bounds__(kPatchThreads)
    patches_kernel(const __grid_constant__ PatchParams p) {
  const int64_t m = blockIdx.x / p.blocks, block = blockIdx.x % p.blocks;
  const int64_t to = p.slot != nullptr ? p.slot[m] : m;
  if (to < 0) return;
  const int64_t volume = p.size[0] * p.size[1] * p.size[2];
  const int64_t values = (kColours ? 3 : p.channels) * volume;
  const T* input = static_cast<const T*>(p.input);
#pragma unroll
  for (int i = 0; i < kPatchElements; ++i) {
    const int64_t element = (block * kPatchElements + i) * kPatchThreads + threadIdx.x;
    if (element >= values) return;
    if constexpr (kColours) {
      const int64_t c = element % 3 < p.channels ? element % 3 : p.channels - 1;
      const int64_t offset = patch_offset(p, m, element / 3, c);
      const float value = offset < 0 ? 0.0f : static_cast<float>(__ldg(input + offset));
      static_cast<uint8_t*>(p.out)[to * values + element] =
          colour((value - __ldg(p.low + c)) * __ldg(p.scale + c));
    } else {
      const int64_t offset = patch_offset(p, m, element % volume, element / volume);
      static_cast<T*>(p.out)[to * values + element] = offset < 0 ? T{} : __ldg(input + offset);
    }
  }
}

}  // namespace fastconv
