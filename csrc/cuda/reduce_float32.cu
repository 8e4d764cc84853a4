#include "variants.cuh"

namespace fastconv {
FASTCONV_REDUCE_VARIANTS(Float32)
}  // namespace fastconv
