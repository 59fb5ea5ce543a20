// A session, its input and output bound to memory once, run.
#include <onnxruntime_c_api.h>

#include <vector>

#include "bare.h"

namespace {

struct OnnxRuntime final : Bare {
  OnnxRuntime(void* library, const char* model, const fmg_info& info)
      : api(find<decltype(::OrtGetApiBase)>(library, "OrtGetApiBase")()->GetApi(16)),
        in(pixels(info)),
        out(pixels(info)) {
    OrtEnv* env = nullptr;
    good(api->CreateEnv(ORT_LOGGING_LEVEL_FATAL, "c_api", &env));
    OrtSessionOptions* settings = nullptr;
    good(api->CreateSessionOptions(&settings));
    good(api->SetIntraOpNumThreads(settings, info.threads));
    good(api->CreateSession(env, model, settings, &session));
    good(api->CreateIoBinding(session, &binding));
    OrtAllocator* allocator = nullptr;
    good(api->GetAllocatorWithDefaultOptions(&allocator));
    char* name = nullptr;
    good(api->SessionGetInputName(session, 0, allocator, &name));
    good(api->BindInput(binding, name, tensor(in, info)));
    good(api->SessionGetOutputName(session, 0, allocator, &name));
    good(api->BindOutput(binding, name, tensor(out, info)));
    input = in.data();
    output = out.data();
  }

  void infer() override { good(api->RunWithBinding(session, nullptr, binding)); }

  static size_t pixels(const fmg_info& info) {
    return static_cast<size_t>(info.height) * static_cast<size_t>(info.width);
  }

  void good(OrtStatus* status) const {
    if (status != nullptr) stop(std::string("ONNX Runtime: ") + api->GetErrorMessage(status));
  }

  OrtValue* tensor(std::vector<float>& memory, const fmg_info& info) const {
    OrtMemoryInfo* where = nullptr;
    good(api->CreateCpuMemoryInfo(OrtArenaAllocator, OrtMemTypeDefault, &where));
    const int64_t sides[] = {1, 1, info.height, info.width};
    OrtValue* made = nullptr;
    good(api->CreateTensorWithDataAsOrtValue(where, memory.data(), memory.size() * sizeof(float),
                                             sides, 4, ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, &made));
    return made;
  }

  const OrtApi* api;
  std::vector<float> in, out;
  OrtSession* session = nullptr;
  OrtIoBinding* binding = nullptr;
};

}  // namespace

std::unique_ptr<Bare> open_bare_onnxruntime(void* library, const char* model,
                                            const fmg_info& info) {
  return std::make_unique<OnnxRuntime>(library, model, info);
}
