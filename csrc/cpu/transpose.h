// Elements of every dtype as float32, one, a vector, or eight by eight turned over.
#pragma once
#include "../params.h"
#include "vec.h"

namespace fastconv {
namespace {

template <Dtype kDtype>
struct Element {
  using Raw = uint16_t;
  using Packed = float;
  static Float widen(const Raw* p) {
    return kDtype == Dtype::kFloat16 ? widen_float16(load<Short>(p))
                                     : widen_bfloat16(load<Short>(p));
  }
  static float widen_one(const Raw* p) {
    Short x{};
    x[0] = *p;
    return (kDtype == Dtype::kFloat16 ? widen_float16(x) : widen_bfloat16(x))[0];
  }
};

template <>
struct Element<Dtype::kFloat32> {
  using Raw = float;
  using Packed = float;
  static Float widen(const Raw* p) { return load<Float>(p); }
  static float widen_one(const Raw* p) { return *p; }
};

#if defined(__AVX2__)

inline __m256 widen_eight(Element<Dtype::kFloat32>, const float* p) { return _mm256_loadu_ps(p); }
inline __m256 widen_eight(Element<Dtype::kFloat16>, const uint16_t* p) {
  return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}
inline __m256 widen_eight(Element<Dtype::kBFloat16>, const uint16_t* p) {
  const __m128i raw = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(raw), 16));
}

// Counts, which are moved as they are.
struct CountElement {
  using Raw = uint16_t;
};
inline __m256 widen_eight(CountElement, const uint16_t* p) {
  const __m128i raw = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return _mm256_castsi256_ps(_mm256_cvtepu16_epi32(raw));
}

// row(i)[c] = x[c * channel + i] for eight of each.
template <typename E, typename Row>
inline void transpose_eight(const typename E::Raw* x, int64_t channel, Row row) {
  __m256 r[8], pair[8];
  for (int c = 0; c < 8; ++c) r[c] = widen_eight(E{}, x + c * channel);
  for (int c = 0; c < 8; c += 2) {
    pair[c] = _mm256_unpacklo_ps(r[c], r[c + 1]);
    pair[c + 1] = _mm256_unpackhi_ps(r[c], r[c + 1]);
  }
  for (int c = 0; c < 8; c += 4) {
    r[c] = _mm256_shuffle_ps(pair[c], pair[c + 2], 0x44);
    r[c + 1] = _mm256_shuffle_ps(pair[c], pair[c + 2], 0xee);
    r[c + 2] = _mm256_shuffle_ps(pair[c + 1], pair[c + 3], 0x44);
    r[c + 3] = _mm256_shuffle_ps(pair[c + 1], pair[c + 3], 0xee);
  }
  for (int i = 0; i < 4; ++i) {
    _mm256_storeu_ps(row(i), _mm256_permute2f128_ps(r[i], r[i + 4], 0x20));
    _mm256_storeu_ps(row(i + 4), _mm256_permute2f128_ps(r[i], r[i + 4], 0x31));
  }
}

#endif

}  // namespace
}  // namespace fastconv
