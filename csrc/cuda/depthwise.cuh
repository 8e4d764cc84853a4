// Depthwise convolutions with rows of 3, 5 or 7 taps: products, reductions, and what is written.
//
// A thread computes tiles of a few output columns of one row: each input column is read once for
// all the taps that it meets. Channels last: four channels of a thread, eight threads side by side;
// else one channel to a block. Sums of a tile and of at most kTiles tiles are float32, then
// float64.
//
// Budget, sm_80 and later: 168 registers (3 blocks of 128 threads; rows of 7 taps at stride 2: 255
// registers, 2 blocks), no spills; shared memory:
// 5,120 bytes and the weights of up to 32 channels, and 41,024 more with counts.
#pragma once
#include "lane_state.cuh"

namespace fastconv {

constexpr int kMostThreads = 128;
constexpr int kTiles = 8;           // of a thread in a segment
constexpr int kVectorChannels = 4;  // of a thread, channels last
constexpr int kLanesC = 8;          // threads side by side, channels last
constexpr int kCountedChannels = 8;

struct DepthwiseParams {
  ConvReduceParams conv;  // groups channels, one input and one output each; depth 1
  const void* bias;       // [C] of conv.dtype or null; conv.scale and conv.shift may be null
  bool channels_last;
  bool aligned_in, aligned_out;  // four channels lie at a multiple of their bytes
  int lanes_c;                   // threads side by side along the channels
  int channel_blocks;
  int segments;  // of a sample's tiles
};

// Output columns of a tile.
__host__ __device__ constexpr int tile_columns(int channels) { return channels == 1 ? 8 : 4; }

// Counts of up to four channels at one position; seldom wanted, so not inlined.
static __device__ __noinline__ void count_values(BlockBins<true> bins, int channel, int channels,
                                                 float4 values) {
  const float v[4] = {values.x, values.y, values.z, values.w};
#pragma unroll
  for (int j = 0; j < 4; ++j)
    if (j < channels && is_finite(v[j])) bins.add_times(channel + j, bin_of(v[j]), 1);
}

template <typename E, int kKernel, int kStride, int kChannels>
struct DepthwiseThread {
  static constexpr int kColumns = tile_columns(kChannels);
  using Raw = typename E::Raw;
  const DepthwiseParams& q;
  const float* weights;  // [taps][pitch], of this thread's first channel
  int pitch, channels;   // that exist
  int64_t sample, first;
  int tiles_w;
  BlockBins<true> bins;
  int bin_channel;

  float scale[kChannels], shift[kChannels];
  float sum[kChannels], sumsq[kChannels], low[kChannels], high[kChannels];
  int argmin[kChannels], argmax[kChannels], positive[kChannels];

  __device__ void clear() {
#pragma unroll
    for (int j = 0; j < kChannels; ++j) {
      sum[j] = sumsq[j] = 0.0f;
      low[j] = kInfinite, high[j] = -kInfinite;
      argmin[j] = argmax[j] = kNone, positive[j] = 0;
    }
  }

  // y = scale * products + shift, with the bias in the shift.
  __device__ void load_affine() {
    const ConvReduceParams& p = q.conv;
#pragma unroll
    for (int j = 0; j < kChannels; ++j) {
      const int64_t c = first + (j < channels ? j : 0);
      const bool given = q.bias != nullptr;
      const float bias = given ? E::widen(__ldg(static_cast<const Raw*>(q.bias) + c)) : 0.0f;
      scale[j] = p.scale != nullptr ? __ldg(p.scale + c) : 1.0f;
      shift[j] = fmaf(scale[j], bias, p.shift != nullptr ? __ldg(p.shift + c) : 0.0f);
    }
  }

  __device__ void load(int row, int column, float (&v)[kChannels]) const {
    const ConvReduceParams& p = q.conv;
    const Raw* x = static_cast<const Raw*>(p.input) + sample * p.in_stride[0] +
                   first * p.in_stride[1] + row * p.in_stride[3] + column * p.in_stride[4];
    if constexpr (kChannels == 1) {
      v[0] = E::widen(__ldg(x));
    } else if (q.aligned_in && channels == kChannels) {
      if constexpr (E::kBytes == 4) {
        const float4 f = __ldg(reinterpret_cast<const float4*>(x));
        v[0] = f.x, v[1] = f.y, v[2] = f.z, v[3] = f.w;
      } else {
        const uint2 w = __ldg(reinterpret_cast<const uint2*>(x));
        v[0] = E::low(w.x), v[1] = E::high(w.x), v[2] = E::low(w.y), v[3] = E::high(w.y);
      }
    } else {
#pragma unroll
      for (int j = 0; j < kChannels; ++j)
        v[j] = j < channels ? E::widen(__ldg(x + j * p.in_stride[1])) : 0.0f;
    }
  }

