// Every kernel of one instruction set. instantiate_<isa>.cpp fills one table each; those are the
// only files compiled with ISA flags, and they include no STL or torch templates (the linker could
// keep their AVX-512 copy of an inline function for everyone).
#pragma once
#include "../params.h"
#include "isa.h"

namespace fastconv {

struct KernelTable {
  // Channels [begin, end).
  void (*topk_merge)(const TopkMergeParams& params, int64_t begin, int64_t end);
  // Samples x channels; calls that count at the same time must not share a channel.
  void (*channel_reduce)(const ChannelReduceParams& params, const Range& samples,
                         const Range& channels);
  // XOR of n floats from memory: the streaming read that benchmarks compare with.
  int32_t (*stream_read)(const float* x, int64_t n);
};

extern const KernelTable kScalarKernels;
extern const KernelTable kAvx2Kernels;
extern const KernelTable kAvx512Kernels;

inline const KernelTable& kernels() {
  switch (current_isa()) {
    case Isa::kScalar: return kScalarKernels;
    case Isa::kAvx2: return kAvx2Kernels;
    default: return kAvx512Kernels;
  }
}

}  // namespace fastconv
