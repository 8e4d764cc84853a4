#include <algorithm>
#include <tuple>
#include <vector>

#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

#include "bindings.h"
#include "conv_plan.h"
#include "scratch.h"

namespace fastconv {
namespace {

using torch::headeronly::ScalarType;

constexpr int64_t kPackedAlone = 1 << 16;      // weights that are not worth another thread
constexpr int64_t kMultipliedAlone = 1 << 18;  // products that are not
constexpr int64_t kPackedByEach = 1 << 16;  // bytes that a thread packs sooner than it fetches them

// Depth, height, width of a geometry of any rank; the one dimension of a 1-D one is the height.
void spread(const std::vector<int64_t>& from, int64_t missing, int64_t* to) {
  const int64_t first = from.size() == 3 ? 0 : 1;
  for (int d = 0; d < 3; ++d) to[d] = missing;
  for (size_t d = 0; d < from.size(); ++d) to[first + d] = from[d];
}

// [n, c, d, h, w] of a tensor, missing dimensions as above.
void spread_strides(const Tensor& x, int64_t* stride) {
  const int64_t rank = x.dim() - 2, first = rank == 3 ? 2 : 3;
  for (int d = 0; d < 5; ++d) stride[d] = 0;
  for (int d = 0; d < 2; ++d) stride[d] = x.stride(d);
  for (int64_t d = 0; d < rank; ++d) stride[first + d] = x.stride(2 + d);
}

Tensor empty(const std::vector<int64_t>& size, const std::vector<int64_t>& stride,
             ScalarType dtype) {
  AtenTensorHandle made;
  const auto code = torch::stable::detail::to<int32_t>(torch::stable::detail::from(dtype));
  TORCH_ERROR_CODE_CHECK(aoti_torch_empty_strided(static_cast<int64_t>(size.size()), size.data(),
                                                  stride.data(), code, aoti_torch_device_type_cpu(),
                                                  0, &made));
  return Tensor(made);
}

// Calls f(i, element i in float64) for a tensor of one dimension.
template <typename Function>
void for_elements(const Tensor& x, Function f) {
  const int64_t size = x.size(0), step = x.stride(0);
  const auto visit = [&](const auto* values) {
    for (int64_t i = 0; i < size; ++i) f(i, static_cast<double>(values[i * step]));
  };
  switch (x.scalar_type()) {
    case ScalarType::Double: return visit(data<const double>(x));
    case ScalarType::Float: return visit(data<const float>(x));
    case ScalarType::Half: return visit(data<const torch::headeronly::Half>(x));
    case ScalarType::BFloat16: return visit(data<const torch::headeronly::BFloat16>(x));
    default: STD_TORCH_CHECK(false, "bias, scale and shift must be floating point");
  }
}

// Bias, scale and shift as one scale and one shift, folded in float64, rounded once.
struct Affine {
  std::vector<float> scale, shift;

