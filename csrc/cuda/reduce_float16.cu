#include "variants.cuh"

namespace fastconv {
FASTCONV_REDUCE_VARIANTS(Float16)
}  // namespace fastconv
