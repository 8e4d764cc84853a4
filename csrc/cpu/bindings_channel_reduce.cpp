#include <atomic>

#include "bindings.h"
#include "scratch.h"

namespace fastconv {
namespace {

constexpr int64_t kGrainValues = 16384;  // fewer are not worth another thread

// x [N, C, positions]; out as in ReductionOut, every tensor [N, C]. With `write` x, float32,
// becomes post_activation(post_scale * value + post_shift).
void channel_reduce(Tensor x, int64_t dtype, bool channels_last, std::optional<Tensor> scale,
                    std::optional<Tensor> shift, int64_t activation,
                    std::optional<Tensor> histogram, Tensor sum, Tensor sumsq, Tensor min,
                    Tensor max, Tensor argmax, Tensor argmin, Tensor positive, Tensor nonfinite,
                    std::optional<Tensor> threshold, std::optional<Tensor> counts,
                    std::optional<Tensor> values, std::optional<Tensor> places, bool largest,
                    bool write, std::optional<Tensor> post_scale, std::optional<Tensor> post_shift,
                    int64_t post_activation) {
  ChannelReduceParams p{};
  p.x = x.data_ptr();
  p.dtype = static_cast<Dtype>(dtype);
  p.n = x.size(0), p.c = x.size(1), p.positions = x.size(2);
  p.stride_n = x.stride(0), p.stride_c = x.stride(1), p.stride_p = x.stride(2);
  p.channels_last = channels_last;
  p.scale = optional_data<float>(scale);
  p.shift = optional_data<float>(shift);
  p.activation = static_cast<Activation>(activation);
  p.histogram = histogram ? data<int64_t>(*histogram) : nullptr;
  p.out = {data<double>(sum),       data<double>(sumsq),     data<float>(min),
           data<float>(max),        data<int64_t>(argmax),   data<int64_t>(argmin),
           data<int64_t>(positive), data<int64_t>(nonfinite)};
  if (threshold) p.candidates = candidate_lists(*threshold, *counts, *values, *places, largest);
  p.written = write ? data<float>(x) : nullptr;
  p.post_scale = optional_data<float>(post_scale);
  p.post_shift = optional_data<float>(post_shift);
  p.post_activation = static_cast<Activation>(post_activation);

  // channels that one step works on
  const int64_t unit = channels_last || p.positions <= 64 ? 16 : 1;
  const int64_t units = (p.c + unit - 1) / unit;
  const int64_t count_bytes = kernels().channel_count_bytes(p);
  const auto run = [&](const Range& samples, const Range& range) {
    thread_local Scratch counts;
    const int64_t end = range.end * unit;
    kernels().channel_reduce(p, samples, {range.begin * unit, end < p.c ? end : p.c},
                             counts.get(count_bytes));
  };
  const int64_t grain = kGrainValues / (unit * p.positions) + 1;
  if (p.histogram) {  // a thread owns its channels
    torch::stable::parallel_for(0, units, grain / (p.n + 1) + 1,
                                [&](int64_t begin, int64_t end) { run({0, p.n}, {begin, end}); });
    return;
  }
  torch::stable::parallel_for(0, p.n * units, grain, [&](int64_t begin, int64_t end) {
    while (begin < end) {
      const int64_t n = begin / units, first = begin % units, left = end - begin;
      const int64_t whole = first == 0 && left > units ? left / units : 1;  // samples
      const int64_t count = left < units - first ? left : units - first;
      run({n, n + whole}, {first, first + count});
      begin += whole * count;
    }
  });
}

// Reads x (float32, contiguous) once, with all threads.
int64_t stream_read(Tensor x) {
  const float* values = data<const float>(x);
  std::atomic<int64_t> all{0};
  torch::stable::parallel_for(0, x.numel(), 1 << 14, [&](int64_t begin, int64_t end) {
    all ^= kernels().stream_read(values + begin, end - begin);
  });
  return all;
}

}  // namespace
}  // namespace fastconv

STABLE_TORCH_LIBRARY_FRAGMENT(fastconv_cpu, m) {
  m.def(
      "channel_reduce(Tensor(m!) x, int dtype, bool channels_last, Tensor? scale, Tensor? shift,"
      " int activation, Tensor(a!)? histogram, Tensor(b!) sum, Tensor(c!) sumsq, Tensor(d!) min,"
      " Tensor(e!) max, Tensor(f!) argmax, Tensor(g!) argmin, Tensor(h!) positive,"
      " Tensor(i!) nonfinite, Tensor? threshold, Tensor(j!)? counts, Tensor(k!)? values,"
      " Tensor(l!)? places, bool largest, bool write, Tensor? post_scale,"
      " Tensor? post_shift, int post_activation) -> ()");
  m.def("stream_read(Tensor x) -> int");
}

STABLE_TORCH_LIBRARY_IMPL(fastconv_cpu, CPU, m) {
  m.impl("channel_reduce", TORCH_BOX(&fastconv::channel_reduce));
  m.impl("stream_read", TORCH_BOX(&fastconv::stream_read));
}
