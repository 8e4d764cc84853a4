// The kernels of one element type, chosen by what a call asks for. reduce_<type>.cu and
// depthwise_<type>.cu instantiate one each, so that they compile side by side.
#pragma once
#include "depthwise.cuh"
#include "lanes_reduce.cuh"
#include "launch.cuh"

namespace fastconv {

template <typename E>
struct Variants {
  static LaunchError planar(const PlanarParams& q, int64_t blocks, void* stream);
  static LaunchError lanes(const LanesParams& q, int64_t blocks, void* stream);
  static LaunchError depthwise(const DepthwiseParams& q, int64_t blocks, int threads,
                               int64_t shared_bytes, void* stream);
};

inline bool is_plain(const ChannelReduceParams& p) {
  return p.scale == nullptr && p.shift == nullptr && p.activation == Activation::kNone;
}

template <typename E, bool kPlain, bool kCounts>
LaunchError planar_of(const PlanarParams& q, int64_t blocks, void* stream) {
  const auto kernel = q.reduce.positions <= kShortRow
                          ? planar_reduce_kernel<E, kPlain, 8, kCounts>
                          : planar_reduce_kernel<E, kPlain, 32, kCounts>;
  return launch(kernel, blocks, kThreads, 0, stream, q);
}

#define FASTCONV_REDUCE_VARIANTS(E)                                                               \
  template <>                                                                                     \
  LaunchError Variants<E>::planar(const PlanarParams& q, int64_t blocks, void* stream) {          \
    const bool plain = is_plain(q.reduce);                                                        \
    if (q.reduce.histogram != nullptr)                                                            \
      return (plain ? planar_of<E, true, true> : planar_of<E, false, true>)(q, blocks, stream);   \
    return (plain ? planar_of<E, true, false> : planar_of<E, false, false>)(q, blocks, stream);   \
  }                                                                                               \
  template <>                                                                                     \
  LaunchError Variants<E>::lanes(const LanesParams& q, int64_t blocks, void* stream) {            \
    const bool plain = is_plain(q.reduce);                                                        \
    if (q.reduce.histogram == nullptr)                                                            \
      return launch(                                                                              \
          plain ? lanes_reduce_kernel<E, true, false> : lanes_reduce_kernel<E, false, false>,     \
          blocks, kThreads, 0, stream, q);                                                        \
    const int64_t shared = int64_t{kCountedLanes} * E::kVector * BlockBins<true>::kWords * 4;     \
    return launch(                                                                                \
        plain ? lanes_reduce_kernel<E, true, true> : lanes_reduce_kernel<E, false, true>, blocks, \
        kThreads, shared, stream, q);                                                             \
  }

template <typename E, int kKernel>
LaunchError depthwise_of(const DepthwiseParams& q, int64_t blocks, int threads, int64_t shared,
                         void* stream) {
  const bool one = q.conv.stride[2] == 1;
  constexpr int kMany = kVectorChannels;
  const auto kernel =
      q.channels_last
          ? (one ? depthwise_kernel<E, kKernel, 1, kMany> : depthwise_kernel<E, kKernel, 2, kMany>)
          : (one ? depthwise_kernel<E, kKernel, 1, 1> : depthwise_kernel<E, kKernel, 2, 1>);
  return launch(kernel, blocks, threads, shared, stream, q);
}

#define FASTCONV_DEPTHWISE_VARIANTS(E)                                                      \
  template <>                                                                               \
  LaunchError Variants<E>::depthwise(const DepthwiseParams& q, int64_t blocks, int threads, \
                                     int64_t shared, void* stream) {                        \
    switch (q.conv.kernel[2]) {                                                             \
      case 3: return depthwise_of<E, 3>(q, blocks, threads, shared, stream);                \
      case 5: return depthwise_of<E, 5>(q, blocks, threads, shared, stream);                \
      case 7: return depthwise_of<E, 7>(q, blocks, threads, shared, stream);                \
    }                                                                                       \
    return "there is no kernel for this number of taps";                                    \
  }

}  // namespace fastconv
