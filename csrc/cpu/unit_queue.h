// Units of work that threads share: none waits while another has some left.
#pragma once
#include <cstdint>

namespace fastconv {

// What is left of one thread's units: first in the high half, end in the low one.
struct alignas(64) UnitShare {
  uint64_t left;

  UnitShare(int64_t first, int64_t end)
      : left(static_cast<uint64_t>(first) << 32 | static_cast<uint64_t>(end)) {}
};

// A thread takes its own from the front, then those of others from the back.
struct UnitQueue {
  UnitShare* shares;
  int64_t threads;

  // A unit for a thread, or -1.
  int64_t take(int64_t thread) const {
    for (int64_t i = 0; i < threads; ++i) {
      uint64_t* left = &shares[(thread + i) % threads].left;
      uint64_t seen = __atomic_load_n(left, __ATOMIC_RELAXED);
      while (seen >> 32 < (seen & 0xffffffff)) {
        const uint64_t rest = i == 0 ? seen + (uint64_t{1} << 32) : seen - 1;
        if (__atomic_compare_exchange_n(left, &seen, rest, false, __ATOMIC_RELAXED,
                                        __ATOMIC_RELAXED))
          return static_cast<int64_t>(i == 0 ? seen >> 32 : rest & 0xffffffff);
      }
    }
    return -1;
  }
};

}  // namespace fastconv
