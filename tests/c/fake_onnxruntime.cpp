// A stand-in for libonnxruntime, as fake_openvino.cpp is one for libopenvino_c: it takes any bytes
// for a graph and computes -x.
//
//   FAKE_VERSION   the version it gives
//   FAKE_LACKS     leaves its one entry point out
#include <onnxruntime_c_api.h>
#include <time.h>

#include <atomic>
#include <cmath>
#include <cstring>

#include "fake_backend.h"

#ifndef FAKE_VERSION
#define FAKE_VERSION "1.31.1"
#endif

static fake_controls controls = {0, 0, 0, 0, 8, 8};

extern "C" fake_controls* fake_control(void) { return &controls; }

struct OrtEnv {};
struct OrtStatus {};
struct OrtSessionOptions {};
struct OrtMemoryInfo {};
struct OrtSession {};
struct OrtTensorTypeAndShapeInfo {};
struct OrtTypeInfo {
  OrtTensorTypeAndShapeInfo tensor;
};
struct OrtValue {
  float* data;
  size_t count;
};
struct OrtIoBinding {
  OrtValue in, out;
};
struct OrtRunOptions {
  std::atomic<bool> terminate{false};
};

template <typename T>
static OrtStatus* give(T** made) {
  *made = new T;
  return nullptr;
}
template <typename T>
static void drop(T* owned) {
  delete owned;
}

static OrtStatus* run(const OrtRunOptions* options, const OrtIoBinding* binding) {
  for (int ms = 0; ms < controls.sleep_ms; ++ms) {
    const timespec tick = {0, 1000000};
    nanosleep(&tick, nullptr);
    if (options->terminate) return new OrtStatus;
  }
  if (controls.fail_run) return new OrtStatus;
  for (size_t i = 0; i < binding->out.count; ++i) binding->out.data[i] = -binding->in.data[i];
  if (controls.make_nan) binding->out.data[0] = std::nanf("");
  return nullptr;
}

static OrtStatus* copy_name(const char* name, char** to) {
  *to = std::strcpy(new char[std::strlen(name) + 1], name);
  return nullptr;
}

static OrtApi make_api() {
  OrtApi api;
  std::memset(static_cast<void*>(&api), 0, sizeof api);
  api.GetErrorMessage = [](const OrtStatus*) noexcept { return "the fake was told to fail"; };
  api.CreateEnv = [](OrtLoggingLevel, const char*, OrtEnv** env) noexcept { return give(env); };
  api.CreateSessionOptions = [](OrtSessionOptions** made) noexcept { return give(made); };
  api.SetIntraOpNumThreads = [](OrtSessionOptions*, int) noexcept -> OrtStatus* { return nullptr; };
  api.SetSessionLogSeverityLevel = [](OrtSessionOptions*, int) noexcept -> OrtStatus* {
    return nullptr;
  };
  api.CreateSessionFromArray = [](const OrtEnv*, const void*, size_t, const OrtSessionOptions*,
                                  OrtSession** made) noexcept {
    return controls.refuse_graph ? new OrtStatus : give(made);
  };
  api.SessionGetInputCount =
      api.SessionGetOutputCount = [](const OrtSession*, size_t* count) noexcept -> OrtStatus* {
    *count = 1;
    return nullptr;
  };
  api.SessionGetInputTypeInfo = api.SessionGetOutputTypeInfo =
      [](const OrtSession*, size_t, OrtTypeInfo** made) noexcept { return give(made); };
  api.CastTypeInfoToTensorInfo =
      [](const OrtTypeInfo* type, const OrtTensorTypeAndShapeInfo** tensor) noexcept -> OrtStatus* {
    *tensor = &type->tensor;
    return nullptr;
  };
  api.GetTensorElementType = [](const OrtTensorTypeAndShapeInfo*,
                                ONNXTensorElementDataType* type) noexcept -> OrtStatus* {
    *type = ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;
    return nullptr;
  };
  api.GetDimensionsCount = [](const OrtTensorTypeAndShapeInfo*,
                              size_t* count) noexcept -> OrtStatus* {
    *count = 4;
    return nullptr;
  };
  api.GetDimensions = [](const OrtTensorTypeAndShapeInfo*, int64_t* sides,
                         size_t) noexcept -> OrtStatus* {
    sides[0] = -1, sides[1] = 1, sides[2] = controls.height, sides[3] = controls.width;
    return nullptr;
  };
  api.SessionGetInputName = [](const OrtSession*, size_t, OrtAllocator*, char** name) noexcept {
    return copy_name("source", name);
  };
  api.SessionGetOutputName = [](const OrtSession*, size_t, OrtAllocator*, char** name) noexcept {
    return copy_name("slice", name);
  };
  api.GetAllocatorWithDefaultOptions = [](OrtAllocator** to) noexcept -> OrtStatus* {
    *to = nullptr;
    return nullptr;
  };
  api.AllocatorFree = [](OrtAllocator*, void* name) noexcept -> OrtStatus* {
    delete[] static_cast<char*>(name);
    return nullptr;
  };
  api.CreateCpuMemoryInfo = [](OrtAllocatorType, OrtMemType, OrtMemoryInfo** made) noexcept {
    return give(made);
  };
  api.CreateTensorWithDataAsOrtValue = [](const OrtMemoryInfo*, void* data, size_t bytes,
                                          const int64_t*, size_t, ONNXTensorElementDataType,
                                          OrtValue** made) noexcept -> OrtStatus* {
    *made = new OrtValue{static_cast<float*>(data), bytes / sizeof(float)};
    return nullptr;
  };
  api.CreateRunOptions = [](OrtRunOptions** made) noexcept { return give(made); };
  api.RunOptionsSetTerminate = [](OrtRunOptions* options) noexcept -> OrtStatus* {
    options->terminate = true;
    return nullptr;
  };
  api.RunOptionsUnsetTerminate = [](OrtRunOptions* options) noexcept -> OrtStatus* {
    options->terminate = false;
    return nullptr;
  };
  api.CreateIoBinding = [](OrtSession*, OrtIoBinding** made) noexcept { return give(made); };
  api.BindInput = [](OrtIoBinding* binding, const char*,
                     const OrtValue* value) noexcept -> OrtStatus* {
    binding->in = *value;
    return nullptr;
  };
  api.BindOutput = [](OrtIoBinding* binding, const char*,
                      const OrtValue* value) noexcept -> OrtStatus* {
    binding->out = *value;
    return nullptr;
  };
  api.RunWithBinding = [](OrtSession*, const OrtRunOptions* options,
                          const OrtIoBinding* binding) noexcept { return run(options, binding); };
  api.ReleaseStatus = drop<OrtStatus>;
  api.ReleaseSessionOptions = drop<OrtSessionOptions>;
  api.ReleaseSession = drop<OrtSession>;
  api.ReleaseTypeInfo = drop<OrtTypeInfo>;
  api.ReleaseMemoryInfo = drop<OrtMemoryInfo>;
  api.ReleaseValue = drop<OrtValue>;
  api.ReleaseRunOptions = drop<OrtRunOptions>;
  api.ReleaseIoBinding = drop<OrtIoBinding>;
  return api;
}

static const OrtApi api = make_api();

#ifndef FAKE_LACKS
extern "C" const OrtApiBase* OrtGetApiBase(void) noexcept {
  static const OrtApiBase base = {
      [](uint32_t version) noexcept { return version <= 31 ? &api : nullptr; },
      []() noexcept { return FAKE_VERSION; },
  };
  return &base;
}
#endif
