// Elements in memory: how 16 bytes of them are read, widened, compared and counted.
#pragma once
#include <climits>
#include <cstdint>

#include "../params.h"
#include "portable.cuh"

namespace fastconv {

// Four words as memory has them: kVector elements, the first in the low half of the first word.
struct Words {
  uint32_t w[4];
};

__device__ inline float as_float(uint32_t bits) { return __uint_as_float(bits); }
__device__ inline bool is_finite(float x) { return x - x == 0.0f; }

struct Float32 {
  static constexpr int kVector = 4, kBytes = 4;
  static constexpr uint32_t kInfinities = 0x7f800000u, kSigns = 0x80000000u;
  using Raw = float;
  __device__ static float widen(Raw x) { return x; }
  __device__ static Raw narrow(float x) { return x; }
  __device__ static float at(const Words& x, int i) { return as_float(x.w[i]); }
  __device__ static uint32_t larger(uint32_t a, uint32_t b) {
    return __float_as_uint(fmaxf(as_float(a), as_float(b)));
  }
  __device__ static uint32_t smaller(uint32_t a, uint32_t b) {
    return __float_as_uint(fminf(as_float(a), as_float(b)));
  }
  // Counters of positive elements, lane by lane of a word.
  __device__ static uint32_t count_positive(uint32_t count, uint32_t x) {
    return count + (as_float(x) > 0.0f);
  }
  __device__ static int counted(uint32_t count) { return static_cast<int>(count); }
  // The two halves of a word, where it has two.
  __device__ static float low(uint32_t x) { return as_float(x); }
  __device__ static float high(uint32_t x) { return as_float(x); }
};

// Two to a word. Packed instructions work on both at once; a counter is a small float of the type,
// exact while it stays below 256.
struct BFloat16 {
  static constexpr int kVector = 8, kBytes = 2;
  static constexpr uint32_t kInfinities = 0x7f807f80u, kSigns = 0x80008000u;
  using Raw = uint16_t;
  __device__ static float widen(Raw x) { return as_float(static_cast<uint32_t>(x) << 16); }
  __device__ static Raw narrow(float x) { return __bfloat16_as_ushort(__float2bfloat16_rn(x)); }
  __device__ static float low(uint32_t x) { return as_float(x << 16); }
  __device__ static float high(uint32_t x) { return as_float(x & 0xffff0000u); }
  __device__ static float at(const Words& x, int i) {
    return i % 2 == 0 ? low(x.w[i / 2]) : high(x.w[i / 2]);
  }
  using Pair = __nv_bfloat162;
  __device__ static Pair pair(uint32_t x) { return *reinterpret_cast<Pair*>(&x); }
  __device__ static uint32_t word(Pair x) { return *reinterpret_cast<uint32_t*>(&x); }
  __device__ static uint32_t larger(uint32_t a, uint32_t b) {
    return word(__hmax2(pair(a), pair(b)));
  }
  __device__ static uint32_t smaller(uint32_t a, uint32_t b) {
    return word(__hmin2(pair(a), pair(b)));
  }
  __device__ static uint32_t count_positive(uint32_t count, uint32_t x) {
    return word(__hadd2(pair(count), __hgt2(pair(x), pair(0))));
  }
  __device__ static int counted(uint32_t count) {
    return static_cast<int>(low(count)) + static_cast<int>(high(count));
  }
};

struct Float16 {
  static constexpr int kVector = 8, kBytes = 2;
  static constexpr uint32_t kInfinities = 0x7c007c00u, kSigns = 0x80008000u;
  using Raw = uint16_t;
  __device__ static float widen(Raw x) { return __half2float(__ushort_as_half(x)); }
  __device__ static Raw narrow(float x) { return __half_as_ushort(__float2half_rn(x)); }
  __device__ static float low(uint32_t x) { return widen(static_cast<Raw>(x)); }
  __device__ static float high(uint32_t x) { return widen(static_cast<Raw>(x >> 16)); }
  __device__ static float at(const Words& x, int i) {
    return i % 2 == 0 ? low(x.w[i / 2]) : high(x.w[i / 2]);
  }
  using Pair = __half2;
  __device__ static Pair pair(uint32_t x) { return *reinterpret_cast<Pair*>(&x); }
  __device__ static uint32_t word(Pair x) { return *reinterpret_cast<uint32_t*>(&x); }
  __device__ static uint32_t larger(uint32_t a, uint32_t b) {
    return word(__hmax2(pair(a), pair(b)));
  }
  __device__ static uint32_t smaller(uint32_t a, uint32_t b) {
    return word(__hmin2(pair(a), pair(b)));
  }
  __device__ static uint32_t count_positive(uint32_t count, uint32_t x) {
    return word(__hadd2(pair(count), __hgt2(pair(x), pair(0))));
  }
  __device__ static int counted(uint32_t count) {
    return static_cast<int>(low(count)) + static_cast<int>(high(count));
  }
};

// 16 bytes from p, which is a multiple of `width` bytes (16, 8, 4 or 2; the same for all threads):
// how they are read changes, which thread reads them does not.
__device__ inline Words load_words(const void* p, int width) {
  Words x;
  if (width == 16) {
    const uint4 v = __ldg(static_cast<const uint4*>(p));
    x = {{v.x, v.y, v.z, v.w}};
  } else if (width == 8) {
    const uint2 a = __ldg(static_cast<const uint2*>(p)),
                b = __ldg(static_cast<const uint2*>(p) + 1);
    x = {{a.x, a.y, b.x, b.y}};
  } else if (width == 4) {
#pragma unroll
    for (int i = 0; i < 4; ++i) x.w[i] = __ldg(static_cast<const uint32_t*>(p) + i);
  } else {
    const auto* half = static_cast<const uint16_t*>(p);
#pragma unroll
    for (int i = 0; i < 4; ++i)
      x.w[i] = __ldg(half + 2 * i) | static_cast<uint32_t>(__ldg(half + 2 * i + 1)) << 16;
  }
  return x;
}

// The first n elements from p, which may end there; zeros after them.
template <typename E>
__device__ inline Words load_first(const typename E::Raw* p, int n) {
  Words x = {};
#pragma unroll
  for (int i = 0; i < E::kVector; ++i) {
    if (i >= n) continue;
    if constexpr (E::kBytes == 4)
      x.w[i] = __float_as_uint(__ldg(p + i));
    else
      x.w[i / 2] |= static_cast<uint32_t>(__ldg(p + i)) << (16 * (i % 2));
  }
  return x;
}

// Activations as torch defines them; NaN in, NaN out. One function for all: ten of them in every
// unrolled loop would be most of the code.
static __device__ __noinline__ float activate(Activation activation, float x) {
  switch (activation) {
    case Activation::kNone: return x;
    case Activation::kRelu: return x < 0.0f ? 0.0f : x;
    case Activation::kRelu6: return x < 0.0f ? 0.0f : x > 6.0f ? 6.0f : x;
    case Activation::kLeakyRelu: return x > 0.0f ? x : x * 0.01f;
    case Activation::kElu: return x > 0.0f ? x : expm1f(x);
    case Activation::kGelu: return x * 0.5f * erfcf(x * -0.70710678118654752f);
    case Activation::kSilu: return x / (expf(-x) + 1.0f);
    case Activation::kSigmoid: return 1.0f / (expf(-x) + 1.0f);
    case Activation::kTanh: return tanhf(x);
    case Activation::kHardswish: {
      const float y = x + 3.0f;
      return x * (y < 0.0f ? 0.0f : y > 6.0f ? 6.0f : y) / 6.0f;
    }
  }
  return x;
}

// The activation, the same for all threads, of a few values; the frequent ones without a call.
template <int kCount>
__device__ inline void activate_all(Activation activation, float (&v)[kCount]) {
  if (activation == Activation::kNone) return;
  const bool relu = activation == Activation::kRelu;
#pragma unroll
  for (int i = 0; i < kCount; ++i)
    v[i] = relu ? (v[i] < 0.0f ? 0.0f : v[i]) : activate(activation, v[i]);
}

// Histogram bin of a finite value: see fastconv/histogram.py.
__device__ inline int bin_of(float x) {
  constexpr int kFirst = (kFirstExponent + 127) << (23 - kBinShift);
  const int bits = __float_as_int(x);
  int magnitude = ((bits & INT_MAX) >> kBinShift) - (kFirst - 1);
  magnitude = magnitude > 0 ? magnitude : 0;
  magnitude = magnitude < kBinsPerSign + 1 ? magnitude : kBinsPerSign + 1;
  return kZeroBin + (bits < 0 ? -magnitude : magnitude);
}

}  // namespace fastconv
