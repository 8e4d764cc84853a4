// Vectors of the width of the instruction set that this file is compiled for, as compiler vector
// types: arithmetic, comparison and ?: are operators. Every function does the same roundings at
// every width, so results do not depend on the instruction set.
#pragma once
#include <cstdint>
#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace fastconv {
namespace {

#if defined(__AVX512F__)
constexpr int kWidth = 16;
#elif defined(__AVX2__)
constexpr int kWidth = 8;
#else
constexpr int kWidth = 4;
#endif

typedef float Float __attribute__((vector_size(4 * kWidth)));
typedef int32_t Int __attribute__((vector_size(4 * kWidth)));
typedef uint16_t Short __attribute__((vector_size(2 * kWidth)));
typedef float HalfFloat __attribute__((vector_size(2 * kWidth)));  // half as many lanes
typedef double Double __attribute__((vector_size(4 * kWidth)));    // half as many lanes
typedef int64_t Long __attribute__((vector_size(4 * kWidth)));     // half as many lanes

template <typename V>
inline V load(const void* p) {
  V v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}

template <typename V>
inline void store(void* p, V v) {
  __builtin_memcpy(p, &v, sizeof v);
}

inline Float splat(float x) { return x - Float{}; }
inline Int bits(Float x) { return reinterpret_cast<Int>(x); }
inline Float from_bits(Int x) { return reinterpret_cast<Float>(x); }

// a > b ? a : b, hence b where either is NaN.
inline Float max(Float a, Float b) {
#if defined(__AVX512F__)
  return _mm512_max_ps(a, b);
#elif defined(__AVX2__)
  return _mm256_max_ps(a, b);
#else
  return a > b ? a : b;
#endif
}

// a < b ? a : b, hence b where either is NaN.
inline Float min(Float a, Float b) {
#if defined(__AVX512F__)
  return _mm512_min_ps(a, b);
#elif defined(__AVX2__)
  return _mm256_min_ps(a, b);
#else
  return a < b ? a : b;
#endif
}

// sum + x * x; x holds a float32, so the product is exact and every form rounds once.
inline Double add_square(Double sum, Double x) {
#if defined(__AVX512F__)
  return _mm512_fmadd_pd(x, x, sum);
#elif defined(__AVX2__)
  return _mm256_fmadd_pd(x, x, sum);
#else
  return sum + x * x;
#endif
}

// a * b + c: one rounding, on the scalar level two.
inline Float multiply_add(Float a, Float b, Float c) {
#if defined(__AVX512F__)
  return _mm512_fmadd_ps(a, b, c);
#elif defined(__AVX2__)
  return _mm256_fmadd_ps(a, b, c);
#else
  return a * b + c;
#endif
}

// count + (x > 0), lane by lane.
inline Int count_positive(Int count, Float x) {
#if defined(__AVX512F__)
  const __mmask16 positive = _mm512_cmp_ps_mask(x, _mm512_setzero_ps(), _CMP_GT_OQ);
  return (Int)_mm512_mask_sub_epi32((__m512i)count, positive, (__m512i)count,
                                    _mm512_set1_epi32(-1));
#else
  return count - (x > 0.0f);
#endif
}

// first, first + 1, ...
inline Int lane_numbers(int first) {
  Int x;
  for (int lane = 0; lane < kWidth; ++lane) x[lane] = first + lane;
  return x;
}

// a < b ? yes : no, lane by lane.
inline Int where_less(Float a, Float b, Int yes, Int no) {
#if defined(__AVX512F__)
  return (Int)_mm512_mask_mov_epi32((__m512i)no, _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ),
                                    (__m512i)yes);
#else
  return a < b ? yes : no;
#endif
}

// One bit per lane of a comparison's result.
inline unsigned lane_bits(Int mask) {
#if defined(__AVX512F__)
  return _mm512_movepi32_mask((__m512i)mask);
#elif defined(__AVX2__)
  return _mm256_movemask_ps((__m256)mask);
#else
  return (mask[0] & 1) | (mask[1] & 2) | (mask[2] & 4) | (mask[3] & 8);
#endif
}

inline unsigned lanes_less(Float a, Float b) {
#if defined(__AVX512F__)
  return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ);
#else
  return lane_bits(a < b);
#endif
}

inline unsigned lanes_equal(Float a, Float b) {
#if defined(__AVX512F__)
  return _mm512_cmp_ps_mask(a, b, _CMP_EQ_OQ);
#else
  return lane_bits(a == b);
#endif
}

// Half as many floats from memory as a Float has, widened without loss.
inline Double load_wide(const float* p) {
#if defined(__AVX512F__)
  Double x;  // from memory even where the compiler knows the value: a register needs a shuffle
  asm("vcvtps2pd %1, %0" : "=v"(x) : "m"(*reinterpret_cast<const HalfFloat*>(p)));
  return x;
#else
  return __builtin_convertvector(load<HalfFloat>(p), Double);
#endif
}

