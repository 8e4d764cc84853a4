// One float vector of the instruction set in use, and the little that kernels need of it.
// Only instantiate_<isa>.cpp include this: everything here has internal linkage.
#pragma once
#include <cstdint>
#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace fastconv {
namespace {

#if defined(__AVX512F__)

using VecF = __m512;
using VecI = __m512i;  // int32
using Mask = __mmask16;
constexpr int kLanes = 16;

inline VecF splat(float x) { return _mm512_set1_ps(x); }
inline VecI splat_int(int32_t x) { return _mm512_set1_epi32(x); }
inline VecF load(const float* p) { return _mm512_loadu_ps(p); }
inline void store(float* p, VecF v) { _mm512_storeu_ps(p, v); }
inline VecI load_int(const int32_t* p) { return _mm512_loadu_si512(p); }
inline void store_int(int32_t* p, VecI v) { _mm512_storeu_si512(p, v); }
inline VecF load_first(const float* p, int n) {
  return _mm512_maskz_loadu_ps(static_cast<Mask>((1u << n) - 1), p);
}
inline void store_first(float* p, VecF v, int n) {
  _mm512_mask_storeu_ps(p, static_cast<Mask>((1u << n) - 1), v);
}
inline VecF fma(VecF a, VecF b, VecF c) { return _mm512_fmadd_ps(a, b, c); }
// Where either is NaN, or both are zero: b.
inline VecF max(VecF a, VecF b) { return _mm512_max_ps(a, b); }
inline VecF min(VecF a, VecF b) { return _mm512_min_ps(a, b); }
inline Mask greater(VecF a, VecF b) { return _mm512_cmp_ps_mask(a, b, _CMP_GT_OQ); }
inline Mask equal(VecF a, VecF b) { return _mm512_cmp_ps_mask(a, b, _CMP_EQ_OQ); }
inline bool any(Mask m) { return m != 0; }
inline bool all(Mask m) { return m == 0xffff; }
inline Mask both(Mask a, Mask b) { return a & b; }
inline VecF select(Mask m, VecF yes, VecF no) { return _mm512_mask_blend_ps(m, no, yes); }
inline VecI select(Mask m, VecI yes, VecI no) { return _mm512_mask_blend_epi32(m, no, yes); }
inline VecI count(VecI n, Mask m) { return _mm512_mask_sub_epi32(n, m, n, _mm512_set1_epi32(-1)); }
inline VecI add_int(VecI a, VecI b) { return _mm512_add_epi32(a, b); }
inline VecI bits(VecF v) { return _mm512_castps_si512(v); }
inline VecF from_bits(VecI v) { return _mm512_castsi512_ps(v); }
// p[0 .. kLanes) += v, in double.
inline void add_to_double(double* p, VecF v) {
  const __m256 high = _mm512_extractf32x8_ps(v, 1);
  _mm512_storeu_pd(p, _mm512_add_pd(_mm512_loadu_pd(p), _mm512_cvtps_pd(_mm512_castps512_ps256(v))));
  _mm512_storeu_pd(p + 8, _mm512_add_pd(_mm512_loadu_pd(p + 8), _mm512_cvtps_pd(high)));
}
inline VecF load_bf16(const uint16_t* p) {
  const __m256i raw = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  return from_bits(_mm512_slli_epi32(_mm512_cvtepu16_epi32(raw), 16));
}
inline VecF load_fp16(const uint16_t* p) {
  return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}

#elif defined(__AVX2__)

using VecF = __m256;
using VecI = __m256i;
using Mask = __m256;  // all ones where true
constexpr int kLanes = 8;

inline VecF splat(float x) { return _mm256_set1_ps(x); }
inline VecI splat_int(int32_t x) { return _mm256_set1_epi32(x); }
inline VecF load(const float* p) { return _mm256_loadu_ps(p); }
inline void store(float* p, VecF v) { _mm256_storeu_ps(p, v); }
inline VecI load_int(const int32_t* p) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
}
inline void store_int(int32_t* p, VecI v) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), v);
}
inline VecI first_lanes(int n) {
  return _mm256_cmpgt_epi32(splat_int(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
inline VecF load_first(const float* p, int n) { return _mm256_maskload_ps(p, first_lanes(n)); }
inline void store_first(float* p, VecF v, int n) { _mm256_maskstore_ps(p, first_lanes(n), v); }
inline VecF fma(VecF a, VecF b, VecF c) { return _mm256_fmadd_ps(a, b, c); }
inline VecF max(VecF a, VecF b) { return _mm256_max_ps(a, b); }
inline VecF min(VecF a, VecF b) { return _mm256_min_ps(a, b); }
inline Mask greater(VecF a, VecF b) { return _mm256_cmp_ps(a, b, _CMP_GT_OQ); }
inline Mask equal(VecF a, VecF b) { return _mm256_cmp_ps(a, b, _CMP_EQ_OQ); }
inline bool any(Mask m) { return _mm256_movemask_ps(m) != 0; }
inline bool all(Mask m) { return _mm256_movemask_ps(m) == 0xff; }
inline Mask both(Mask a, Mask b) { return _mm256_and_ps(a, b); }
inline VecF select(Mask m, VecF yes, VecF no) { return _mm256_blendv_ps(no, yes, m); }
inline VecI select(Mask m, VecI yes, VecI no) {
  return _mm256_blendv_epi8(no, yes, _mm256_castps_si256(m));
}
inline VecI count(VecI n, Mask m) { return _mm256_sub_epi32(n, _mm256_castps_si256(m)); }
inline VecI add_int(VecI a, VecI b) { return _mm256_add_epi32(a, b); }
inline VecI bits(VecF v) { return _mm256_castps_si256(v); }
inline VecF from_bits(VecI v) { return _mm256_castsi256_ps(v); }
inline void add_to_double(double* p, VecF v) {
  const __m128 high = _mm256_extractf128_ps(v, 1);
  _mm256_storeu_pd(p, _mm256_add_pd(_mm256_loadu_pd(p), _mm256_cvtps_pd(_mm256_castps256_ps128(v))));
  _mm256_storeu_pd(p + 4, _mm256_add_pd(_mm256_loadu_pd(p + 4), _mm256_cvtps_pd(high)));
}
inline VecF load_bf16(const uint16_t* p) {
  const __m128i raw = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return from_bits(_mm256_slli_epi32(_mm256_cvtepu16_epi32(raw), 16));
}
inline VecF load_fp16(const uint16_t* p) {
  return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}

#else  // portable: four lanes, written out by the compiler

typedef float VecF __attribute__((vector_size(16)));
typedef int32_t VecI __attribute__((vector_size(16)));
typedef int32_t Mask __attribute__((vector_size(16)));  // all ones where true
constexpr int kLanes = 4;

inline VecF splat(float x) { return VecF{x, x, x, x}; }
inline VecI splat_int(int32_t x) { return VecI{x, x, x, x}; }
inline VecF load(const float* p) {
  VecF v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}
inline void store(float* p, VecF v) { __builtin_memcpy(p, &v, sizeof v); }
inline VecI load_int(const int32_t* p) {
  VecI v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}
inline void store_int(int32_t* p, VecI v) { __builtin_memcpy(p, &v, sizeof v); }
inline VecF load_first(const float* p, int n) {
  VecF v = splat(0.0f);
  for (int i = 0; i < n; ++i) v[i] = p[i];
  return v;
}
inline void store_first(float* p, VecF v, int n) {
  for (int i = 0; i < n; ++i) p[i] = v[i];
}
inline VecF fma(VecF a, VecF b, VecF c) { return a * b + c; }
inline VecF max(VecF a, VecF b) { return a > b ? a : b; }
inline VecF min(VecF a, VecF b) { return a < b ? a : b; }
inline Mask greater(VecF a, VecF b) { return a > b; }
inline Mask equal(VecF a, VecF b) { return a == b; }
inline bool any(Mask m) { return (m[0] | m[1] | m[2] | m[3]) != 0; }
inline bool all(Mask m) { return (m[0] & m[1] & m[2] & m[3]) != 0; }
inline Mask both(Mask a, Mask b) { return a & b; }
inline VecF select(Mask m, VecF yes, VecF no) { return m ? yes : no; }
inline VecI select(Mask m, VecI yes, VecI no) { return m ? yes : no; }
inline VecI count(VecI n, Mask m) { return n - m; }
inline VecI add_int(VecI a, VecI b) { return a + b; }
inline VecI bits(VecF v) { return reinterpret_cast<VecI>(v); }
inline VecF from_bits(VecI v) { return reinterpret_cast<VecF>(v); }
inline void add_to_double(double* p, VecF v) {
  for (int i = 0; i < kLanes; ++i) p[i] += v[i];
}
inline VecF load_bf16(const uint16_t* p) {
  VecI v;
  for (int i = 0; i < kLanes; ++i) v[i] = static_cast<int32_t>(static_cast<uint32_t>(p[i]) << 16);
  return from_bits(v);
}
// Exact: the fp16 exponent and fraction scaled by 2^112; subnormals normalise in the product.
inline float fp16_to_float(uint16_t h) {
  const uint32_t magnitude = static_cast<uint32_t>(h & 0x7fff) << 13;
  uint32_t raw = magnitude;
  if (magnitude >= 0x0f800000) {  // infinity, NaN
    raw |= 0x7f800000;
  } else {
    float value;
    __builtin_memcpy(&value, &raw, 4);
    value *= 5.192296858534828e33f;  // 2^112
    __builtin_memcpy(&raw, &value, 4);
  }
  raw |= static_cast<uint32_t>(h & 0x8000) << 16;
  float out;
  __builtin_memcpy(&out, &raw, 4);
  return out;
}
inline VecF load_fp16(const uint16_t* p) {
  return VecF{fp16_to_float(p[0]), fp16_to_float(p[1]), fp16_to_float(p[2]), fp16_to_float(p[3])};
}

#endif

}  // namespace
}  // namespace fastconv
