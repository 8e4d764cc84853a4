// The only file of this folder that knows torch: tensors into parameters, on the current stream of
// their device. No allocation, no wait: a CUDA graph can capture every call.
#include <Python.h>
#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/tensor.h>

#include "kernels.h"

// On a device, but in tests on the processor.
#if defined(FASTCONV_ON_HOST)
#define FASTCONV_KERNELS(m) STABLE_TORCH_LIBRARY_IMPL(fastconv_cuda, CPU, m)
#else
#define FASTCONV_KERNELS(m) STABLE_TORCH_LIBRARY_IMPL(fastconv_cuda, CUDA, m)
#endif

namespace fastconv {
namespace {

using torch::stable::Tensor;

template <typename T>
T* data(const Tensor& t) {
  return static_cast<T*>(t.data_ptr());
}

template <typename T>
T* optional_data(const std::optional<Tensor>& t) {
  return t ? static_cast<T*>(t->data_ptr()) : nullptr;
}

void check(const char* op, LaunchError error) {
  STD_TORCH_CHECK(error == nullptr, "fastconv_cuda::", op, ": ", error);
}

// The device of a tensor made current, and its current stream.
class OnDevice {
 public:
#if defined(FASTCONV_ON_HOST)
  explicit OnDevice(const Tensor&) {}
#else
  explicit OnDevice(const Tensor& t) : guard_(t.get_device_index()) {
    TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(t.get_device_index(), &stream_));
  }
#endif
  void* stream() const { return stream_; }

 private:
#if !defined(FASTCONV_ON_HOST)
  torch::stable::accelerator::DeviceGuard guard_;
#endif
  void* stream_ = nullptr;
};

ReductionOut fields(const std::vector<Tensor>& t) {
  return {data<double>(t[0]),  data<double>(t[1]),  data<float>(t[2]),   data<float>(t[3]),
          data<int64_t>(t[4]), data<int64_t>(t[5]), data<int64_t>(t[6]), data<int64_t>(t[7])};
}

// threshold, counts, values, places; or nothing.
CandidateLists candidate_lists(const std::vector<Tensor>& t, bool largest) {
  if (t.empty()) return {};
  return {data<const float>(t[0]), data<int32_t>(t[1]), data<float>(t[2]),
          data<int64_t>(t[3]),     t[2].size(1),        largest};
}

ChannelReduceParams reduce_params(const Tensor& x, int64_t dtype, bool channels_last,
                                  const std::optional<Tensor>& histogram) {
  ChannelReduceParams p{};
  p.x = x.data_ptr();
  p.dtype = static_cast<Dtype>(dtype);
  p.n = x.size(0), p.c = x.size(1), p.positions = x.size(2);
  p.stride_n = x.stride(0), p.stride_c = x.stride(1), p.stride_p = x.stride(2);
  p.channels_last = channels_last;
  p.histogram = optional_data<int64_t>(histogram);
  return p;
}

int64_t reduce_segments(Tensor x, int64_t dtype, bool channels_last,
                        std::optional<Tensor> histogram) {
  return channel_reduce_segments(reduce_params(x, dtype, channels_last, histogram));
}

// x [N, C, positions]; out: the fields of a Reduction, [N, C]; parts: [segments * N, C].
void reduce(Tensor x, int64_t dtype, bool channels_last, std::optional<Tensor> scale,
            std::optional<Tensor> shift, int64_t activation, std::optional<Tensor> histogram,
            std::vector<Tensor> lists, bool largest, std::vector<Tensor> parts,
            std::vector<Tensor> out) {
  const OnDevice place(x);
  ChannelReduceParams p = reduce_params(x, dtype, channels_last, histogram);
  p.scale = optional_data<const float>(scale);
  p.shift = optional_data<const float>(shift);
  p.activation = static_cast<Activation>(activation);
  p.candidates = candidate_lists(lists, largest);
  p.out = fields(out);
  check("channel_reduce", channel_reduce(p, fields(parts), place.stream()));
}

// input [N, C, height, width]; geometry: stride and padding before, of height and width.
ConvReduceParams conv_params(const Tensor& input, int64_t dtype, const Tensor& weight,
                             const std::vector<int64_t>& geometry,
                             const std::vector<int64_t>& out_size,
                             const std::optional<Tensor>& histogram) {
  ConvReduceParams p{};
  p.input = input.data_ptr();
  p.dtype = static_cast<Dtype>(dtype);
  p.n = input.size(0), p.groups = input.size(1), p.c_in = p.c_out = 1;
  p.in_size[0] = p.out_size[0] = p.kernel[0] = p.stride[0] = 1;
  p.in_stride[0] = input.stride(0), p.in_stride[1] = input.stride(1);
  for (int d = 0; d < 3; ++d) p.dilation[d] = 1;
  for (int d = 1; d < 3; ++d) {
    p.in_size[d] = input.size(1 + d), p.in_stride[2 + d] = input.stride(1 + d);
    p.kernel[d] = weight.size(1 + d);
    p.stride[d] = geometry[d - 1], p.pad[d] = geometry[d + 1], p.out_size[d] = out_size[d - 1];
  }
  p.weight = weight.data_ptr();
  p.histogram = optional_data<int64_t>(histogram);
  return p;
}

int64_t conv_segments(Tensor input, int64_t dtype, bool channels_last, Tensor weight,
                      std::vector<int64_t> geometry, std::vector<int64_t> out_size,
                      std::optional<Tensor> histogram) {
  return depthwise_segments(conv_params(input, dtype, weight, geometry, out_size, histogram),
                            channels_last);
}

// weight [C, 1, kh, kw], contiguous; affine: scale and shift, of the value reduced and of what is
// written; activations likewise; written: [N, C, positions] or empty.
void depthwise(Tensor input, int64_t dtype, bool channels_last, Tensor weight,
               std::vector<int64_t> geometry, std::vector<int64_t> out_size,
               std::optional<Tensor> bias, std::optional<Tensor> scale, std::optional<Tensor> shift,
               std::optional<Tensor> post_scale, std::optional<Tensor> post_shift,
               std::vector<int64_t> activations, std::optional<Tensor> histogram,
               std::optional<Tensor> written, std::vector<Tensor> lists, bool largest,
               std::vector<Tensor> parts, std::vector<Tensor> out) {
  const OnDevice place(input);
  ConvReduceParams p = conv_params(input, dtype, weight, geometry, out_size, histogram);
  p.scale = optional_data<const float>(scale);
  p.shift = optional_data<const float>(shift);
  p.activation = static_cast<Activation>(activations[0]);
  p.post_scale = optional_data<const float>(post_scale);
  p.post_shift = optional_data<const float>(post_shift);
  p.post_activation = static_cast<Activation>(activations[1]);
  p.out = fields(out);
  p.candidates = candidate_lists(lists, largest);
  if (written) {
    p.written = written->data_ptr();
    for (int d = 0; d < 3; ++d) p.written_stride[d] = written->stride(d);
  }
  const void* added = bias ? bias->data_ptr() : nullptr;
  check("depthwise_reduce",
        depthwise_reduce(p, added, channels_last, fields(parts), place.stream()));
}

void merge(Tensor values, Tensor samples, Tensor positions, Tensor new_values, Tensor new_samples,
           Tensor new_positions, bool largest, std::vector<Tensor> out) {
  const OnDevice place(values);
  const TopkMergeParams p{data<const float>(values),
                          data<const int64_t>(samples),
                          data<const int64_t>(positions),
                          data<const float>(new_values),
                          data<const int64_t>(new_samples),
                          data<const int64_t>(new_positions),
                          data<float>(out[0]),
                          data<int64_t>(out[1]),
                          data<int64_t>(out[2]),
                          data<int64_t>(out[3]),
                          values.size(1),
                          new_values.size(1),
                          largest};
  check("topk_merge", topk_merge(p, values.size(0), place.stream()));
}

// input [N, C, depth, height, width]; out likewise, or [slots, depth, height, width, 3].
void patches(Tensor input, Tensor index, Tensor start, std::optional<Tensor> slot,
             std::optional<Tensor> low, std::optional<Tensor> scale, int64_t bytes, Tensor out) {
  const OnDevice place(input);
  PatchParams p{};
  p.input = input.data_ptr();
  p.index = data<const int64_t>(index);
  p.start = data<const int64_t>(start);
  p.slot = optional_data<const int64_t>(slot);
  p.low = optional_data<const float>(low), p.scale = optional_data<const float>(scale);
  p.out = out.data_ptr();
  p.samples = input.size(0), p.channels = input.size(1), p.patches = index.size(0);
  p.stride_n = input.stride(0), p.stride_c = input.stride(1);
  for (int d = 0; d < 3; ++d) {
    p.extent[d] = input.size(2 + d), p.stride[d] = input.stride(2 + d);
    p.size[d] = out.size((p.low != nullptr ? 1 : 2) + d);
  }
  check("place_patches", place_patches(p, static_cast<int>(bytes), place.stream()));
}

}  // namespace
}  // namespace fastconv