// The first n of half as many floats as a Float has, which may end there, widened; zeros after
// them. Any n.
inline Double load_wide_first(const float* p, int n) {
#if defined(__AVX512F__)
  const unsigned all = n <= 0 ? 0 : n >= kWidth / 2 ? 0xff : (1u << n) - 1;
  return _mm512_maskz_cvtps_pd(all, _mm256_maskz_loadu_ps(all, p));
#else
  Double x{};
  for (int lane = 0; lane < kWidth / 2; ++lane)
    if (lane < n) x[lane] = p[lane];
  return x;
#endif
}

// The first n lanes from p, which may end there; the others from fill. Any n.
inline Float load_first(const float* p, int n, Float fill) {
#if defined(__AVX512F__)
  return _mm512_mask_loadu_ps(fill, n >= kWidth ? 0xffff : (1u << n) - 1, p);
#else
  for (int lane = 0; lane < kWidth; ++lane)
    if (lane < n) fill[lane] = p[lane];
  return fill;
#endif
}

// Writes the first n lanes of x. Any n.
inline void store_first(float* p, int n, Float x) {
#if defined(__AVX512F__)
  _mm512_mask_storeu_ps(p, n >= kWidth ? 0xffff : (1u << n) - 1, x);
#else
  for (int lane = 0; lane < kWidth; ++lane)
    if (lane < n) p[lane] = x[lane];
#endif
}

// The first n lanes from p, which may end there; zeros after them. Any n.
inline Short load_first(const uint16_t* p, int n) {
#if defined(__AVX512F__)
  return (Short)_mm256_maskz_loadu_epi16(n >= kWidth ? 0xffff : (1u << n) - 1, p);
#else
  Short x{};
  for (int lane = 0; lane < kWidth; ++lane)
    if (lane < n) x[lane] = p[lane];
  return x;
#endif
}

// Lanes 0-15 added pairwise: 8 apart, then 4, 2, 1.
inline double sum_16(const double* p) {
#if defined(__AVX512F__)
  return _mm512_reduce_add_pd(load<Double>(p) + load<Double>(p + 8));
#else
  double x[8];
  for (int lane = 0; lane < 8; ++lane) x[lane] = p[lane] + p[lane + 8];
  for (int lane = 0; lane < 4; ++lane) x[lane] += x[lane + 4];
  return (x[0] + x[2]) + (x[1] + x[3]);
#endif
}

inline int32_t sum_16(const int32_t* p) {
#if defined(__AVX512F__)
  return _mm512_reduce_add_epi32(load<__m512i>(p));
#else
  int32_t x = p[0];
  for (int lane = 1; lane < 16; ++lane) x += p[lane];
  return x;
#endif
}

inline float min_16(const float* p) {
#if defined(__AVX512F__)
  return _mm512_reduce_min_ps(load<Float>(p));
#else
  float x = p[0];
  for (int lane = 1; lane < 16; ++lane) x = p[lane] < x ? p[lane] : x;
  return x;
#endif
}

inline float max_16(const float* p) {
#if defined(__AVX512F__)
  return _mm512_reduce_max_ps(load<Float>(p));
#else
  float x = p[0];
  for (int lane = 1; lane < 16; ++lane) x = p[lane] > x ? p[lane] : x;
  return x;
#endif
}

inline int32_t min_16(const int32_t* p) {
#if defined(__AVX512F__)
  return _mm512_reduce_min_epi32(load<__m512i>(p));
#else
  int32_t x = p[0];
  for (int lane = 1; lane < 16; ++lane) x = p[lane] < x ? p[lane] : x;
  return x;
#endif
}

inline bool all_finite(Double x) {
#if defined(__AVX512F__)
  return _mm512_cmp_pd_mask(x * 0.0, x * 0.0, _CMP_UNORD_Q) == 0;
#else
  const Double zero = x * 0.0;
  bool finite = true;
  for (int lane = 0; lane < kWidth / 2; ++lane) finite &= zero[lane] == 0.0;
  return finite;
#endif
}

// Appends the lanes of x where keep is set to list[n...], which has room for all; returns the new
// n.
inline int append(int32_t* list, int n, Int x, Int keep) {
#if defined(__AVX512F__)
  const __mmask16 mask = _mm512_test_epi32_mask((__m512i)keep, (__m512i)keep);
  _mm512_storeu_si512(list + n, _mm512_maskz_compress_epi32(mask, (__m512i)x));
  return n + __builtin_popcount(mask);
#else
  for (int lane = 0; lane < kWidth; ++lane) {
    list[n] = x[lane];
    n -= keep[lane];
  }
  return n;
#endif
}

inline Float widen_bfloat16(Short x) { return from_bits(__builtin_convertvector(x, Int) << 16); }

inline Float widen_float16(Short x) {
#if defined(__AVX512F__)
  return _mm512_cvtph_ps((__m256i)x);
#elif defined(__AVX2__)
  return _mm256_cvtph_ps((__m128i)x);
#else
  const Int half = __builtin_convertvector(x, Int);
  const Int magnitude = (half & 0x7fff) << 13;
  const Float scaled = from_bits(magnitude) * 0x1p112f;  // exact, subnormals too
  const Int special = magnitude | 0x7f800000;
  const Int value = magnitude >= 0x0f800000 ? special : bits(scaled);
  return from_bits(value | (half & 0x8000) << 16);
#endif
}

}  // namespace
}  // namespace fastconv
