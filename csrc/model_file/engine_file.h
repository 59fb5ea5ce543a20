// A TensorRT engine and its sidecar, which export/tensorrt.py writes. An engine is executable: it
// is used only where the facts of its sidecar hold. What costs least is checked first, as in
// fastmrigan/runtime/engine_file.py: the sidecar and the size, the sum of the words, the sha256.
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
  size_t size;                     // bytes of the engine
  std::string sum64, sha256;       // of the engine, in lower-case hexadecimal
};

// Reads `path`.json, and of the engine its size alone. Throws Error FMG_ERROR_FILE where one of
// them cannot be read, FMG_ERROR_MODEL where the two do not fit or another package built the
// engine.
EngineFileFacts read_engine_facts(const std::string& path);

// The engine, held against its sidecar in two stages. First the sum of its 64-bit words, modulo
// 2^64, over the file in pieces: it finds every change within one word, so every flipped byte, and
// nearly every other damage, before memory is taken for the whole. Then its sha256, over the bytes
// that are given back: it finds whatever keeps the sum as well. Throws as `read_engine_facts`.
std::vector<uint8_t> read_engine(const std::string& path, const EngineFileFacts& facts);

}  // namespace fastmrigan
