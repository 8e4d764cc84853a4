// Winograd's F(2x2, 3x3): 16 products of transformed windows and weights make four outputs, where
// 36 would. An output depends on nothing outside its own window, as without it. Source: Lavin and
// Gray, "Fast Algorithms for Convolutional Neural Networks", 2016.
#pragma once
#include "conv_band.h"
#include "conv_pack.h"

namespace fastconv {
namespace {

constexpr int kProducts = 16;  // of a tile of 2x2 outputs, for every pair of channels

// Three weights of a row or column to four.
inline void transform_three(Float a, Float b, Float c, Float* out) {
  const Float ends = (a + c) * 0.5f, middle = b * 0.5f;
  out[0] = a;
  out[1] = ends + middle;
  out[2] = ends - middle;
  out[3] = c;
}

// Weights of channel block `block` of a group: [16, planes, c_in, channel_block].
inline void pack_winograd_panel(const ConvReduceParams& p, const ConvPlan& plan, int64_t group,
                                int64_t block, float* panel) {
  constexpr int64_t kRows = 288;  // taps x channels at a time
  alignas(64) float rows[kRows * kChannelBlock] = {};
  const int64_t planes = p.kernel[0], taps = planes * 9, first = block * kChannelBlock;
  const int64_t channels = p.c_out - first < kChannelBlock ? p.c_out - first : kChannelBlock;
  const auto* weight =
      static_cast<const float*>(p.weight) + (group * p.c_out + first) * taps * p.c_in;
  const int64_t step = kRows / taps / 8 * 8;
  for (int64_t begin = 0; begin < p.c_in; begin += step) {
    const int64_t end = begin + step < p.c_in ? begin + step : p.c_in;
    pack_weights<Element<Dtype::kFloat32>>(
        p, weight, channels, begin, end,
        [&](int64_t tap, int64_t c) { return rows + ((c - begin) * taps + tap) * kChannelBlock; });
    for (int64_t c = begin; c < end; ++c)
      for (int64_t plane = 0; plane < planes; ++plane)
        for (int v = 0; v < kChannelBlock; v += kWidth) {
          const float* g = rows + ((c - begin) * taps + plane * 9) * kChannelBlock + v;
          Float across[3][4], all[4][4];
          for (int i = 0; i < 3; ++i)
            transform_three(load<Float>(g + i * 3 * kChannelBlock),
                            load<Float>(g + (i * 3 + 1) * kChannelBlock),
                            load<Float>(g + (i * 3 + 2) * kChannelBlock), across[i]);
          for (int j = 0; j < 4; ++j) {
            Float column[4];
            transform_three(across[0][j], across[1][j], across[2][j], column);
            for (int i = 0; i < 4; ++i) all[i][j] = column[i];
          }
          float* out = panel + (plane * p.c_in + c) * kChannelBlock + v;
          for (int i = 0; i < kProducts; ++i)
            store(out + i * plan.gemm_k * kChannelBlock, all[i / 4][i % 4]);
        }
  }
}

// Pixels of a band: those of a slab, or of the tensor where channels are innermost; zeros outside.
struct Pixels {
  const float* first;    // that of plane 0, row 0, column 0 of the first window
  const int64_t* apart;  // elements from one plane, row, column to the next
  Range inside[3];

