#define FASTCONV_KERNELS kAvx512Kernels
#include "instantiate.inc"
