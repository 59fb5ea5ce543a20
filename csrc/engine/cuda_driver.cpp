#include "engine/cuda_driver.h"

#include <memory>
#include <mutex>

#include "core/error.h"
#include "engine/library.h"
#include "include/fastmrigan.h"

namespace fastmrigan {
namespace {

constexpr const char* SUBJECT = "backend tensorrt: the CUDA driver";

std::unique_ptr<CudaDriver> start() {
  const Library library(SUBJECT, {"libcuda.so.1"}, "TensorRT runs on an NVIDIA GPU alone");
  auto driver = std::make_unique<CudaDriver>();
#define FASTMRIGAN_LOAD(function) library.load(driver->function, #function);
  FASTMRIGAN_CUDA_FUNCTIONS(FASTMRIGAN_LOAD)
#undef FASTMRIGAN_LOAD
  CUdevice device = 0;
  const CUresult started = driver->cuInit(0);
  const CUresult found = started == CUDA_SUCCESS ? driver->cuDeviceGet(&device, 0) : started;
  if (found != CUDA_SUCCESS) {
    const char* text = nullptr;
    driver->cuGetErrorString(found, &text);
    throw Error(FMG_ERROR_BACKEND_MISSING, std::string(SUBJECT) + " gives no device: " +
                                               (text != nullptr ? text : "no reason given"));
  }
  char name[256] = "";
  int major = 0, minor = 0;
  driver->check(driver->cuDeviceGetName(name, sizeof name, device), SUBJECT);
  driver->check(
      driver->cuDeviceGetAttribute(&major, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, device),
      SUBJECT);
  driver->check(
      driver->cuDeviceGetAttribute(&minor, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR, device),
      SUBJECT);
  driver->device = name;
  driver->compute_capability = std::to_string(major) + "." + std::to_string(minor);
  driver->check(driver->cuDevicePrimaryCtxRetain(&driver->context, device), SUBJECT);
  return driver;
}

}  // namespace

void CudaDriver::check(CUresult result, const char* subject) const {
  if (result == CUDA_SUCCESS) return;
  const char* text = nullptr;
  cuGetErrorString(result, &text);
  throw Error(FMG_ERROR_BACKEND,
              std::string(subject) + ": " + (text != nullptr ? text : "no reason given"));
}

InContext::InContext(const CudaDriver& driver) : driver_(driver) {
  driver.check(driver.cuCtxPushCurrent_v2(driver.context), SUBJECT);
}

InContext::~InContext() {
  CUcontext ours = nullptr;
  driver_.cuCtxPopCurrent_v2(&ours);
}

const CudaDriver& load_cuda_driver() {
  static std::mutex mutex;
  static const CudaDriver* driver = nullptr;  // never freed
  const std::lock_guard<std::mutex> lock(mutex);
  if (driver == nullptr) driver = start().release();
  return *driver;
}

}  // namespace fastmrigan
