// Running top-k per channel, by insertion: candidates rarely pass the threshold.
#pragma once
#include "../params.h"

namespace fastconv {
namespace {

struct TopkEntry {
  float value;
  int64_t sample, position, source;
};

// Total order: value, then the lower sample, then the lower position.
inline bool ranks_before(const TopkEntry& a, const TopkEntry& b, bool largest) {
  if (a.value != b.value) return largest ? a.value > b.value : a.value < b.value;
  if (a.sample != b.sample) return a.sample < b.sample;
  return a.position < b.position;
}

inline bool enters(float value, int64_t sample) {
  return sample >= 0 && value - value == 0.0f;  // finite
}

inline void topk_merge_channels(const TopkMergeParams& p, int64_t begin, int64_t end) {
  for (int64_t c = begin; c < end; ++c) {
    float* values = p.out_values + c * p.k;
    int64_t* samples = p.out_samples + c * p.k;
    int64_t* positions = p.out_positions + c * p.k;
    int64_t* source = p.out_source + c * p.k;
    int64_t kept = 0;
    auto insert = [&](const TopkEntry& entry) {
      auto at = [&](int64_t i) { return TopkEntry{values[i], samples[i], positions[i], 0}; };
      if (kept == p.k && !ranks_before(entry, at(kept - 1), p.largest)) return;
      int64_t i = kept < p.k ? kept++ : kept - 1;
      for (; i > 0 && ranks_before(entry, at(i - 1), p.largest); --i) {
        values[i] = values[i - 1];
        samples[i] = samples[i - 1];
        positions[i] = positions[i - 1];
        source[i] = source[i - 1];
      }
      values[i] = entry.value;
      samples[i] = entry.sample;
      positions[i] = entry.position;
      source[i] = entry.source;
    };
    for (int64_t i = 0; i < p.k; ++i) {
      const int64_t at = c * p.k + i;
      if (enters(p.values[at], p.samples[at]))
        insert({p.values[at], p.samples[at], p.positions[at], i});
    }
    for (int64_t m = 0; m < p.candidates; ++m) {
      const int64_t at = c * p.candidates + m;
      if (enters(p.new_values[at], p.new_samples[at]))
        insert({p.new_values[at], p.new_samples[at], p.new_positions[at], p.k + m});
    }
    for (int64_t i = kept; i < p.k; ++i) {
      values[i] = __builtin_nanf("");
      samples[i] = positions[i] = source[i] = -1;
    }
  }
}

}  // namespace
}  // namespace fastconv