  Affine(int64_t channels, const std::optional<Tensor>& bias, const std::optional<Tensor>& scales,
         const std::optional<Tensor>& shifts) {
    std::vector<double> factor(channels, 1.0), offset(channels, 0.0);
    if (scales) for_elements(*scales, [&](int64_t c, double x) { factor[c] = x; });
    if (bias) for_elements(*bias, [&](int64_t c, double x) { offset[c] = x * factor[c]; });
    if (shifts) for_elements(*shifts, [&](int64_t c, double x) { offset[c] += x; });
    scale.assign(factor.begin(), factor.end());
    shift.assign(offset.begin(), offset.end());
  }
};

Dtype dtype_of(const Tensor& x) {
  switch (x.scalar_type()) {
    case ScalarType::Half: return Dtype::kFloat16;
    case ScalarType::BFloat16: return Dtype::kBFloat16;
    default: return Dtype::kFloat32;
  }
}

// The fields that follow from the weight; it is contiguous, or channels last.
ConvReduceParams params_of(const Tensor& weight, bool channels_last, int64_t groups) {
  ConvReduceParams p{};
  p.dtype = dtype_of(weight);
  p.groups = groups;
  p.c_in = weight.size(1);
  p.c_out = weight.size(0) / groups;
  p.weight = weight.data_ptr();
  p.weight_channels_last = channels_last;
  std::vector<int64_t> kernel;
  for (int64_t d = 2; d < weight.dim(); ++d) kernel.push_back(weight.size(d));
  spread(kernel, 1, p.kernel);
  return p;
}

// Room for the activation, channels last or contiguous; nothing if it is not wanted.
Tensor make_written(const Tensor& input, bool wanted, bool last, ConvReduceParams& p) {
  if (!wanted) return empty({0}, {1}, input.scalar_type());
  const int64_t rank = input.dim() - 2, first = rank == 3 ? 0 : 1, channels = p.groups * p.c_out;
  std::vector<int64_t> size{p.n, channels}, stride(2 + rank);
  for (int64_t d = 0; d < rank; ++d) size.push_back(p.out_size[first + d]);
  int64_t step = last ? channels : 1;
  for (int64_t d = rank + 1; d >= 2; --d) {
    stride[d] = step;
    step *= size[d];
  }
  stride[1] = last ? 1 : step;
  stride[0] = last ? step : step * channels;
  Tensor written = empty(size, stride, input.scalar_type());
  p.written = written.data_ptr();
  p.written_stride[0] = stride[0];
  p.written_stride[1] = stride[1];
  p.written_stride[2] = last ? channels : 1;
  return written;
}

int64_t panel_bytes(const ConvPlan& plan) {
  return plan.blocks * plan.groups * plan.panel_elements * (plan.amx ? 2 : 4);
}

void pack(const ConvReduceParams& p, const ConvPlan& plan, float* panels) {
  const int64_t count = plan.blocks * plan.groups;
  const int64_t grain = kPackedAlone / plan.panel_elements + 1;
  torch::stable::parallel_for(0, count, grain, [&](int64_t begin, int64_t end) {
    kernels().conv_pack_weight(p, plan, begin, end, panels);
  });
}

// A convolution of one window, which is planned as any other of that weight.
ConvReduceParams one_window(const Tensor& weight, bool channels_last,
                            const std::vector<int64_t>& stride,
                            const std::vector<int64_t>& dilation, int64_t groups) {
  ConvReduceParams p = params_of(weight, channels_last, groups);
  p.n = 1;
  spread(stride, 1, p.stride);
  spread(dilation, 1, p.dilation);
  for (int d = 0; d < 3; ++d) {
    p.in_size[d] = p.dilation[d] * (p.kernel[d] - 1) + 1;
    p.out_size[d] = 1;
  }
  return p;
}

// The weight as the kernels of the instruction set in use read it, for any input.
Tensor pack_weight(Tensor weight, bool weight_channels_last, std::vector<int64_t> stride,
                   std::vector<int64_t> dilation, int64_t groups) {
  const ConvReduceParams p = one_window(weight, weight_channels_last, stride, dilation, groups);
  const KernelTable& table = kernels();
  std::vector<int64_t> offsets;
  const ConvPlan plan = plan_conv(p, table.conv_channel_block, table.conv_amx, 1, offsets);
  Tensor panels = empty({panel_bytes(plan) / 4}, {1}, ScalarType::Float);
  pack(p, plan, data<float>(panels));
  return panels;
}

// Whether convolutions of the weight run by Winograd's tiles.
bool uses_winograd(Tensor weight, std::vector<int64_t> stride, std::vector<int64_t> dilation,
                   int64_t groups) {
  const ConvReduceParams p = one_window(weight, false, stride, dilation, groups);
  const KernelTable& table = kernels();
  std::vector<int64_t> offsets;
  return plan_conv(p, table.conv_channel_block, table.conv_amx, 1, offsets).winograd;
}

int64_t products(const ConvReduceParams& p) {
  const int64_t window = p.c_in * p.kernel[0] * p.kernel[1] * p.kernel[2];
  return p.n * p.groups * p.c_out * p.positions() * window;
}

void run(const ConvReduceParams& p, const std::optional<Tensor>& packed) {
  const KernelTable& table = kernels();
  const int64_t worth = 1 + products(p) / kMultipliedAlone;
  const int64_t threads = std::min<int64_t>(torch::stable::get_num_threads(), worth);
  std::vector<int64_t> offsets;
  const ConvPlan plan = plan_conv(p, table.conv_channel_block, table.conv_amx, threads, offsets);
  const int64_t size = panel_bytes(plan);
  STD_TORCH_CHECK(!packed || packed->numel() * 4 == size,
                  "weights were packed for another convolution or instruction set");
  thread_local Scratch own;
  float* shared = nullptr;
  if (packed) {
    shared = data<float>(*packed);
  } else if (size > kPackedByEach) {
    shared = static_cast<float*>(own.get(size));
    pack(p, plan, shared);
  }
  const int64_t bytes = table.conv_scratch_bytes(p, plan);
  const int64_t count_bytes = table.conv_count_bytes(p, plan);
  std::vector<UnitShare> shares;
  for (int64_t t = 0; t < threads; ++t)
    shares.emplace_back(plan.units * t / threads, plan.units * (t + 1) / threads);
  const UnitQueue queue{shares.data(), threads};
  torch::stable::parallel_for(0, threads, 1, [&](int64_t begin, int64_t end) {
    thread_local Scratch scratch, counts, few;
    float* panels = shared;
    if (panels == nullptr) {
      panels = static_cast<float*>(few.get(size));
      table.conv_pack_weight(p, plan, 0, plan.blocks * plan.groups, panels);
    }
    for (int64_t thread = begin; thread < end; ++thread)
      table.conv_reduce_units(p, plan, panels, queue, thread, scratch.get(bytes),
                              static_cast<int32_t*>(counts.get(count_bytes)));
  });
}

using Results = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;

// input [N, C, *spatial]; padding: (before, after) of every dimension. The first eight fields of
// a Reduction, and the activation, empty unless `write`. post_activation < 0: no post-ops.
Results conv_reduce(Tensor input, Tensor weight, bool weight_channels_last,
                    std::optional<Tensor> packed, std::optional<Tensor> bias,
                    std::vector<int64_t> stride, std::vector<int64_t> padding,
                    std::vector<int64_t> dilation, int64_t groups, std::optional<Tensor> scale,
                    std::optional<Tensor> shift, int64_t activation,
                    std::optional<Tensor> histogram, bool write, bool write_channels_last,
                    std::optional<Tensor> post_scale, std::optional<Tensor> post_shift,
                    int64_t post_activation, std::optional<Tensor> threshold,
                    std::optional<Tensor> counts, std::optional<Tensor> values,
                    std::optional<Tensor> places, bool largest) {
  ConvReduceParams p = params_of(weight, weight_channels_last, groups);
  p.input = input.data_ptr();
  p.n = input.size(0);
  spread_strides(input, p.in_stride);
  std::vector<int64_t> size, before, after;
  for (int64_t d = 2; d < input.dim(); ++d) {
    size.push_back(input.size(d));
    before.push_back(padding[2 * (d - 2)]);
    after.push_back(padding[2 * (d - 2) + 1]);
  }
  int64_t behind[3];
  spread(size, 1, p.in_size);
  spread(before, 0, p.pad);
  spread(after, 0, behind);
  spread(stride, 1, p.stride);
  spread(dilation, 1, p.dilation);
  for (int d = 0; d < 3; ++d)
    p.out_size[d] = (p.in_size[d] + p.pad[d] + behind[d] - p.dilation[d] * (p.kernel[d] - 1) - 1) /
                        p.stride[d] +
                    1;
  const int64_t channels = groups * p.c_out;
  const Affine measured(channels, bias, scale, shift);
  p.scale = measured.scale.data();
  p.shift = measured.shift.data();
  p.activation = static_cast<Activation>(activation);
  const bool has_post_ops = post_activation >= 0;
  const Affine post_ops(has_post_ops ? channels : 0, std::nullopt, post_scale, post_shift);
  if (has_post_ops) {
    p.post_scale = post_ops.scale.data();
    p.post_shift = post_ops.shift.data();
    p.post_activation = static_cast<Activation>(post_activation);
  }
  if (histogram) p.histogram = data<int64_t>(*histogram);
  if (threshold) p.candidates = candidate_lists(*threshold, *counts, *values, *places, largest);
  const auto field = [&](ScalarType dtype) { return empty({p.n, channels}, {channels, 1}, dtype); };
  const Tensor sum = field(ScalarType::Double), sumsq = field(ScalarType::Double);
  const Tensor min = field(ScalarType::Float), max = field(ScalarType::Float);
  const Tensor argmax = field(ScalarType::Long), argmin = field(ScalarType::Long);
  const Tensor positive = field(ScalarType::Long), nonfinite = field(ScalarType::Long);
  p.out = {data<double>(sum),       data<double>(sumsq),     data<float>(min),
           data<float>(max),        data<int64_t>(argmax),   data<int64_t>(argmin),
           data<int64_t>(positive), data<int64_t>(nonfinite)};
  const Tensor written = make_written(input, write, write_channels_last, p);
  if (p.n > 0) run(p, packed);
  return {sum, sumsq, min, max, argmax, argmin, positive, nonfinite, written};
}

}  // namespace
}  // namespace fastconv

