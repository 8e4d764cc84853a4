#include "variants.cuh"

namespace fastconv {
FASTCONV_DEPTHWISE_VARIANTS(BFloat16)
}  // namespace fastconv
