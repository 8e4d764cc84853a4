// What the bindings share: the only files that know torch.
#pragma once
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include "kernels.h"

namespace fastconv {
using torch::stable::Tensor;

template <typename T>
T* data(const Tensor& t) {
  return static_cast<T*>(t.data_ptr());
}

template <typename T>
const T* optional_data(const std::optional<Tensor>& t) {
  return t ? static_cast<const T*>(t->data_ptr()) : nullptr;
}

inline CandidateLists candidate_lists(const Tensor& threshold, const Tensor& counts,
                                      const Tensor& values, const Tensor& places, bool largest) {
  return {data<const float>(threshold), data<int32_t>(counts), data<float>(values),
          data<int64_t>(places),        values.size(1),        largest};
}

}  // namespace fastconv
