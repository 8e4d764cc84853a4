// A stand-in for libcuda.so.1: Triton loads kernels and launches them through it as on a device.
// It runs nothing. It refuses what a Hopper's driver refuses, and prints each launch and each
// tensor map as a line of JSON.
#include <cuda.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

enum { kShared = 227 * 1024, kMostYZ = 65535, kMostBox = 256 };

static CUcontext kContext = (CUcontext)1;

static CUresult refuse(const char* what) {
  printf("{\"refused\": \"%s\"}\n", what);
  fflush(stdout);
  return CUDA_ERROR_INVALID_VALUE;
}

CUresult cuInit(unsigned flags) { return CUDA_SUCCESS; }
CUresult cuDriverGetVersion(int* version) { return *version = 13000, CUDA_SUCCESS; }
CUresult cuDeviceGetCount(int* count) { return *count = 1, CUDA_SUCCESS; }
CUresult cuDeviceGet(CUdevice* device, int ordinal) { return *device = ordinal, CUDA_SUCCESS; }
CUresult cuDevicePrimaryCtxRetain(CUcontext* c, CUdevice d) { return *c = kContext, CUDA_SUCCESS; }
CUresult cuCtxGetCurrent(CUcontext* context) { return *context = kContext, CUDA_SUCCESS; }
CUresult cuCtxSetCurrent(CUcontext context) { return CUDA_SUCCESS; }
CUresult cuCtxGetDevice(CUdevice* device) { return *device = 0, CUDA_SUCCESS; }
CUresult cuCtxGetLimit(size_t* value, CUlimit limit) { return *value = 0, CUDA_SUCCESS; }
CUresult cuCtxSetLimit(CUlimit limit, size_t value) { return CUDA_SUCCESS; }
CUresult cuStreamIsCapturing(CUstream s, CUstreamCaptureStatus* status) {
  return *status = CU_STREAM_CAPTURE_STATUS_NONE, CUDA_SUCCESS;
}
CUresult cuGetErrorString(CUresult error, const char** text) {
  return *text = "refused by the stand-in", CUDA_SUCCESS;
}

CUresult cuDeviceGetAttribute(int* value, CUdevice_attribute attribute, CUdevice device) {
  switch (attribute) {
    case CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN: *value = kShared; break;
    case CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR: *value = kShared + 1024; break;
    case CU_DEVICE_ATTRIBUTE_MAX_REGISTERS_PER_BLOCK: *value = 65536; break;
    case CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT: *value = 132; break;
    case CU_DEVICE_ATTRIBUTE_WARP_SIZE: *value = 32; break;
    case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR: *value = 9; break;
    default: *value = 0;
  }
  return CUDA_SUCCESS;
}

CUresult cuModuleLoadData(CUmodule* module, const void* image) {
  return *module = (CUmodule)1, CUDA_SUCCESS;
}
CUresult cuModuleUnload(CUmodule module) { return CUDA_SUCCESS; }
CUresult cuModuleGetFunction(CUfunction* function, CUmodule module, const char* name) {
  return *function = (CUfunction)1, CUDA_SUCCESS;
}
CUresult cuFuncGetAttribute(int* value, CUfunction_attribute attribute, CUfunction function) {
  return *value = attribute == CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK ? 1024 : 0, CUDA_SUCCESS;
}
CUresult cuFuncSetAttribute(CUfunction f, CUfunction_attribute a, int v) { return CUDA_SUCCESS; }
CUresult cuFuncSetCacheConfig(CUfunction function, CUfunc_cache config) { return CUDA_SUCCESS; }
CUresult cuOccupancyMaxActiveClusters(int* n, CUfunction f, const CUlaunchConfig* config) {
  return *n = 1, CUDA_SUCCESS;
}
CUresult cuPointerGetAttribute(void* value, CUpointer_attribute attribute, CUdeviceptr pointer) {
  memcpy(value, &pointer, sizeof pointer);
  return CUDA_SUCCESS;
}

CUresult cuLaunchKernelEx(const CUlaunchConfig* c, CUfunction f, void** params, void** extra) {
  printf("{\"grid\": [%u, %u, %u], \"threads\": %u, \"shared\": %u}\n", c->gridDimX, c->gridDimY,
         c->gridDimZ, c->blockDimX, c->sharedMemBytes);
  fflush(stdout);
  if (c->gridDimX > INT32_MAX || c->gridDimY > kMostYZ || c->gridDimZ > kMostYZ)
    return refuse("a grid of more than 65535 blocks in y or z");
  if (c->blockDimX > 1024 || c->sharedMemBytes > kShared) return refuse("too large a block");
  return CUDA_SUCCESS;
}

// As the driver's documentation says what it checks.
CUresult cuTensorMapEncodeTiled(CUtensorMap* map, CUtensorMapDataType type, cuuint32_t rank,
                                void* address, const cuuint64_t* dim, const cuuint64_t* stride,
                                const cuuint32_t* box, const cuuint32_t* step,
                                CUtensorMapInterleave interleave, CUtensorMapSwizzle swizzle,
                                CUtensorMapL2promotion promotion, CUtensorMapFloatOOBfill fill) {
  const int bytes =
      type == CU_TENSOR_MAP_DATA_TYPE_BFLOAT16 || type == CU_TENSOR_MAP_DATA_TYPE_FLOAT16 ? 2 : 4;
  const uint64_t row = (uint64_t)box[0] * bytes;
  const int widest = swizzle == CU_TENSOR_MAP_SWIZZLE_128B  ? 128
                     : swizzle == CU_TENSOR_MAP_SWIZZLE_64B ? 64
                     : swizzle == CU_TENSOR_MAP_SWIZZLE_32B ? 32
                                                            : kMostBox * bytes;
  printf("{\"map\": %d, \"bytes\": %d, \"dim\": [", (int)rank, bytes);
  for (cuuint32_t i = 0; i < rank; ++i) printf("%s%llu", i ? ", " : "", (unsigned long long)dim[i]);
  printf("], \"box\": [");
  for (cuuint32_t i = 0; i < rank; ++i) printf("%s%u", i ? ", " : "", box[i]);
  printf("]}\n");
  fflush(stdout);
  if ((uintptr_t)map % 64 || (uintptr_t)address % 16) return refuse("a misaligned tensor map");
  if (rank < 1 || rank > 5) return refuse("a tensor map of more than five dimensions");
  if (row % 16 || row > widest) return refuse("a box of rows that do not fit the swizzle");
  for (cuuint32_t i = 0; i < rank; ++i) {
    if (dim[i] == 0 || dim[i] > (1ull << 32)) return refuse("a dimension of a tensor map");
    if (box[i] == 0 || box[i] > kMostBox) return refuse("a box of more than 256");
    if (step[i] < 1 || step[i] > 8) return refuse("an element stride");
    if (i + 1 < rank && (stride[i] % 16 || stride[i] >= (1ull << 40)))
      return refuse("a stride that is no multiple of 16 bytes");
  }
  return CUDA_SUCCESS;
}
