// A stand-in for CUDA that runs kernels on the processor, so that tests can run csrc/cuda as it is.
//
// Blocks run one after the other. The threads of a block are contexts that take turns: one runs
// until it waits for the block (__syncthreads) or for its warp (shuffles, ballots). What a thread
// writes outside shared memory, or reads before others have written it, shows as it would on a
// device only where the order matters; races proper are for compute-sanitizer.
#pragma once
#include <ucontext.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <vector>

#define __device__
#define __host__
#define __global__
#define __noinline__
#define __grid_constant__
#define __launch_bounds__(...)
#define __shared__ static  // blocks run one after the other
#define FASTCONV_DYNAMIC_SHARED(type, name) \
  type* const name = reinterpret_cast<type*>(host_cuda::dynamic_shared.data())

struct uint3_host {
  unsigned x = 0, y = 0, z = 0;
};
inline uint3_host threadIdx, blockIdx, blockDim, gridDim;
struct alignas(8) uint2 {
  uint32_t x, y;
};
struct alignas(16) uint4 {
  uint32_t x, y, z, w;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline uint2 make_uint2(uint32_t x, uint32_t y) { return {x, y}; }

namespace host_cuda {

inline std::vector<uint64_t> dynamic_shared;

// Threads of the block that runs, as contexts.
struct Thread {
  ucontext_t context;
  std::unique_ptr<char[]> stack;
  int waits_for = 0, warp_waits_for = 0;  // barriers that it came to, of the block and the warp
  bool done = false;
};
constexpr size_t kStack = 64 * 1024;
inline std::vector<Thread> threads;
inline ucontext_t scheduler;
inline int current = 0, block_barriers = 0;
inline std::vector<int> warp_barriers;
inline uint64_t exchange[1024];
inline std::function<void()> body;

inline void give_way() { swapcontext(&threads[current].context, &scheduler); }

inline void wait_for_block() {
  ++threads[current].waits_for;
  while (threads[current].waits_for > block_barriers) give_way();
}

inline void wait_for_warp() {
  ++threads[current].warp_waits_for;
  while (threads[current].warp_waits_for > warp_barriers[current / 32]) give_way();
}

inline void run_thread() {
  body();
  threads[current].done = true;
  give_way();
}

// Barriers open when all threads that have not ended have come to them.
inline bool open_barriers() {
  bool opened = false;
  const auto all = [&](size_t begin, size_t end, auto waiting) {
    bool any = false;
    for (size_t i = begin; i < end; ++i) {
      if (threads[i].done) continue;
      if (!waiting(threads[i])) return false;
      any = true;
    }
    return any;
  };
  if (all(0, threads.size(), [](const Thread& t) { return t.waits_for > block_barriers; }))
    ++block_barriers, opened = true;
  for (size_t warp = 0; warp < warp_barriers.size(); ++warp) {
    const auto waiting = [&](const Thread& t) { return t.warp_waits_for > warp_barriers[warp]; };
    if (all(32 * warp, std::min(threads.size(), 32 * warp + 32), waiting))
      ++warp_barriers[warp], opened = true;
  }
  return opened;
}

inline void run_block(int count) {
  if (threads.size() != static_cast<size_t>(count)) threads = std::vector<Thread>(count);
  warp_barriers.assign((count + 31) / 32, 0);
  block_barriers = 0;
  for (Thread& t : threads) {
    if (!t.stack) t.stack = std::make_unique<char[]>(kStack);
    t.waits_for = t.warp_waits_for = 0;
    t.done = false;
    getcontext(&t.context);
    t.context.uc_stack.ss_sp = t.stack.get();
    t.context.uc_stack.ss_size = kStack;
    t.context.uc_link = nullptr;
    makecontext(&t.context, run_thread, 0);
  }
  for (bool left = true; left;) {
    bool ran = left = false;
    for (current = 0; current < count; ++current) {
      const Thread& t = threads[current];
      left |= !t.done;
      if (t.done || t.waits_for > block_barriers || t.warp_waits_for > warp_barriers[current / 32])
        continue;
      threadIdx.x = static_cast<unsigned>(current);
      swapcontext(&scheduler, &threads[current].context);
      ran = true;
    }
    if (left && !open_barriers() && !ran)
      std::fprintf(stderr, "host_cuda: threads wait for each other\n"), std::abort();
  }
}

template <typename T>
T exchanged(T mine, int from) {
  static_assert(sizeof(T) <= 8);
  std::memcpy(&exchange[current], &mine, sizeof(T));
  wait_for_warp();
  T theirs;
  std::memcpy(&theirs, &exchange[current / 32 * 32 + from], sizeof(T));
  wait_for_warp();
  return theirs;
}

}  // namespace host_cuda

inline void __syncthreads() { host_cuda::wait_for_block(); }

template <typename T>
T __shfl_xor_sync(unsigned, T x, int mask) {
  return host_cuda::exchanged(x, (host_cuda::current % 32) ^ mask);
}

inline unsigned __ballot_sync(unsigned, bool hit) {
  using namespace host_cuda;
  exchange[current] = hit;
  wait_for_warp();
  unsigned all = 0;
  const size_t first = current / 32 * 32;
  for (size_t i = first; i < std::min(threads.size(), first + 32); ++i)
    if (!threads[i].done && exchange[i]) all |= 1u << (i - first);
  wait_for_warp();
  return all;
}

template <typename T>
T __ldg(const T* p) {
  if (reinterpret_cast<uintptr_t>(p) % sizeof(T) != 0)
    std::fprintf(stderr, "host_cuda: a misaligned read of %zu bytes\n", sizeof(T)), std::abort();
  return *p;
}

template <typename T, typename U>
T atomicAdd(T* p, U x) {
  const T old = *p;
  *p = static_cast<T>(old + x);
  return old;
}

inline unsigned atomicMax(unsigned* p, unsigned x) {
  const unsigned old = *p;
  *p = std::max(old, x);
  return old;
}

inline int __ffs(int x) { return x == 0 ? 0 : __builtin_ctz(static_cast<unsigned>(x)) + 1; }
inline float __uint_as_float(uint32_t x) { return std::bit_cast<float>(x); }
inline uint32_t __float_as_uint(float x) { return std::bit_cast<uint32_t>(x); }
inline int __float_as_int(float x) { return std::bit_cast<int>(x); }
inline int min(int a, int b) { return a < b ? a : b; }

// 16-bit floats: through float32, rounded to nearest, ties to even.
struct Half16 {
  uint16_t x;
};
struct BFloat {
  uint16_t x;
};
inline float widened(Half16 h) { return static_cast<float>(std::bit_cast<_Float16>(h.x)); }
inline float widened(BFloat b) { return __uint_as_float(uint32_t{b.x} << 16); }
inline Half16 narrowed(float f, Half16) {
  return {std::bit_cast<uint16_t>(static_cast<_Float16>(f))};
}
inline BFloat narrowed(float f, BFloat) {
  const uint32_t bits = __float_as_uint(f);
  if (f != f) return {static_cast<uint16_t>(bits >> 16 | 0x40)};
  return {static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16)};
}
inline float __half2float(Half16 h) { return widened(h); }
inline Half16 __float2half_rn(float f) { return narrowed(f, Half16{}); }
inline BFloat __float2bfloat16_rn(float f) { return narrowed(f, BFloat{}); }
inline Half16 __ushort_as_half(uint16_t x) { return {x}; }
inline uint16_t __half_as_ushort(Half16 h) { return h.x; }
inline uint16_t __bfloat16_as_ushort(BFloat b) { return b.x; }

