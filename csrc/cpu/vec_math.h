// Activations as torch defines them, a few units in the last place. No fused multiply-add, so
// that every instruction set rounds alike. NaN in, NaN out.
#pragma once
#include <type_traits>

#include "../params.h"
#include "vec.h"

namespace fastconv {
namespace {

// x = n ln 2 + r with |r| <= ln 2 / 2: expm1(r) in value, n in exponent.
struct ReducedExp {
  Float value;
  Int exponent;
};

inline ReducedExp reduced_exp(Float x) {
  constexpr float kRound = 0x1.8p23f;  // adding it rounds to an integer in the low bits
  const Float shifted = x * 0x1.715476p0f + kRound;
  const Float n = shifted - kRound;
  const Float r = x - n * 0x1.62ep-1f - n * 0x1.0bfbeap-15f;  // ln 2; the first product is exact
  Float p = splat(0.001394644845277071f);
  p = p * r + 0.008366583846509457f;
  p = p * r + 0.04166628047823906f;
  p = p * r + 0.1666654348373413f;
  p = p * r + 0.5f;
  return {r + r * r * p, bits(shifted) - 0x4b400000};
}

// 2^n for -126 <= n <= 127.
inline Float power_of_two(Int n) { return from_bits((n + 127) << 23); }

inline Float exp(Float x) {
  x = max(splat(-104.0f), min(splat(89.0f), x));  // beyond: 0 and +inf anyway
  const ReducedExp e = reduced_exp(x);
  const Int half = e.exponent >> 1;  // two steps: the power itself may be no float
  return (e.value + 1.0f) * power_of_two(half) * power_of_two(e.exponent - half);
}

// For x <= 0.
inline Float expm1(Float x) {
  x = max(splat(-87.0f), x);
  const ReducedExp e = reduced_exp(x);
  const Float power = power_of_two(e.exponent);
  return power * e.value + (power - 1.0f);
}

inline Float tanh(Float x) {
  const Int sign = bits(x) & INT32_MIN;
  const Float e = expm1(from_bits(bits(x) | INT32_MIN) * 2.0f);  // of -2 |x|
  return from_bits(bits(-e / (e + 2.0f)) | sign);
}

// erfc(z) exp(z^2) = t exp(p(t)) with t = 1 / (1 + z / 2), for z >= 0.
inline Float erfc(Float z) {
  const Float t = 1.0f / (z * 0.5f + 1.0f);
  Float p = splat(0.148854598402977f);
  p = p * t - 0.7024875283241272f;
  p = p * t + 1.2084853649139404f;
  p = p * t - 0.7663179636001587f;
  p = p * t - 0.02121487446129322f;
  p = p * t - 0.030777707695961f;
  p = p * t + 0.0457511804997921f;
  p = p * t + 0.3842516839504242f;
  p = p * t + 0.9989176392555237f;
  p = p * t - 1.2654623985290527f;
  return t * exp(p - z * z);
}

inline Float gelu(Float x) {
  const Float magnitude = from_bits(bits(x) & INT32_MAX);
  const Float tail = x * 0.5f * erfc(magnitude * 0x1.6a09e6p-1f);  // x/2 erfc(|x| / sqrt 2)
  return x > 0.0f ? x - tail : tail;
}

template <Activation kActivation>
inline Float activate(Float x) {
  const Float zero{};
  switch (kActivation) {
    case Activation::kNone: return x;
    case Activation::kRelu: return max(zero, x);
    case Activation::kRelu6: return min(splat(6.0f), max(zero, x));
    case Activation::kLeakyRelu: return x > 0.0f ? x : x * 0.01f;
    case Activation::kElu: return x > 0.0f ? x : expm1(x);
    case Activation::kGelu: return gelu(x);
    case Activation::kSilu: return x / (exp(-x) + 1.0f);
    case Activation::kSigmoid: return 1.0f / (exp(-x) + 1.0f);
    case Activation::kTanh: return tanh(x);
    case Activation::kHardswish: return x * min(splat(6.0f), max(zero, x + 3.0f)) / 6.0f;
  }
}

// f(constant) of an activation, whose ::value is known to the compiler.
template <typename F>
inline auto with_activation(Activation activation, F f) {
  switch (activation) {
#define FASTCONV_CASE(name) \
  case Activation::name: return f(std::integral_constant<Activation, Activation::name>());
    FASTCONV_CASE(kRelu)
    FASTCONV_CASE(kRelu6)
    FASTCONV_CASE(kLeakyRelu)
    FASTCONV_CASE(kElu)
    FASTCONV_CASE(kGelu)
    FASTCONV_CASE(kSilu)
    FASTCONV_CASE(kSigmoid)
    FASTCONV_CASE(kTanh)
    FASTCONV_CASE(kHardswish)
#undef FASTCONV_CASE
    case Activation::kNone: break;
  }
  return f(std::integral_constant<Activation, Activation::kNone>());
}

}  // namespace
}  // namespace fastconv
