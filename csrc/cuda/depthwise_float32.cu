#include "variants.cuh"

namespace fastconv {
FASTCONV_DEPTHWISE_VARIANTS(Float32)
}  // namespace fastconv
