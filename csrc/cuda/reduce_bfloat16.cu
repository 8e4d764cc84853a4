#include "variants.cuh"

namespace fastconv {
FASTCONV_REDUCE_VARIANTS(BFloat16)
}  // namespace fastconv
