// A model file's facts: what fastmrigan/runtime/model_file.py checks, as far as running it needs.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "model_file/json.h"

namespace fastmrigan {

enum class Task { sample, translate };

// How the range that goes to -1..1 is found: fastmrigan/imaging/grading.py.
struct GradingRule {
  enum class Method { percentile, minmax, window } method;
  double low, high;  // percent for percentile, the source's unit for window
};

struct ModelFacts {
  Task task;
  int32_t height, width;            // of a slice, pixels
  int32_t latent_size = 0;          // task sample
  std::optional<GradingRule> rule;  // none where the file states no rule known here
  std::optional<double> bf16_db;    // parity of OpenVINO in bf16
  std::string precision = "fp32";   // that the graph is typed in: fp32, bf16, fp16 or int8
  std::string recipe, source_contrast, target_contrast, graph_sha256;
};

// The whole of a model file. Throws Error FMG_ERROR_FILE.
std::vector<uint8_t> read_file(const std::string& path);

// The facts of the document in a model file, or of the same in the sidecar of a TensorRT engine.
// name: what messages call the file. Throws Error FMG_ERROR_MODEL.
ModelFacts read_metadata(const std::string& name, const Json& json);

// Checks a model file. name: what messages call it. Throws Error FMG_ERROR_MODEL where it is
// damaged, carries no (or unreadable, or newer) metadata, or keeps weights outside the file.
ModelFacts check_model(const std::string& name, const uint8_t* data, size_t size);

}  // namespace fastmrigan
