#define FASTCONV_KERNELS kAvx2Kernels
#include "instantiate.inc"
