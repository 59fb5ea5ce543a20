#include "engine/onnxruntime_api.h"

#include <cstdio>
#include <map>
#include <mutex>

#include "core/error.h"
#include "engine/library.h"
#include "include/fastmrigan.h"

namespace fastmrigan {
namespace {

// The API that is asked for, whatever the header's: that of ONNX Runtime 1.16, which every later
// version has too.
constexpr uint32_t API = 16;

std::unique_ptr<OnnxRuntime> open(const std::string& path) {
  std::vector<std::string> names{path};
  if (path.empty()) names = {"libonnxruntime.so.1", "libonnxruntime.so"};
  const Library library("backend onnxruntime", names);
  decltype(::OrtGetApiBase)* base = nullptr;
  library.load(base, "OrtGetApiBase");
  auto found = std::make_unique<OnnxRuntime>();
  found->version = base()->GetVersionString();
  // GetApi itself writes to the standard error where it has no such version.
  int major = 0, minor = 0;
  std::sscanf(found->version.c_str(), "%d.%d", &major, &minor);
  if (major > 1 || (major == 1 && minor >= static_cast<int>(API))) found->api = base()->GetApi(API);
  if (found->api == nullptr)
    throw Error(FMG_ERROR_BACKEND_VERSION, "backend onnxruntime: its library is version " +
                                               found->version + ", which lacks version " +
                                               std::to_string(API) + " of its C API; take 1." +
                                               std::to_string(API) + " or later");
  found->check(found->api->CreateEnv(ORT_LOGGING_LEVEL_FATAL, "fastmrigan", &found->env),
               "backend onnxruntime");
  return found;
}

}  // namespace

void OnnxRuntime::check(OrtStatus* status, const std::string& subject) const {
  if (status == nullptr) return;
  const Owned<OrtStatus> owned(status, api->ReleaseStatus);
  throw Error(FMG_ERROR_BACKEND, subject + ": " + api->GetErrorMessage(status));
}

const OnnxRuntime& load_onnxruntime(const std::string& path) {
  static std::mutex mutex;
  static auto* loaded = new std::map<std::string, std::unique_ptr<OnnxRuntime>>;
  const std::lock_guard<std::mutex> lock(mutex);
  std::unique_ptr<OnnxRuntime>& found = (*loaded)[path];
  if (!found) found = open(path);
  return *found;
}

}  // namespace fastmrigan
