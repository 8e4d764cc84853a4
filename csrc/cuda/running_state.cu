// What the running states start: top-k and patches.
#include "launch.cuh"
#include "patches.cuh"
#include "topk_merge.cuh"

namespace fastconv {

LaunchError topk_merge(const TopkMergeParams& params, int64_t channels, void* stream) {
  return launch(topk_merge_kernel, channels, kTopkThreads, 0, stream, params);
}

LaunchError place_patches(const PatchParams& params, int bytes, void* stream) {
  PatchParams p = params;
  const bool colours = p.low != nullptr;
  const int64_t values = (colours ? 3 : p.channels) * p.size[0] * p.size[1] * p.size[2];
  p.blocks = divided_up(values, kPatchThreads * kPatchElements);
  const auto start = [&](auto kernel) {
    return launch(kernel, p.patches * p.blocks, kPatchThreads, 0, stream, p);
  };
  if (colours)
    return bytes == 1 ? start(patches_kernel<uint8_t, true>) : start(patches_kernel<float, true>);
  switch (bytes) {
    case 1: return start(patches_kernel<uint8_t, false>);
    case 2: return start(patches_kernel<uint16_t, false>);
    case 4: return start(patches_kernel<uint32_t, false>);
    default: return start(patches_kernel<uint64_t, false>);
  }
}

}  // namespace fastconv
