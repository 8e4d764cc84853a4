// Exact fixed-point sums of float64: limb i counts units of 2^(32 i - 1074).
#pragma once
#include <cstdint>
#include <cstring>

namespace fastconv {

// values [samples, channels], sums [channels, limbs]; channels [begin, end).
inline void exact_add_channels(const double* values, int64_t samples, int64_t channels,
                               int64_t* sums, int64_t limbs, int64_t begin, int64_t end) {
  for (int64_t n = 0; n < samples; ++n) {
    for (int64_t c = begin; c < end; ++c) {
      uint64_t bits;
      std::memcpy(&bits, values + n * channels + c, sizeof bits);
      const int64_t exponent = static_cast<int64_t>((bits >> 52) & 0x7FF);
      uint64_t mantissa = bits & ((uint64_t{1} << 52) - 1);
      if (exponent > 0) mantissa |= uint64_t{1} << 52;
      const int64_t offset = exponent > 0 ? exponent - 1 : 0;
      const unsigned __int128 wide = static_cast<unsigned __int128>(mantissa) << (offset & 31);
      int64_t* limb = sums + c * limbs + (offset >> 5);
      const int64_t sign = bits >> 63 ? -1 : 1;
      for (int i = 0; i < 3; ++i)
        limb[i] += sign * static_cast<int64_t>(static_cast<uint32_t>(wide >> (32 * i)));
    }
  }
}

}  // namespace fastconv
