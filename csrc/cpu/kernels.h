// Every kernel of one instruction set. instantiate_<isa>.cpp fills one table each; those are the
// only files compiled with ISA flags, and they include no STL or torch templates (the linker could
// keep their AVX-512 copy of an inline function for everyone).
#pragma once
#include "../params.h"
#include "isa.h"
#include "unit_queue.h"

namespace fastconv {

struct KernelTable {
  // Channels [begin, end).
  void (*topk_merge)(const TopkMergeParams& params, int64_t begin, int64_t end);
  // Samples x channels; calls that count at the same time must not share a channel, nor counts.
  void (*channel_reduce)(const ChannelReduceParams& params, const Range& samples,
                         const Range& channels, void* counts);
  // Bytes of counts that it needs on one thread; they must be zero, and are zero again afterwards.
  int64_t (*channel_count_bytes)(const ChannelReduceParams& params);
  // XOR of n floats from memory: the streaming read that benchmarks compare with.
  int32_t (*stream_read)(const float* x, int64_t n);

  // Output channels of one packed panel of weights.
  int conv_channel_block;
  // Whether it multiplies bfloat16 in AMX tiles.
  bool conv_amx;
  // Panels [begin, end) of all groups.
  void (*conv_pack_weight)(const ConvReduceParams& params, const ConvPlan& plan, int64_t begin,
                           int64_t end, float* panels);
  // Bytes that conv_reduce_units needs on one thread, aligned to 64.
  int64_t (*conv_scratch_bytes)(const ConvReduceParams& params, const ConvPlan& plan);
  // Bytes of counts that it needs, too; they must be zero, and are zero again afterwards.
  int64_t (*conv_count_bytes)(const ConvReduceParams& params, const ConvPlan& plan);
  // What a thread takes of the units.
  void (*conv_reduce_units)(const ConvReduceParams& params, const ConvPlan& plan,
                            const float* panels, const UnitQueue& queue, int64_t thread,
                            void* memory, int32_t* counts);
};

extern const KernelTable kScalarKernels;
#if defined(FASTCONV_X86)
extern const KernelTable kAvx2Kernels;
extern const KernelTable kAvx512Kernels;
extern const KernelTable kAmxKernels;
#endif

// In the order of Isa; null: a level that this build has no kernels for.
inline constexpr const KernelTable* kTables[] = {
    &kScalarKernels,
#if defined(FASTCONV_X86)
    &kAvx2Kernels,
    &kAvx512Kernels,
    &kAmxKernels,
#else
    nullptr,
    nullptr,
    nullptr,
#endif
};

inline const KernelTable& kernels() { return *kTables[static_cast<int>(current_isa())]; }

}  // namespace fastconv
