// A stand-in for libcuda.so.1 with one device of compute capability 9.0, up to where TensorRT would
// start. FAKE_CUDA_FAILS in the environment: there is no device.
#include <cuda.h>

#include <cstdlib>
#include <cstring>

extern "C" {

CUresult cuInit(unsigned) {
  return std::getenv("FAKE_CUDA_FAILS") != nullptr ? CUDA_ERROR_NO_DEVICE : CUDA_SUCCESS;
}
CUresult cuGetErrorString(CUresult, const char** text) {
  *text = "the fake has no device";
  return CUDA_SUCCESS;
}
CUresult cuDeviceGet(CUdevice* device, int) {
  *device = 0;
  return CUDA_SUCCESS;
}
CUresult cuDeviceGetAttribute(int* value, CUdevice_attribute attribute, CUdevice) {
  *value = attribute == CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR ? 9 : 0;
  return CUDA_SUCCESS;
}
CUresult cuDeviceGetName(char* name, int size, CUdevice) {
  std::strncpy(name, "a fake", static_cast<size_t>(size));
  return CUDA_SUCCESS;
}
CUresult cuDevicePrimaryCtxRetain(CUcontext*, CUdevice) { return CUDA_SUCCESS; }
CUresult cuCtxPushCurrent_v2(CUcontext) { return CUDA_SUCCESS; }
CUresult cuCtxPopCurrent_v2(CUcontext*) { return CUDA_SUCCESS; }

// Never reached.
CUresult cuMemAlloc_v2(CUdeviceptr*, size_t) { return CUDA_ERROR_UNKNOWN; }
CUresult cuMemFree_v2(CUdeviceptr) { return CUDA_ERROR_UNKNOWN; }
CUresult cuMemHostAlloc(void**, size_t, unsigned) { return CUDA_ERROR_UNKNOWN; }
CUresult cuMemFreeHost(void*) { return CUDA_ERROR_UNKNOWN; }
CUresult cuMemcpyHtoDAsync_v2(CUdeviceptr, const void*, size_t, CUstream) {
  return CUDA_ERROR_UNKNOWN;
}
CUresult cuMemcpyDtoHAsync_v2(void*, CUdeviceptr, size_t, CUstream) { return CUDA_ERROR_UNKNOWN; }
CUresult cuStreamCreate(CUstream*, unsigned) { return CUDA_ERROR_UNKNOWN; }
CUresult cuStreamDestroy_v2(CUstream) { return CUDA_ERROR_UNKNOWN; }
CUresult cuStreamSynchronize(CUstream) { return CUDA_ERROR_UNKNOWN; }

}  // extern "C"
