// A stand-in for libnvinfer that refuses to start: what is checked before that can be tested
// without a GPU.
//
//   FAKE_MAJOR   its major version, by default that of the headers
#include <NvInfer.h>

#ifndef FAKE_MAJOR
#define FAKE_MAJOR NV_TENSORRT_MAJOR
#endif

extern "C" {

int32_t getInferLibMajorVersion() noexcept { return FAKE_MAJOR; }
int32_t getInferLibMinorVersion() noexcept { return 5; }
int32_t getInferLibPatchVersion() noexcept { return 2; }
void* createInferRuntime_INTERNAL(void* logger, int32_t) noexcept {
  static_cast<nvinfer1::ILogger*>(logger)->log(nvinfer1::ILogger::Severity::kERROR,
                                               "the fake was told to fail");
  return nullptr;
}

}  // extern "C"
