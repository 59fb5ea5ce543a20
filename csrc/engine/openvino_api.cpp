#include "engine/openvino_api.h"

#include <algorithm>
#include <cstdlib>
#include <map>
#include <vector>

#include "core/error.h"
#include "engine/library.h"
#include "include/fastmrigan.h"

namespace fastmrigan {
namespace {

constexpr int OLDEST = 2025;  // the first year whose C API has been tried

// The last telling line of OpenVINO's own message.
std::string telling_line(const std::string& text) {
  std::string last;
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find('\n', at), text.size());
    const std::string line = text.substr(at, end - at);
    const size_t from = line.find_first_not_of(" \t\r"), to = line.find_last_not_of(" \t\r");
    if (from != line.npos && line.rfind("Exception from", from) != from)
      last = line.substr(from, to - from + 1);
    at = end + 1;
  }
  return last;
}

std::unique_ptr<OpenVINO> open(const std::string& path) {
  std::vector<std::string> names{path};
  if (path.empty()) {
    names = {"libopenvino_c.so"};
#ifdef FASTMRIGAN_OPENVINO_SONAME
    names.push_back(FASTMRIGAN_OPENVINO_SONAME);
#endif
  }
  const Library library("backend openvino", names);
  auto api = std::make_unique<OpenVINO>();
#define FASTMRIGAN_LOAD(function) library.load(api->function, #function);
  FASTMRIGAN_OPENVINO_FUNCTIONS(FASTMRIGAN_LOAD)
#undef FASTMRIGAN_LOAD
  ov_version_t version{};
  api->check(api->ov_get_openvino_version(&version), "backend openvino", FMG_ERROR_BACKEND);
  api->version = version.buildNumber != nullptr ? version.buildNumber : "";
  api->ov_version_free(&version);
  api->version = api->version.substr(0, api->version.find('-'));
  if (std::atoi(api->version.c_str()) < OLDEST)
    throw Error(FMG_ERROR_BACKEND_VERSION, "backend openvino: its library is version " +
                                               api->version + "; take " + std::to_string(OLDEST) +
                                               ".0 or later");
  api->check(api->ov_core_create(&api->core), "backend openvino", FMG_ERROR_BACKEND);
  return api;
}

}  // namespace

void OpenVINO::check(ov_status_e status, const std::string& subject, int code) const {
  if (status == ov_status_e::OK) return;
  const char* text = ov_get_last_err_msg();
  std::string reason = telling_line(text != nullptr ? text : "");
  if (text != nullptr) ov_free(text);
  if (reason.empty()) reason = "status " + std::to_string(static_cast<int>(status));
  throw Error(code, subject + ": " + reason);
}

std::string OpenVINO::property(const char* name) const {
  char* value = nullptr;
  check(ov_core_get_property(core, "CPU", name, &value), "backend openvino", FMG_ERROR_BACKEND);
  const std::string text = value;
  ov_free(value);
  return text;
}

const OpenVINO& load_openvino(const std::string& path) {
  static std::mutex mutex;
  static auto* loaded = new std::map<std::string, std::unique_ptr<OpenVINO>>;
  const std::lock_guard<std::mutex> lock(mutex);
  std::unique_ptr<OpenVINO>& api = (*loaded)[path];
  if (!api) api = open(path);
  return *api;
}

}  // namespace fastmrigan
