#include <cstring>
#include <memory>
#include <new>
#include <vector>

#include "bindings.h"
#include "conv_plan.h"

namespace fastconv {
namespace {

// Grows and stays: allocating megabytes anew in every call costs page faults. Zero at first.
class Scratch {
 public:
  void* get(int64_t bytes) {
    if (bytes > size_) {
      memory_.reset();
      memory_.reset(static_cast<char*>(::operator new(bytes, std::align_val_t{64})));
      std::memset(memory_.get(), 0, bytes);
      size_ = bytes;
    }
    return memory_.get();
  }

 private:
  struct Free {
    void operator()(char* p) const { ::operator delete(p, std::align_val_t{64}); }
  };
  std::unique_ptr<char, Free> memory_;
  int64_t size_ = 0;
};

void copy3(const std::vector<int64_t>& from, int64_t* to) {
  for (int d = 0; d < 3; ++d) to[d] = from[d];
}

// input [N, C, D, H, W]; dtype: 0 float32, 1 float16, 2 bfloat16; weight: see ConvReduceParams.
void conv_reduce(Tensor input, Tensor weight, bool weight_channels_last, int64_t dtype,
                 std::vector<int64_t> kernel, std::vector<int64_t> stride, std::vector<int64_t> pad,
                 std::vector<int64_t> dilation, std::vector<int64_t> out_size, int64_t groups,
                 Tensor scale, Tensor shift, int64_t activation, std::vector<Tensor> out,
                 std::optional<Tensor> histogram, std::optional<Tensor> written,
                 std::optional<Tensor> onward_scale, std::optional<Tensor> onward_shift,
                 int64_t onward_activation) {
  ConvReduceParams p{};
  p.input = input.data_ptr();
  p.dtype = static_cast<Dtype>(dtype);
  p.n = input.size(0);
  p.groups = groups;
  p.c_in = input.size(1) / groups;
  p.c_out = weight.size(0) / groups;
  for (int d = 0; d < 5; ++d) p.in_stride[d] = input.stride(d);
  for (int d = 0; d < 3; ++d) p.in_size[d] = input.size(2 + d);
  copy3(kernel, p.kernel);
  copy3(stride, p.stride);
  copy3(pad, p.pad);
  copy3(dilation, p.dilation);
  copy3(out_size, p.out_size);
  p.weight = weight.data_ptr();
  p.weight_channels_last = weight_channels_last;
  p.scale = data<const float>(scale);
  p.shift = data<const float>(shift);
  p.activation = static_cast<Activation>(activation);
  p.out = {data<double>(out[0]),  data<double>(out[1]),  data<float>(out[2]),
           data<float>(out[3]),   data<int64_t>(out[4]), data<int64_t>(out[5]),
           data<int64_t>(out[6]), data<int64_t>(out[7])};
  if (histogram) p.histogram = data<int64_t>(*histogram);
  if (written) {  // [N, C, D, H, W]: every memory format has one stride for all positions
    p.written = written->data_ptr();
    p.written_stride[0] = written->stride(0);
    p.written_stride[1] = written->stride(1);
    p.written_stride[2] = written->stride(4);
  }
  if (onward_scale && onward_shift) {
    p.onward_scale = data<const float>(*onward_scale);
    p.onward_shift = data<const float>(*onward_shift);
    p.onward_activation = static_cast<Activation>(onward_activation);
  }
  if (p.n == 0) return;

  const KernelTable& table = kernels();
  std::vector<int64_t> offsets;
  const ConvPlan plan = plan_conv(p, table.conv_channel_block, table.conv_amx,
                                  torch::stable::get_num_threads(), offsets);
  const int64_t panel_count = plan.blocks * plan.groups;
  thread_local Scratch panels;
  auto* packed = static_cast<float*>(panels.get(panel_count * plan.panel_elements * sizeof(float)));
  torch::stable::parallel_for(0, panel_count, 1, [&](int64_t begin, int64_t end) {
    table.conv_pack_weight(p, plan, begin, end, packed);
  });
  const int64_t bytes = table.conv_scratch_bytes(p, plan);
  const int64_t count_bytes = table.conv_count_bytes(p, plan);
  torch::stable::parallel_for(0, plan.units, 1, [&](int64_t begin, int64_t end) {
    thread_local Scratch scratch, counts;
    table.conv_reduce_units(p, plan, packed, begin, end, scratch.get(bytes),
                            static_cast<int32_t*>(counts.get(count_bytes)));
  });
}

}  // namespace
}  // namespace fastconv

STABLE_TORCH_LIBRARY_FRAGMENT(fastconv_cpu, m) {
  m.def(
      "conv_reduce(Tensor input, Tensor weight, bool weight_channels_last, int dtype, int[] "
      "kernel, int[] stride, int[] pad,"
      " int[] dilation, int[] out_size, int groups, Tensor scale, Tensor shift, int activation,"
      " Tensor(a!)[] out, Tensor(b!)? histogram, Tensor(c!)? written,"
      " Tensor? onward_scale, Tensor? onward_shift, int onward_activation) -> ()");
}

STABLE_TORCH_LIBRARY_IMPL(fastconv_cpu, CPU, m) {
  m.impl("conv_reduce", TORCH_BOX(&fastconv::conv_reduce));
}
