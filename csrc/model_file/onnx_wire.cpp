#include "model_file/onnx_wire.h"

#include <stdexcept>
#include <string_view>

#include "model_file/sha256.h"

namespace fastmrigan {
namespace {

constexpr int MAX_DEPTH = 64;
constexpr uint64_t MODEL_GRAPH = 7, MODEL_METADATA = 14, ENTRY_KEY = 1, ENTRY_VALUE = 2;
constexpr uint64_t TENSOR_EXTERNAL_DATA = 13, TENSOR_DATA_LOCATION = 14;

[[noreturn]] void malformed(const char* what) { throw std::invalid_argument(what); }

enum Wire : uint32_t { VARINT = 0, FIXED64 = 1, BYTES = 2, FIXED32 = 5 };

struct Field {
  uint64_t number;
  uint32_t wire;
  uint64_t value;                  // of a VARINT
  const uint8_t* begin = nullptr;  // of any other
  const uint8_t* end = nullptr;
};

// The fields of one message, in order.
class Message {
 public:
  Message(const uint8_t* begin, const uint8_t* end) : at_(begin), end_(end) {}

  const uint8_t* at() const { return at_; }

  bool next(Field& field) {
    if (at_ == end_) return false;
    const uint64_t tag = varint();
    field = {tag >> 3, static_cast<uint32_t>(tag & 7), 0};
    if (field.wire == VARINT) {
      field.value = varint();
    } else {
      uint64_t size = 0;
      if (field.wire == BYTES)
        size = varint();
      else if (field.wire == FIXED64 || field.wire == FIXED32)
        size = field.wire == FIXED64 ? 8 : 4;
      else
        malformed("unknown wire type");
      if (size > static_cast<uint64_t>(end_ - at_)) malformed("it ends in the middle of a field");
      field.begin = at_;
      at_ += size;
      field.end = at_;
    }
    if (field.number == 0) malformed("field number 0");
    return true;
  }

 private:
  uint64_t varint() {
    uint64_t result = 0;
    for (int shift = 0; shift <= 63; shift += 7) {
      if (at_ == end_) malformed("it ends in the middle of a number");
      const uint8_t byte = *at_++;
      if (shift == 63 && byte > 1) malformed("a number of more than 64 bits");
      result |= uint64_t{byte & 0x7Fu} << shift;
      if (byte < 0x80) return result;
    }
    malformed("a number of more than 64 bits");
  }

  const uint8_t* at_;
  const uint8_t* end_;
};

enum class Kind { none, training, function, graph, node, attribute, sparse, tensor };

// Which fields of a message hold another message that can lead to a tensor.
Kind nested(Kind kind, uint64_t number) {
  switch (kind) {
    case Kind::none:
      return Kind::none;
    case Kind::training:
      return number == 1 || number == 2 ? Kind::graph : Kind::none;
    case Kind::function:
      return number == 7 ? Kind::node : number == 11 ? Kind::attribute : Kind::none;
    case Kind::graph:
      return number == 1    ? Kind::node
             : number == 5  ? Kind::tensor
             : number == 15 ? Kind::sparse
                            : Kind::none;
    case Kind::node:
      return number == 5 ? Kind::attribute : Kind::none;
    case Kind::attribute:
      switch (number) {
        case 5:
        case 10:
          return Kind::tensor;
        case 6:
        case 11:
          return Kind::graph;
        case 22:
        case 23:
          return Kind::sparse;
        default:
          return Kind::none;
      }
    case Kind::sparse:
      return number == 1 || number == 2 ? Kind::tensor : Kind::none;
    case Kind::tensor:
      return Kind::none;
  }
  return Kind::none;
}

bool external(const Field& message, Kind kind, int depth) {
  if (depth > MAX_DEPTH) malformed("graphs nested too deep");
  Message fields(message.begin, message.end);
  for (Field field; fields.next(field);) {
    if (kind == Kind::tensor) {
      if (field.number == TENSOR_EXTERNAL_DATA ||
          (field.number == TENSOR_DATA_LOCATION && field.value == 1))
        return true;
    } else if (field.wire == BYTES) {
      const Kind inner = nested(kind, field.number);
      if (inner != Kind::none && external(field, inner, depth + 1)) return true;
    }
  }
  return false;
}

std::string_view text(const Field& field) {
  return {reinterpret_cast<const char*>(field.begin), static_cast<size_t>(field.end - field.begin)};
}

void read_entry(const Field& entry, std::optional<std::string>& metadata) {
  std::string_view key, value;
  Message fields(entry.begin, entry.end);
  for (Field field; fields.next(field);) {
    if (field.wire == VARINT) continue;
    if (field.number == ENTRY_KEY) key = text(field);
    if (field.number == ENTRY_VALUE) value = text(field);
  }
  if (key == "fastmrigan") metadata = std::string(value);
}

}  // namespace

OnnxFacts read_onnx(const uint8_t* data, size_t size) {
  OnnxFacts facts;
  Sha256 total;
  bool has_graph = false;
  Message fields(data, data + size);
  const uint8_t* start = data;
  for (Field field; fields.next(field); start = fields.at()) {
    has_graph |= field.number == MODEL_GRAPH;
    if (field.number == MODEL_METADATA) {
      if (field.wire != VARINT) read_entry(field, facts.metadata);
      continue;
    }
    total.update(start, static_cast<size_t>(fields.at() - start));
    if (field.wire != BYTES) continue;
    const Kind kind = field.number == MODEL_GRAPH ? Kind::graph
                      : field.number == 20        ? Kind::training
                      : field.number == 25        ? Kind::function
                                                  : Kind::none;
    if (kind != Kind::none) facts.external_data |= external(field, kind, 1);
  }
  if (!has_graph) malformed("it holds no graph");
  facts.graph_sha256 = total.hex();
  return facts;
}

}  // namespace fastmrigan
