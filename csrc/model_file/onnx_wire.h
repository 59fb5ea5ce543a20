// The few facts that are read from an .onnx file before a backend sees it; the same walk as
// fastmrigan/runtime/onnx_wire.py. Field numbers are those of onnx.proto3; the wire format is
// https://protobuf.dev/programming-guides/encoding/.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>

namespace fastmrigan {

struct OnnxFacts {
  std::optional<std::string> metadata;  // the document under the key `fastmrigan`
  std::string graph_sha256;             // over every other top-level field, whole, in file order
  bool external_data = false;           // a tensor keeps its values in another file
};

// Throws std::invalid_argument where the bytes are not a well-formed ONNX model.
OnnxFacts read_onnx(const uint8_t* data, size_t size);

}  // namespace fastmrigan