  bool holds(int64_t plane, int64_t row, int64_t column) const {
    return plane >= inside[0].begin && plane < inside[0].end && row >= inside[1].begin &&
           row < inside[1].end && column >= inside[2].begin && column < inside[2].end;
  }
  const float* at(int64_t plane, int64_t row, int64_t column) const {
    return first + plane * apart[0] + row * apart[1] + column * apart[2];
  }
};

// The 4x4 pixels from row, column on: sums and differences of their channels to
// out[i * pitch + channel], i < 16.
inline void transform_window(const Pixels& pixels, int64_t plane, int64_t row, int64_t column,
                             int64_t channels, int64_t pitch, float* out) {
  alignas(64) static const float zeros[kWidth] = {};
  const float* x[16];
  int64_t mask[16];
  for (int i = 0; i < 16; ++i) {
    const bool inside = pixels.holds(plane, row + i / 4, column + i % 4);
    x[i] = inside ? pixels.at(plane, row + i / 4, column + i % 4) : zeros;
    mask[i] = inside ? -1 : 0;
  }
  for (int64_t c = 0; c < channels; c += kWidth) {
    Float t[4][4];
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
      const Float a = load<Float>(x[j] + (c & mask[j]));
      const Float b = load<Float>(x[4 + j] + (c & mask[4 + j]));
      const Float d = load<Float>(x[8 + j] + (c & mask[8 + j]));
      const Float e = load<Float>(x[12 + j] + (c & mask[12 + j]));
      t[0][j] = a - d;
      t[1][j] = b + d;
      t[2][j] = d - b;
      t[3][j] = b - e;
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      float* to = out + i * 4 * pitch + c;
      store(to, t[i][0] - t[i][2]);
      store(to + pitch, t[i][1] + t[i][2]);
      store(to + 2 * pitch, t[i][2] - t[i][1]);
      store(to + 3 * pitch, t[i][1] - t[i][3]);
    }
  }
}

// 2x2 sums of products from products[i * pitch], i < 16, one vector of channels.
inline void transform_products(const float* products, int64_t pitch, Float out[2][2]) {
  Float s[2][4];
#pragma GCC unroll 4
  for (int j = 0; j < 4; ++j) {
    const Float a = load<Float>(products + j * pitch), b = load<Float>(products + (4 + j) * pitch);
    const Float c = load<Float>(products + (8 + j) * pitch);
    s[0][j] = a + b + c;
    s[1][j] = b - c - load<Float>(products + (12 + j) * pitch);
  }
  for (int i = 0; i < 2; ++i) {
    out[i][0] = s[i][0] + s[i][1] + s[i][2];
    out[i][1] = s[i][1] - s[i][2] - s[i][3];
  }
}

// products [tiles, kChannelBlock] = windows [tiles, gemm_k] x panel [gemm_k, kChannelBlock].
inline void multiply_matrices(const ConvPlan& plan, const float* windows, int64_t tiles,
                              const float* panel, bool wide, Ahead& ahead, float* products) {
  BandJob::for_tiles(0, tiles, [&](int64_t from, int64_t to) {
    const TileInput in{.slab = windows + from * plan.gemm_k,
                       .offset = plan.offset,
                       .panel = panel,
                       .taps = {{0, 1}, {0, 1}, {0, 1}},
                       .transform = nullptr,
                       .ahead = ahead.spread(to - from, plan.gemm_k, panel)};
    float* tile = products + from * kChannelBlock;
    if (kWidth < kLanes || wide)
      multiply_rows<kChannelBlock / kWidth>(to - from, plan, in, tile);
    else
      multiply_rows<kChannelBlock / kWidth - 1>(to - from, plan, in, tile);
  });
}

// Rows of tiles whose outputs stay in L1.
inline int64_t tile_rows_at_once(const ConvPlan& plan) {
  return plan.tile_columns < 32 ? 32 / plan.tile_columns : 1;
}

// Output rows [2 first, 2 last) of a band's tiles, of one channel block, as rows of a tile
// [positions, kChannelBlock]; false if a sum is not finite.
struct WinogradRows {
  const float* products;                // [16, tiles, kChannelBlock], of the sample's first tile
  int64_t pitch;                        // of the first dimension
  int64_t tile_columns, width, height;  // of the band
  const ClampedAffine* transform;       // or null
  int channels;

  bool write(int64_t first, int64_t last, float* tile) const {
    Float poison{};
    for (int c = 0; c < channels; c += kWidth) {
      const Float a = transform ? load<Float>(transform->scale + c) : Float{};
      const Float b = transform ? load<Float>(transform->shift + c) : Float{};
      const Float floor = splat(transform ? transform->floor : 0.0f);
      for (int64_t row = first; row < last; ++row)
        for (int64_t column = 0; column < tile_columns; ++column) {
          Float y[2][2];
          transform_products(products + (row * tile_columns + column) * kChannelBlock + c, pitch,
                             y);
          poison += ((y[0][0] + y[0][1]) + (y[1][0] + y[1][1])) * 0.0f;
          const int rows = height - 2 * row < 2 ? 1 : 2;
          const int columns = width - 2 * column < 2 ? 1 : 2;
          for (int i = 0; i < rows; ++i)
            for (int j = 0; j < columns; ++j) {
              const Float value = transform ? max(floor, multiply_add(y[i][j], a, b)) : y[i][j];
              store(tile + ((2 * (row - first) + i) * width + 2 * column + j) * kChannelBlock + c,
                    value);
            }
        }
    }
    return lanes_equal(poison, Float{}) == (1u << kWidth) - 1;
  }
};

// The same rows one product after the other, in the order of the other kernels: sums and
// differences of neighbours that are not finite, or overflow, say nothing about their sums of
// products.
inline void multiply_windows(const ConvReduceParams& p, const Pixels& pixels, int64_t first,
                             int64_t positions, const float* panel, const ClampedAffine* transform,
                             float* tile) {
  for (int64_t at = 0; at < positions; ++at, tile += kChannelBlock) {
    const int64_t row = first + at / p.out_size[2], column = at % p.out_size[2];
    for (int v = 0; v < kChannelBlock; v += kWidth) {
      Float sum{};
      for (int64_t tap = 0; tap < p.kernel[0] * 9; ++tap) {
        const int64_t in_row = row + tap / 3 % 3, in_column = column + tap % 3;
        if (!pixels.holds(tap / 9, in_row, in_column)) continue;
        const float* x = pixels.at(tap / 9, in_row, in_column);
        const float* w = panel + tap * p.c_in * kChannelBlock + v;
        for (int64_t c = 0; c < p.c_in; ++c)
          sum = multiply_add(splat(x[c]), load<Float>(w + c * kChannelBlock), sum);
      }
      if (transform != nullptr)
        sum = max(splat(transform->floor), multiply_add(sum, load<Float>(transform->scale + v),
                                                        load<Float>(transform->shift + v)));
      store(tile + v, sum);
    }
  }
}

}  // namespace
}  // namespace fastconv
