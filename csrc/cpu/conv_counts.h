// conv_reduce: the histogram, counted by thread.
#pragma once
#include "../params.h"
#include "conv_mainloop.h"
#include "reduce_block.h"

namespace fastconv {
namespace {

using BlockCounts = ByBin<kChannelBlock>;

// A thread's counts of the channel blocks that it met last, on their way to the histogram. There,
// where other threads add to the same channels, adding costs more than counting: it is put off.
class ConvCounts {
 public:
  ConvCounts(const ConvReduceParams& p, const ConvPlan& plan, int32_t* tables)
      : p_(p), plan_(plan), tables_(tables), patience_(INT32_MAX / p.positions()) {
    for (Slot& slot : slots_) slot = {-1, 0};
  }

  ~ConvCounts() {
    for (int64_t i = 0; i < slots(p_, plan_); ++i) flush(i);
  }

  static int64_t slots(const ConvReduceParams& p, const ConvPlan& plan) {
    const int64_t all = plan.blocks * plan.groups;
    return p.histogram == nullptr ? 0 : all < kSlots ? all : kSlots;
  }

  static constexpr int64_t kTable = int64_t{kBins} * kChannelBlock;

  // The counts of a block of all groups, which the values of one sample will be added to.
  int32_t* of(int64_t block) {
    if (p_.histogram == nullptr) return nullptr;
    const int64_t i = block % slots(p_, plan_);
    if (slots_[i].block != block || slots_[i].samples >= patience_) {
      flush(i);
      slots_[i] = {block, 0};
    }
    ++slots_[i].samples;
    return tables_ + i * kTable;
  }

 private:
  static constexpr int64_t kSlots = 16;  // 5 MB
  struct Slot {
    int64_t block, samples;
  };

  // Leaves zeros behind.
  void flush(int64_t i) {
    if (slots_[i].block < 0) return;
    const int64_t group = slots_[i].block / plan_.blocks;
    const int64_t in_group = slots_[i].block % plan_.blocks * plan_.channel_block;
    const int64_t channels = plan_.c_out - in_group;
    int64_t* histogram = p_.histogram + (group * plan_.c_out + in_group) * kBins;
    int32_t* row = tables_ + i * kTable;
    for (int64_t bin = 0; bin < kBins; ++bin, row += kChannelBlock) {
      int32_t any = 0;
      for (int c = 0; c < kChannelBlock; ++c) any |= row[c];
      if (any == 0) continue;
      for (int c = 0; c < kChannelBlock && c < channels; ++c) {
        if (row[c] != 0)
          __atomic_fetch_add(histogram + c * kBins + bin, int64_t{row[c]}, __ATOMIC_RELAXED);
        row[c] = 0;
      }
    }
  }

  const ConvReduceParams& p_;
  const ConvPlan& plan_;
  int32_t* tables_;
  int64_t patience_;  // samples until a count may overflow
  Slot slots_[kSlots];
};

}  // namespace
}  // namespace fastconv
