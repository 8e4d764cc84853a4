// What the device code takes from CUDA. FASTCONV_ON_HOST: from a stand-in that runs blocks on the
// processor, for tests (tests/backends/cuda/host_cuda.h).
#pragma once
#if defined(FASTCONV_ON_HOST)
#include "host_cuda.h"
#else
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>
#define FASTCONV_DYNAMIC_SHARED(type, name) extern __shared__ type name[]
#endif
