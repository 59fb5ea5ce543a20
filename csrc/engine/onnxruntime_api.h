// ONNX Runtime's C API, loaded from its shared library.
#pragma once

#include <onnxruntime_c_api.h>

#include <memory>
#include <string>

namespace fastmrigan {

// The loaded library, and its one environment.
struct OnnxRuntime {
  const OrtApi* api = nullptr;
  std::string version;
  OrtEnv* env = nullptr;

  // Throws Error with ONNX Runtime's own text where a call failed, and frees the status.
  // subject: what the message is about.
  void check(OrtStatus* status, const std::string& subject) const;

  template <typename T>
  using Owned = std::unique_ptr<T, void (*)(T*)>;
};

// The library at `path`, or by its plain name where that is empty; loaded once and never freed.
const OnnxRuntime& load_onnxruntime(const std::string& path);

}  // namespace fastmrigan
