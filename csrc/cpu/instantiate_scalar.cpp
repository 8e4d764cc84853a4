#define FASTCONV_KERNELS kScalarKernels
#include "instantiate.inc"
