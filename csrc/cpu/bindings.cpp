// Module entry, instruction sets, and the bindings of the small ops.
#include <Python.h>

#include "bindings.h"
#include "exact_add.h"

namespace fastconv {
namespace {

int64_t isa() { return static_cast<int64_t>(current_isa()); }
int64_t isa_best() { return static_cast<int64_t>(best_isa()); }
bool isa_set(int64_t level) { return set_isa(static_cast<Isa>(level)); }

void topk_merge(Tensor values, Tensor samples, Tensor positions, Tensor new_values,
                Tensor new_samples, Tensor new_positions, bool largest, Tensor out_values,
                Tensor out_samples, Tensor out_positions, Tensor out_source) {
  const TopkMergeParams params{data<const float>(values),
                               data<const int64_t>(samples),
                               data<const int64_t>(positions),
                               data<const float>(new_values),
                               data<const int64_t>(new_samples),
                               data<const int64_t>(new_positions),
                               data<float>(out_values),
                               data<int64_t>(out_samples),
                               data<int64_t>(out_positions),
                               data<int64_t>(out_source),
                               values.size(1),
                               new_values.size(1),
                               largest};
  torch::stable::parallel_for(0, values.size(0), 64, [&](int64_t begin, int64_t end) {
    kernels().topk_merge(params, begin, end);
  });
}

void exact_add(Tensor sums, Tensor values) {
  torch::stable::parallel_for(0, sums.size(0), 256, [&](int64_t begin, int64_t end) {
    exact_add_channels(data<const double>(values), values.size(0), values.size(1),
                       data<int64_t>(sums), sums.size(1), begin, end);
  });
}

}  // namespace
}  // namespace fastconv

STABLE_TORCH_LIBRARY(fastconv_cpu, m) {
  m.def("isa() -> int");
  m.def("isa_best() -> int");
  m.def("isa_set(int level) -> bool");
  m.def("exact_add(Tensor(a!) sums, Tensor values) -> ()");
  m.def(
      "topk_merge(Tensor values, Tensor samples, Tensor positions, Tensor new_values,"
      " Tensor new_samples, Tensor new_positions, bool largest, Tensor(a!) out_values,"
      " Tensor(b!) out_samples, Tensor(c!) out_positions, Tensor(d!) out_source) -> ()");
}

STABLE_TORCH_LIBRARY_IMPL(fastconv_cpu, CompositeExplicitAutograd, m) {
  m.impl("isa", TORCH_BOX(&fastconv::isa));
  m.impl("isa_best", TORCH_BOX(&fastconv::isa_best));
  m.impl("isa_set", TORCH_BOX(&fastconv::isa_set));
}

STABLE_TORCH_LIBRARY_IMPL(fastconv_cpu, CPU, m) {
  m.impl("exact_add", TORCH_BOX(&fastconv::exact_add));
  m.impl("topk_merge", TORCH_BOX(&fastconv::topk_merge));
}

// The module itself is empty: importing it runs the registrations above.
PyMODINIT_FUNC PyInit__C(void) {
  static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_C", nullptr, -1, nullptr};
  return PyModule_Create(&module);
}
