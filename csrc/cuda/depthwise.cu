// How a depthwise convolution is cut into blocks; as in channel_reduce.cu, not by the batch.
#include "variants.cuh"

namespace fastconv {
namespace {

struct Cut {
  int lanes_c, channels, threads;  // threads of a block; channels of a thread
  int64_t channel_blocks, segments;
};

Cut cut(const ConvReduceParams& p, bool channels_last) {
  Cut c{};
  c.channels = channels_last ? kVectorChannels : 1;
  c.lanes_c = 1;
  const int most = !channels_last           ? 1
                   : p.histogram != nullptr ? kCountedChannels / kVectorChannels
                                            : kLanesC;
  while (c.lanes_c < most && c.lanes_c * c.channels < p.groups) c.lanes_c *= 2;
  const int64_t tiles = divided_up(p.out_size[2], tile_columns(c.channels)) * p.out_size[1];
  c.threads = 32;  // enough for the tiles of a sample, a few each
  while (c.threads < kMostThreads && c.threads / c.lanes_c * 2 < tiles) c.threads *= 2;
  c.channel_blocks = divided_up(p.groups, c.lanes_c * c.channels);
  c.segments = divided_up(tiles, int64_t{c.threads} / c.lanes_c * kTiles);
  return c;
}

// Whether four channels from any pixel on lie at a multiple of their bytes.
bool aligned(const void* x, int64_t bytes, int64_t a, int64_t b, int64_t c) {
  const int64_t four = kVectorChannels * bytes;
  return (reinterpret_cast<int64_t>(x) | a * bytes | b * bytes | c * bytes) % four == 0;
}

}  // namespace

int64_t depthwise_segments(const ConvReduceParams& p, bool channels_last) {
  return cut(p, channels_last).segments;
}

LaunchError depthwise_reduce(const ConvReduceParams& params, const void* bias, bool channels_last,
                             const ReductionOut& parts, void* stream) {
  const Cut c = cut(params, channels_last);
  DepthwiseParams q{params, bias, channels_last};
  if (c.segments > 1) q.conv.out = parts;
  const int64_t bytes = element_bytes(params.dtype);
  const int64_t *in = params.in_stride, *out = params.written_stride;
  q.aligned_in = in[1] == 1 && aligned(params.input, bytes, in[0], in[3], in[4]);
  q.aligned_out = out[1] == 1 && aligned(params.written, bytes, out[0], out[2], 0);
  q.lanes_c = c.lanes_c;
  q.channel_blocks = static_cast<int>(c.channel_blocks);
  q.segments = static_cast<int>(c.segments);
  const int64_t channels = c.lanes_c * c.channels;
  int64_t shared = params.kernel[1] * params.kernel[2] * channels * 4;
  if (params.histogram != nullptr) shared += channels * BlockBins<true>::kWords * 4;
  const int64_t blocks = params.n * c.segments * c.channel_blocks;
  const auto start = [&](auto variant) { return variant(q, blocks, c.threads, shared, stream); };
  LaunchError error = nullptr;
  switch (params.dtype) {
    case Dtype::kFloat32: error = start(Variants<Float32>::depthwise); break;
    case Dtype::kFloat16: error = start(Variants<Float16>::depthwise); break;
    default: error = start(Variants<BFloat16>::depthwise);
  }
  return error != nullptr
             ? error
             : merge_segments(parts, params.out, params.n * params.groups, c.segments, stream);
}

}  // namespace fastconv