  // acc[i][j]: products of output column `column + i` of a row, in the order of the taps.
  __device__ void multiply(int row, int column, float (&acc)[kColumns][kChannels]) const {
    const ConvReduceParams& p = q.conv;
    constexpr int kInputs = (kColumns - 1) * kStride + kKernel;
#pragma unroll
    for (int i = 0; i < kColumns; ++i)
#pragma unroll
      for (int j = 0; j < kChannels; ++j) acc[i][j] = 0.0f;
    const int top = row * static_cast<int>(p.stride[1]) - static_cast<int>(p.pad[1]);
    const int left = column * kStride - static_cast<int>(p.pad[2]);
    const int height = static_cast<int>(p.in_size[1]), width = static_cast<int>(p.in_size[2]);
    for (int r = 0; r < static_cast<int>(p.kernel[1]); ++r) {
      if (top + r < 0 || top + r >= height) continue;
      const float* w = weights + r * kKernel * pitch;
#pragma unroll
      for (int x = 0; x < kInputs; ++x) {
        float v[kChannels] = {};
        if (left + x >= 0 && left + x < width) load(top + r, left + x, v);
#pragma unroll
        for (int s = x % kStride; s < kKernel; s += kStride) {
          const int i = (x - s) / kStride;
          if (x < s || i >= kColumns) continue;
#pragma unroll
          for (int j = 0; j < kChannels; ++j) acc[i][j] = fmaf(v[j], w[s * pitch + j], acc[i][j]);
        }
      }
    }
  }

  // The values of a tile, [kColumns][kChannels].
  __device__ void compute(int tile, float (&v)[kColumns][kChannels]) const {
    multiply(tile / tiles_w, tile % tiles_w * kColumns, v);
#pragma unroll
    for (int i = 0; i < kColumns; ++i) {
#pragma unroll
      for (int j = 0; j < kChannels; ++j) v[i][j] = fmaf(v[i][j], scale[j], shift[j]);
      activate_all(q.conv.activation, v[i]);
    }
  }

  __device__ int position(int tile, int i) const {
    return tile / tiles_w * static_cast<int>(q.conv.out_size[2]) + tile % tiles_w * kColumns + i;
  }

  // How many columns of a tile exist.
  __device__ int columns(int tile) const {
    return min(static_cast<int>(q.conv.out_size[2]) - tile % tiles_w * kColumns, kColumns);
  }

  __device__ void write(const float (&given)[kChannels], int position) const {
    const ConvReduceParams& p = q.conv;
    float v[kChannels];
#pragma unroll
    for (int j = 0; j < kChannels; ++j) {
      v[j] = given[j];
      const int64_t c = first + (j < channels ? j : 0);
      if (p.post_scale != nullptr) v[j] = v[j] * __ldg(p.post_scale + c);
      if (p.post_shift != nullptr) v[j] = v[j] + __ldg(p.post_shift + c);
    }
    activate_all(p.post_activation, v);
    Raw* to = static_cast<Raw*>(p.written) + sample * p.written_stride[0] +
              first * p.written_stride[1] + position * p.written_stride[2];
    if constexpr (kChannels == 4 && E::kBytes == 2) {
      if (q.aligned_out && channels == kChannels) {
        const auto two = [&](int j) {
          return E::narrow(v[j]) | static_cast<uint32_t>(E::narrow(v[j + 1])) << 16;
        };
        *reinterpret_cast<uint2*>(to) = make_uint2(two(0), two(2));
        return;
      }
    }
#pragma unroll
    for (int j = 0; j < kChannels; ++j)
      if (j < channels) to[j * p.written_stride[1]] = E::narrow(v[j]);
  }

  __device__ void take(int tile) {
    const ConvReduceParams& p = q.conv;
    float v[kColumns][kChannels];
    compute(tile, v);
    const int count = columns(tile);
#pragma unroll
    for (int i = 0; i < kColumns; ++i) {
      if (i >= count) continue;
      const int at = position(tile, i);
      if (p.written != nullptr) write(v[i], at);
#pragma unroll
      for (int j = 0; j < kChannels; ++j) {
        const float x = v[i][j];
        sum[j] += x;
        sumsq[j] = fmaf(x, x, sumsq[j]);
        positive[j] += x > 0.0f;
        if (x > high[j]) high[j] = x, argmax[j] = at;
        if (x < low[j]) low[j] = x, argmin[j] = at;
      }
      const float4 four = four_of(v[i], 0);
      if (p.histogram != nullptr) count_values(bins, bin_channel, channels, four);
      if (p.candidates.threshold != nullptr)
        list_values(p.candidates, first, 1, sample * p.positions() + at, 0, channels, four, four);
    }
  }

