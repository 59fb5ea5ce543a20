// The functions of CUDA's driver API that are used, loaded from the driver's library, and its first
// device. Compiled, not run on a driver of NVIDIA's.
#pragma once

#include <cuda.h>

#include <string>

namespace fastmrigan {

#define FASTMRIGAN_CUDA_FUNCTIONS(f)                                                            \
  f(cuInit) f(cuGetErrorString) f(cuDeviceGet) f(cuDeviceGetAttribute) f(cuDeviceGetName)       \
      f(cuDevicePrimaryCtxRetain) f(cuCtxPushCurrent_v2) f(cuCtxPopCurrent_v2) f(cuMemAlloc_v2) \
          f(cuMemFree_v2) f(cuMemHostAlloc) f(cuMemFreeHost) f(cuMemcpyHtoDAsync_v2)            \
              f(cuMemcpyDtoHAsync_v2) f(cuStreamCreate) f(cuStreamDestroy_v2)                   \
                  f(cuStreamSynchronize)

// The driver, started, and the primary context of device 0, which is never given back.
struct CudaDriver {
#define FASTMRIGAN_DECLARE(function) decltype(::function)* function;
  FASTMRIGAN_CUDA_FUNCTIONS(FASTMRIGAN_DECLARE)
#undef FASTMRIGAN_DECLARE

  std::string device, compute_capability;  // such as "9.0"
  CUcontext context = nullptr;

  // Throws Error FMG_ERROR_BACKEND with CUDA's own text where a call failed.
  void check(CUresult result, const char* subject) const;
};

// Throws Error FMG_ERROR_BACKEND_MISSING where there is no driver or no device.
const CudaDriver& load_cuda_driver();

// The context is this thread's while this lives; then the caller's own is again.
class InContext {
 public:
  explicit InContext(const CudaDriver& driver);
  ~InContext();

  InContext(const InContext&) = delete;
  InContext& operator=(const InContext&) = delete;

 private:
  const CudaDriver& driver_;
};

}  // namespace fastmrigan
