// What TensorRT's registry asks a plugin library for: its creators, and the logger to use. The
// library needs nothing of TensorRT to be linked or loaded.
#include <NvInferRuntime.h>

#include <atomic>
#include <cstdio>
#include <stdexcept>
#include <vector>

#include "tensorrt_plugin/fields.h"
#include "tensorrt_plugin/plugin.h"
#include "tensorrt_plugin/report.h"

namespace fastmrigan::plugin {

namespace {

std::atomic<nvinfer1::ILoggerFinder*> finder{nullptr};

class Creator final : public nvinfer1::IPluginCreatorV3One {
 public:
  const char* getPluginName() const noexcept override { return kName; }
  const char* getPluginVersion() const noexcept override { return kVersion; }
  const char* getPluginNamespace() const noexcept override { return kNamespace; }
  const nvinfer1::PluginFieldCollection* getFieldNames() noexcept override { return &collection_; }

  // In both phases: an engine keeps the fields the plugin was made with.
  nvinfer1::IPluginV3* createPlugin(const char* name, const nvinfer1::PluginFieldCollection* given,
                                    nvinfer1::TensorRTPhase) noexcept override {
    InstanceNormPlugin* made = nullptr;
    guarded([&] {
      try {
        made = new InstanceNormPlugin(
            read_fields(given == nullptr ? nvinfer1::PluginFieldCollection{} : *given));
      } catch (const std::invalid_argument& error) {
        throw std::invalid_argument(std::string(kName) + " '" + (name == nullptr ? "" : name) +
                                    "': " + error.what());
      }
    });
    return made;
  }

 private:
  const std::vector<nvinfer1::PluginField> names_ = field_names();
  const nvinfer1::PluginFieldCollection collection_{static_cast<int32_t>(names_.size()),
                                                    names_.data()};
};

}  // namespace

void report(const std::string& text) noexcept {
  try {
    nvinfer1::ILoggerFinder* found = finder.load();
    nvinfer1::ILogger* logger = found == nullptr ? nullptr : found->findLogger();
    if (logger != nullptr) {
      logger->log(nvinfer1::ILogger::Severity::kERROR, text.c_str());
      return;
    }
  } catch (...) {  // findLogger may throw; stderr is left
  }
  std::fprintf(stderr, "%s\n", text.c_str());
}

}  // namespace fastmrigan::plugin

#define FASTMRIGAN_EXPORT extern "C" __attribute__((visibility("default")))

FASTMRIGAN_EXPORT nvinfer1::IPluginCreatorInterface* const* getCreators(int32_t& count) {
  static fastmrigan::plugin::Creator creator;
  static nvinfer1::IPluginCreatorInterface* const creators[] = {&creator};
  count = 1;
  return creators;
}

FASTMRIGAN_EXPORT void setLoggerFinder(nvinfer1::ILoggerFinder* given) {
  fastmrigan::plugin::finder.store(given);
}
