// How an activation is cut into blocks. Nothing here looks at the batch but for their number, so
// the bits of a (sample, channel) do not depend on it.
#include "variants.cuh"

namespace fastconv {
namespace {

constexpr int64_t kCountingBlocks = 2048;  // about; each clears and adds up counts of its own

LaunchError planar(const ChannelReduceParams& p, int64_t segments, void* stream) {
  const int64_t bytes = element_bytes(p.dtype);
  PlanarParams q{p, 0, static_cast<int>(segments), 1};
  q.width = common_width(reinterpret_cast<int64_t>(p.x), p.stride_n * bytes, p.stride_c * bytes);
  const int64_t groups = kThreads / (p.positions <= kShortRow ? 8 : 32);
  int64_t blocks;
  if (p.histogram == nullptr) {
    blocks = divided_up(p.n * p.c * segments, groups);
  } else {
    const int64_t all = divided_up(p.n * segments, groups), some = divided_up(kCountingBlocks, p.c);
    q.blocks = static_cast<int>(all < some ? all : some);
    blocks = q.blocks * p.c;
  }
  switch (p.dtype) {
    case Dtype::kFloat32: return Variants<Float32>::planar(q, blocks, stream);
    case Dtype::kFloat16: return Variants<Float16>::planar(q, blocks, stream);
    default: return Variants<BFloat16>::planar(q, blocks, stream);
  }
}

int lanes_of(const ChannelReduceParams& p) {
  if (p.histogram != nullptr) return kCountedLanes;
  const int64_t vectors = divided_up(p.c * element_bytes(p.dtype), 16);
  int lanes = 1;
  while (lanes < kMostLanes && lanes < vectors) lanes *= 2;
  return lanes;
}

LaunchError lanes(const ChannelReduceParams& p, int64_t segments, void* stream) {
  const int64_t bytes = element_bytes(p.dtype);
  LanesParams q{p, 0, lanes_of(p), 0, static_cast<int>(segments)};
  q.width = common_width(reinterpret_cast<int64_t>(p.x), p.stride_n * bytes, p.stride_p * bytes);
  q.channel_blocks = static_cast<int>(divided_up(p.c, q.lanes_c * 16 / bytes));
  int64_t items = p.n * segments;
  const int64_t some = divided_up(kCountingBlocks, q.channel_blocks);
  if (p.histogram != nullptr && items > some) items = some;
  const int64_t blocks = items * q.channel_blocks;
  switch (p.dtype) {
    case Dtype::kFloat32: return Variants<Float32>::lanes(q, blocks, stream);
    case Dtype::kFloat16: return Variants<Float16>::lanes(q, blocks, stream);
    default: return Variants<BFloat16>::lanes(q, blocks, stream);
  }
}

}  // namespace

int64_t channel_reduce_segments(const ChannelReduceParams& p) {
  return divided_up(p.positions, p.channels_last ? lanes_segment(lanes_of(p)) : kPlanarSegment);
}

LaunchError channel_reduce(const ChannelReduceParams& params, const ReductionOut& parts,
                           void* stream) {
  const int64_t segments = channel_reduce_segments(params);
  ChannelReduceParams p = params;
  if (segments > 1) p.out = parts;
  const LaunchError error =
      p.channels_last ? lanes(p, segments, stream) : planar(p, segments, stream);
  return error != nullptr
             ? error
             : merge_segments(parts, params.out, params.n * params.c, segments, stream);
}

}  // namespace fastconv