template <typename T>
struct alignas(4) PairOf {
  T a, b;
};
using __half2 = PairOf<Half16>;
using __nv_bfloat162 = PairOf<BFloat>;

template <typename T, typename F>
PairOf<T> each(PairOf<T> a, PairOf<T> b, F f) {
  return {f(a.a, b.a), f(a.b, b.b)};
}
template <typename T>
PairOf<T> __hmax2(PairOf<T> a, PairOf<T> b) {
  return each(a, b,
              [](T x, T y) { return std::fmax(widened(x), widened(y)) == widened(x) ? x : y; });
}
template <typename T>
PairOf<T> __hmin2(PairOf<T> a, PairOf<T> b) {
  return each(a, b,
              [](T x, T y) { return std::fmin(widened(x), widened(y)) == widened(x) ? x : y; });
}
template <typename T>
PairOf<T> __hadd2(PairOf<T> a, PairOf<T> b) {
  return each(a, b, [](T x, T y) { return narrowed(widened(x) + widened(y), T{}); });
}
template <typename T>
PairOf<T> __hgt2(PairOf<T> a, PairOf<T> b) {
  return each(a, b, [](T x, T y) { return narrowed(widened(x) > widened(y) ? 1.0f : 0.0f, T{}); });
}

#include "kernels.h"

namespace fastconv {

template <typename Params>
LaunchError launch(void (*kernel)(Params), int64_t blocks, int threads, int64_t shared_bytes, void*,
                   const Params& params) {
  host_cuda::dynamic_shared.assign(shared_bytes / 8 + 1, 0xfefefefefefefefeull);  // not cleared
  gridDim.x = static_cast<unsigned>(blocks), blockDim.x = static_cast<unsigned>(threads);
  host_cuda::body = [&] { kernel(params); };
  for (int64_t b = 0; b < blocks; ++b) {
    blockIdx.x = static_cast<unsigned>(b);
    host_cuda::run_block(threads);
  }
  return nullptr;
}

}  // namespace fastconv