STABLE_TORCH_LIBRARY(fastconv_cuda, m) {
  m.def("reduce_segments(Tensor x, int dtype, bool channels_last, Tensor? histogram) -> int");
  m.def(
      "channel_reduce(Tensor x, int dtype, bool channels_last, Tensor? scale, Tensor? shift,"
      " int activation, Tensor(a!)? histogram, Tensor(b!)[] lists, bool largest,"
      " Tensor(c!)[] parts, Tensor(d!)[] out) -> ()");
  m.def(
      "conv_segments(Tensor input, int dtype, bool channels_last, Tensor weight, int[] geometry,"
      " int[] out_size, Tensor? histogram) -> int");
  m.def(
      "depthwise_reduce(Tensor input, int dtype, bool channels_last, Tensor weight,"
      " int[] geometry, int[] out_size, Tensor? bias, Tensor? scale, Tensor? shift,"
      " Tensor? post_scale, Tensor? post_shift, int[] activations, Tensor(a!)? histogram,"
      " Tensor(b!)? written, Tensor(c!)[] lists, bool largest, Tensor(d!)[] parts,"
      " Tensor(e!)[] out) -> ()");
  m.def(
      "topk_merge(Tensor values, Tensor samples, Tensor positions, Tensor new_values,"
      " Tensor new_samples, Tensor new_positions, bool largest, Tensor(a!)[] out) -> ()");
  m.def(
      "place_patches(Tensor input, Tensor index, Tensor start, Tensor? slot, Tensor? low,"
      " Tensor? scale, int bytes, Tensor(a!) out) -> ()");
}

FASTCONV_KERNELS(m) {
  m.impl("reduce_segments", TORCH_BOX(&fastconv::reduce_segments));
  m.impl("channel_reduce", TORCH_BOX(&fastconv::reduce));
  m.impl("conv_segments", TORCH_BOX(&fastconv::conv_segments));
  m.impl("depthwise_reduce", TORCH_BOX(&fastconv::depthwise));
  m.impl("topk_merge", TORCH_BOX(&fastconv::merge));
  m.impl("place_patches", TORCH_BOX(&fastconv::patches));
}

// The module itself is empty: importing it runs the registrations above.
PyMODINIT_FUNC PyInit__C_cuda(void) {
  static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_C_cuda", nullptr, -1, nullptr};
  return PyModule_Create(&module);
}