  __device__ bool fine() const {
    float all = 0.0f;
#pragma unroll
    for (int j = 0; j < kChannels; ++j) all += sumsq[j];
    return all < kMostSquares;
  }

  __device__ LaneState state(int j) const {
    return {sum[j], sumsq[j], low[j], high[j], argmin[j], argmax[j], positive[j], 0};
  }

  // One channel again, a value at a time.
  __device__ LaneState carefully(int j, int begin, int end, int step) const {
    LaneState state = nothing();
    for (int tile = begin; tile < end; tile += step) {
      float v[kColumns][kChannels];
      compute(tile, v);
      const int count = columns(tile);
#pragma unroll
      for (int i = 0; i < kColumns; ++i)
#pragma unroll
        for (int k = 0; k < kChannels; ++k)
          if (i < count && k == j) add_carefully(state, v[i][k], position(tile, i));
    }
    return state;
  }
};

template <typename E, int kKernel, int kStride, int kChannels>
__global__ void __launch_bounds__(kMostThreads, kKernel == 7 && kStride == 2 ? 2 : 3)
    depthwise_kernel(const __grid_constant__ DepthwiseParams q) {
  constexpr int kLanes = kChannels == 1 ? 1 : kLanesC;
  const ConvReduceParams& p = q.conv;
  __shared__ LaneState shared[kMostThreads / 32 * kLanes * kChannels];
  FASTCONV_DYNAMIC_SHARED(uint32_t, memory);  // weights [taps][pitch], then counts
  const int lanes_c = q.lanes_c, lanes_t = static_cast<int>(blockDim.x) / lanes_c;
  const int lane_c = static_cast<int>(threadIdx.x) % lanes_c;
  const int lane_t = static_cast<int>(threadIdx.x) / lanes_c;
  const int pitch = lanes_c * kChannels, taps = static_cast<int>(p.kernel[1]) * kKernel;
  const int64_t block_first = static_cast<int64_t>(blockIdx.x) % q.channel_blocks * pitch;
  const int64_t left = p.groups - block_first;
  const int block_channels = static_cast<int>(left < pitch ? left : pitch);
  float* weights = reinterpret_cast<float*>(memory);
  for (int i = threadIdx.x; i < taps * pitch; i += blockDim.x) {
    const int c = i % pitch, tap = i / pitch;
    const auto* w = static_cast<const typename E::Raw*>(p.weight) + (block_first + c) * taps + tap;
    weights[i] = c < block_channels ? E::widen(__ldg(w)) : 0.0f;
  }
  const BlockBins<true> bins{memory + taps * pitch};
  if (p.histogram != nullptr) bins.clear(block_channels);
  __syncthreads();

  const int64_t item = blockIdx.x / q.channel_blocks;
  const int64_t mine = left - lane_c * kChannels;
  const int width = static_cast<int>(p.out_size[2]);
  DepthwiseThread<E, kKernel, kStride, kChannels> work{
      q,
      weights + lane_c * kChannels,
      pitch,
      static_cast<int>(mine < 0           ? 0
                       : mine < kChannels ? mine
                                          : kChannels),
      item / q.segments,
      block_first + lane_c * kChannels,
      (width + tile_columns(kChannels) - 1) / tile_columns(kChannels),
      bins,
      lane_c * kChannels};
  work.clear();
  const int segment = static_cast<int>(item % q.segments);
  const int tiles = work.tiles_w * static_cast<int>(p.out_size[1]);
  const int begin = segment * lanes_t * kTiles + lane_t;
  const int end = work.channels > 0 ? min((segment + 1) * lanes_t * kTiles, tiles) : 0;
  if (work.channels > 0) work.load_affine();
  for (int tile = begin; tile < end; tile += lanes_t) work.take(tile);
  const bool fine = work.fine();
  const LaneState all = merged_block<kChannels>(lanes_c, shared, [&](int j) {
    return fine ? work.state(j) : work.carefully(j, begin, end, lanes_t);
  });
  if (static_cast<int>(threadIdx.x) < block_channels)
    write_state(p.out, (segment * p.n + work.sample) * p.groups + block_first + threadIdx.x, all);
  if (p.histogram != nullptr) bins.flush(block_channels, p.histogram + block_first * kBins);
}

}  // namespace fastconv
