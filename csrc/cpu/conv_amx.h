// bfloat16 in AMX tiles: windows as rows, 16 positions x 32 products at a time.
#pragma once
#include "conv_mainloop.h"
#include "conv_pack.h"

namespace fastconv {
namespace {

constexpr int kTileDepth = 32;  // bfloat16 in a row of a tile

#if defined(__AMX_BF16__)

constexpr bool kHasAmx = true;
constexpr int kTileElements = 512;  // bfloat16 in a tile

// Weights of a channel block as tiles [gemm_k / 32, 2, 16 pairs of products, 16 channels, 2].
inline void pack_amx_panel(const ConvReduceParams& p, const ConvPlan& plan, int64_t group,
                           int64_t block, uint16_t* panel) {
  constexpr int64_t kRows = 1024;
  alignas(64) float rows[kRows * 16];
  const int64_t taps = p.kernel[0] * p.kernel[1] * p.kernel[2];
  const int64_t gemm_k = taps * p.c_in, first = block * kChannelBlock;
  const auto* weight = static_cast<const uint16_t*>(p.weight) + (group * p.c_out + first) * gemm_k;
  auto line = [&](int64_t k, int64_t lane) {  // of the pair that k belongs to
    return panel + (k / kTileDepth * 2 + lane / 16) * kTileElements + k % kTileDepth / 2 * 32;
  };
  __builtin_memset(panel, 0, plan.panel_elements * sizeof *panel);
  const bool pairs = p.c_in % 2 == 0 && 2 * taps <= kRows;  // of one tap
  for (int64_t lane = 0; lane < kChannelBlock && first + lane < p.c_out; lane += 16) {
    const int64_t left = p.c_out - first - lane, lanes = left < 16 ? left : 16;
    const auto* x = weight + lane * gemm_k;
    if (!pairs) {
      for (int64_t i = 0; i < lanes; ++i)
        for (int64_t k = 0; k < gemm_k; ++k)
          line(k, lane)[i * 2 + k % 2] =
              x[i * gemm_k + (p.weight_channels_last ? k : k % p.c_in * taps + k / p.c_in)];
      continue;
    }
    if (lanes < 16) __builtin_memset(rows, 0, sizeof rows);
    const int64_t step = kRows / taps / 2 * 2;
    for (int64_t c = 0; c < p.c_in; c += step) {
      const int64_t end = c + step < p.c_in ? c + step : p.c_in;
      pack_weights<Element<Dtype::kBFloat16>>(p, x, lanes, c, end, [&](int64_t tap, int64_t at) {
        return rows + ((at - c) * taps + tap) * 16;
      });
      for (int64_t tap = 0; tap < taps; ++tap)
        for (int64_t at = c; at < end; at += 2) {
          const Int even = load<Int>(rows + ((at - c) * taps + tap) * 16);
          const Int odd = load<Int>(rows + ((at - c + 1) * taps + tap) * 16);
          const Int low = (Int)_mm512_srli_epi32((__m512i)even, 16);
          store(line(tap * p.c_in + at, lane), low | odd);
        }
    }
  }
}

// The windows of a band, one row each, zeros after gemm_k.
inline void copy_windows(const ConvReduceParams& p, const ConvPlan& plan, const uint16_t* slab,
                         int64_t positions, uint16_t* rows) {
  const int64_t gemm_k = plan.runs * plan.run_length;
  for (int64_t i = 0; i < positions; ++i, rows += plan.row_pitch) {
    const uint16_t* x = slab + plan.offset[i];
    uint16_t* out = rows;
    for (int64_t r = 0; r < plan.runs; ++r, out += plan.run_length) {
      const uint16_t* from = x + plan.run[r];
      int64_t c = 0;
      for (; c + 32 <= plan.run_length; c += 32)
        _mm512_storeu_si512(out + c, _mm512_loadu_si512(from + c));
      const auto rest = static_cast<__mmask32>((uint64_t{1} << (plan.run_length - c)) - 1);
      if (rest != 0)
        _mm512_mask_storeu_epi16(out + c, rest, _mm512_maskz_loadu_epi16(rest, from + c));
    }
    const auto padding =
        static_cast<__mmask32>((uint64_t{1} << (plan.row_pitch - kTileDepth - gemm_k)) - 1);
    _mm512_mask_storeu_epi16(out, padding, _mm512_setzero_si512());
  }
}

// 8 tiles of 16 rows x 64 bytes.
inline void configure_tiles() {
  struct alignas(64) {
    uint8_t palette = 1, start_row = 0, reserved[14] = {};
    uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
    uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
  } config;
  _tile_loadconfig(&config);
}

inline void release_tiles() { _tile_release(); }

// Rows of windows in tiles: row i, tile t of run r at x + i * pitch + run[r] + 32 t.
struct AmxRows {
  const uint16_t* x;
  int64_t pitch, runs, run_tiles;
  const int64_t* run;
};

// tile [32, kChannelBlock] = up to 32 rows, or [16, kChannelBlock] = up to 16, times the panel.
template <bool kTwo>
void multiply_amx_rows(const AmxRows& rows, const uint16_t* panel, float* tile) {
  const int64_t pitch = rows.pitch * 2;
  constexpr int kOut = kChannelBlock * 4;
  _tile_zero(0);
  _tile_zero(1);
  if (kTwo) _tile_zero(2);
  if (kTwo) _tile_zero(3);
  for (int64_t r = 0; r < rows.runs; ++r) {
    const uint16_t* x = rows.x + rows.run[r];
    for (int64_t t = 0; t < rows.run_tiles; ++t, x += kTileDepth, panel += 2 * kTileElements) {
      _tile_loadd(4, x, pitch);
      _tile_loadd(6, panel, 64);
      _tile_dpbf16ps(0, 4, 6);
      _tile_loadd(7, panel + kTileElements, 64);
      _tile_dpbf16ps(1, 4, 7);
      if (!kTwo) continue;
      _tile_loadd(5, x + 16 * rows.pitch, pitch);
      _tile_dpbf16ps(2, 5, 6);
      _tile_dpbf16ps(3, 5, 7);
    }
  }
  _tile_stored(0, tile, kOut);
  _tile_stored(1, tile + 16, kOut);
  if (!kTwo) return;
  _tile_stored(2, tile + 16 * kChannelBlock, kOut);
  _tile_stored(3, tile + 16 * kChannelBlock + 16, kOut);
}

inline void multiply_amx(const AmxRows& rows, int64_t count, const uint16_t* panel, float* tile) {
  if (count > 16)
    multiply_amx_rows<true>(rows, panel, tile);
  else
    multiply_amx_rows<false>(rows, panel, tile);
}

#else

constexpr bool kHasAmx = false;
inline void pack_amx_panel(const ConvReduceParams&, const ConvPlan&, int64_t, int64_t, uint16_t*) {}
inline void copy_windows(const ConvReduceParams&, const ConvPlan&, const uint16_t*, int64_t,
                         uint16_t*) {}
inline void configure_tiles() {}
inline void release_tiles() {}
struct AmxRows {
  const uint16_t* x;
  int64_t pitch, runs, run_tiles;
  const int64_t* run;
};
inline void multiply_amx(const AmxRows&, int64_t, const uint16_t*, float*) {}

#endif

}  // namespace
}  // namespace fastconv