STABLE_TORCH_LIBRARY_FRAGMENT(fastconv_cpu, m) {
  m.def("uses_winograd(Tensor weight, int[] stride, int[] dilation, int groups) -> bool");
  m.def(
      "pack_weight(Tensor weight, bool weight_channels_last, int[] stride, int[] dilation,"
      " int groups) -> Tensor");
  m.def(
      "conv_reduce(Tensor input, Tensor weight, bool weight_channels_last, Tensor? packed,"
      " Tensor? bias, int[] stride, int[] padding, int[] dilation, int groups, Tensor? scale,"
      " Tensor? shift, int activation, Tensor(a!)? histogram, bool write,"
      " bool write_channels_last, Tensor? post_scale, Tensor? post_shift,"
      " int post_activation, Tensor? threshold, Tensor(b!)? counts, Tensor(c!)? values,"
      " Tensor(d!)? places, bool largest)"
      " -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)");
}

STABLE_TORCH_LIBRARY_IMPL(fastconv_cpu, CPU, m) {
  m.impl("pack_weight", TORCH_BOX(&fastconv::pack_weight));
  m.impl("uses_winograd", TORCH_BOX(&fastconv::uses_winograd));
  m.impl("conv_reduce", TORCH_BOX(&fastconv::conv_reduce));
}
