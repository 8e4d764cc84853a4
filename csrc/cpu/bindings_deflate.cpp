// Activation maps as finished chunks of an HDF5 file.
#include "bindings.h"
#include "deflate.h"

namespace fastconv {
namespace {

int64_t deflate_chunk(Tensor values, int64_t keepbits, Tensor out) {
  STD_TORCH_CHECK(out.numel() >= deflate::bound(4 * values.numel(), 4), "out is too small");
  return deflate::pack(data<const uint32_t>(values), values.numel(), static_cast<int>(keepbits),
                       data<uint8_t>(out));
}

}  // namespace
}  // namespace fastconv

STABLE_TORCH_LIBRARY_FRAGMENT(fastconv_cpu, m) {
  m.def("deflate_chunk(Tensor values, int keepbits, Tensor(a!) out) -> int");
}

STABLE_TORCH_LIBRARY_IMPL(fastconv_cpu, CPU, m) {
  m.impl("deflate_chunk", TORCH_BOX(&fastconv::deflate_chunk));
}
