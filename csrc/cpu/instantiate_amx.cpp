#define FASTCONV_KERNELS kAmxKernels
#include "instantiate.inc"
