#include "variants.cuh"

namespace fastconv {
FASTCONV_DEPTHWISE_VARIANTS(Float16)
}  // namespace fastconv
