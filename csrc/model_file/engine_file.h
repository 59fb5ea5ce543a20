// A TensorRT engine and its sidecar, which export/tensorrt.py writes. An engine is executable: it
// is used only where the facts of its sidecar hold.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "model_file/model_file.h"

namespace fastmrigan {

struct EngineFileFacts {
  ModelFacts model;
  std::string tensorrt_version;    // that built it, such as "11.1.0.106"
  std::string compute_capability;  // that it was built for, such as "9.0"
  bool version_compatible;         // later versions of TensorRT may load it
  std::vector<int32_t> buckets;    // batch sizes, rising; the place of one is its profile's number
  std::string input, output;       // names of its tensors
};

// Reads `path`.json and holds the engine's bytes against it. Throws Error FMG_ERROR_FILE where it
// cannot be read, FMG_ERROR_MODEL where the two do not fit or another package built the engine.
EngineFileFacts check_engine_file(const std::string& path, const uint8_t* data, size_t size);

}  // namespace fastmrigan
