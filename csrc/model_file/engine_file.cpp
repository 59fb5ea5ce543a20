#include "model_file/engine_file.h"

#include <endian.h>

#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <string_view>

#include "core/error.h"
#include "include/fastmrigan.h"
#include "model_file/json.h"
#include "model_file/private_file.h"
#include "model_file/sha256.h"

namespace fastmrigan {
namespace {

constexpr double MAX_BATCH = 4096;
constexpr double MAX_SIZE = 9007199254740992;  // bytes; a double holds every smaller whole number
constexpr size_t MAX_SIDECAR = 1 << 20;        // bytes; they have a few thousand
constexpr size_t PIECE = 1 << 18;              // bytes; it stays in a core's own cache

// Reads fields of the sidecar and names the one that is wrong.
class Sidecar {
 public:
  Sidecar(const std::string& name, const Json& json) : name_(name), json_(json) {}

  [[noreturn]] void wrong(const std::string& field, const std::string& what) const {
    throw Error(FMG_ERROR_MODEL,
                name_ + ": wrong at " + field + ": " + what + "; build the engine again");
  }

  template <typename T>
  const T& need(const char* field, const char* kind) const {
    const Json* found = json_.at(field);
    const T* value = found == nullptr ? nullptr : found->as<T>();
    if (value == nullptr) wrong(field, std::string("expected ") + kind);
    return *value;
  }

  const std::string& text(const char* field) const { return need<std::string>(field, "text"); }

  size_t whole(const char* field) const {
    const auto& number = need<Json::Number>(field, "a number");
    if (!number.whole || number.value < 0 || number.value > MAX_SIZE)
      wrong(field, "expected a whole number");
    return static_cast<size_t>(number.value);
  }

  std::vector<int32_t> buckets() const {
    std::vector<int32_t> found;
    for (const Json& entry : need<Json::Array>("buckets", "batch sizes")) {
      const auto* number = entry.as<Json::Number>();
      const double least = found.empty() ? 1 : found.back() + 1;
      if (number == nullptr || !number->whole || number->value < least || number->value > MAX_BATCH)
        wrong("buckets", "expected rising batch sizes");
      found.push_back(static_cast<int32_t>(number->value));
    }
    if (found.empty()) wrong("buckets", "expected rising batch sizes");
    return found;
  }

 private:
  const std::string& name_;
  const Json& json_;
};

Json read_json(const std::string& name, std::string_view text) {
  try {
    return parse_json(text);
  } catch (const std::invalid_argument& error) {
    throw Error(FMG_ERROR_MODEL,
                name + ": not JSON (" + error.what() + "); build the engine again");
  }
}

// The sidecar ends in a sha256 of what it would be without it.
void check_seal(const std::string& name, std::string_view text) {
  constexpr std::string_view KEY = ",\n \"sidecar_sha256\": \"", END = "\n}";
  const size_t place = text.rfind(KEY);
  if (place != std::string_view::npos) {
    Sha256 sha256;
    for (const std::string_view part : {text.substr(0, place), END})
      sha256.update(reinterpret_cast<const uint8_t*>(part.data()), part.size());
    if (text.substr(place + KEY.size()) == sha256.hex() + "\"\n}\n") return;
  }
  throw Error(FMG_ERROR_MODEL, name +
                                   ": is not as it was written (sidecar_sha256 does not hold): "
                                   "damaged or altered; build the engine again");
}

void check_size(const std::string& path, size_t size, size_t expected) {
  if (size != expected)
    throw Error(FMG_ERROR_MODEL, path + ": has " + (size < expected ? "less" : "more") +
                                     " than the " + std::to_string(expected) +
                                     " bytes that its sidecar states: damaged or altered; build it "
                                     "again");
}

// In 16 hexadecimal digits: words are little-endian, and the last is filled up with zeros.
std::string sum64(const PrivateFile& file, size_t size) {
  std::vector<uint8_t> piece(PIECE);
  uint64_t sum = 0;
  for (size_t first = 0; first < size; first += PIECE) {
    const size_t got = file.read(first, piece.data(), std::min(PIECE, size - first));
    std::fill(piece.begin() + static_cast<std::ptrdiff_t>(got), piece.end(), uint8_t{0});
    for (size_t i = 0; i < PIECE; i += sizeof(uint64_t)) {
      uint64_t word;
      std::memcpy(&word, piece.data() + i, sizeof word);
      sum += le64toh(word);
    }
  }
  std::string text;
  for (int shift = 60; shift >= 0; shift -= 4) text += "0123456789abcdef"[sum >> shift & 15];
  return text;
}

void check_sum(const std::string& path, const char* of, const std::string& found,
               const std::string& expected) {
  if (found != expected)  // a sum64 has 16 digits
    throw Error(FMG_ERROR_MODEL, path + ": is not the engine that was built (" + of + " " +
                                     found.substr(0, 16) + ", expected " + expected.substr(0, 16) +
                                     "): damaged or altered; build it again");
}

}  // namespace

EngineFileFacts read_engine_facts(const std::string& path) {
  const std::string name = path + ".json";
  const PrivateFile engine(path, "the engine file");
  const PrivateFile file(name, "the sidecar of an engine");
  if (file.size() > MAX_SIDECAR)
    throw Error(FMG_ERROR_MODEL,
                name + ": is no engine's sidecar (over 1 MiB); build the engine again");
  std::vector<uint8_t> bytes(file.size());
  bytes.resize(file.read(0, bytes.data(), bytes.size()));
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  const Json json = read_json(name, text);
  const Sidecar sidecar(name, json);
  if (sidecar.text("kind") != "fastmrigan-engine") sidecar.wrong("kind", "no engine of ours");
  if (sidecar.whole("schema_version") != 1)
    sidecar.wrong("schema_version", "this fastmrigan knows 1");
  check_seal(name, text);

  const auto refuse = [&](const std::string& what) { return Error(FMG_ERROR_MODEL, path + what); };
  if (sidecar.text("package") != "tensorrt")
    throw refuse(": was built by " + sidecar.text("package") +
                 ", whose engines TensorRT does not run; build it with `fastmrigan export --engine "
                 "tensorrt`");
  const Json* plugin = json.at("plugin");
  if (plugin != nullptr && plugin->as<std::nullptr_t>() == nullptr)
    throw refuse(
        ": needs the plugin it was built with, which the C library does not load; build it without "
        "--plugin");

  EngineFileFacts facts;
  const Json* model = json.at("model");
  if (model == nullptr) sidecar.wrong("model", "missing");
  facts.model = read_metadata(name, *model);
  if (sidecar.text("precision") != facts.model.precision)
    sidecar.wrong("precision", "its model is in " + facts.model.precision);
  facts.tensorrt_version = sidecar.text("version");
  facts.compute_capability = sidecar.text("compute_capability");
  facts.version_compatible = sidecar.need<bool>("version_compatible", "true or false");
  facts.buckets = sidecar.buckets();
  facts.input = sidecar.text("input");
  facts.output = sidecar.text("output");
  facts.size = sidecar.whole("size");
  facts.sum64 = sidecar.text("engine_sum64");
  facts.sha256 = sidecar.text("engine_sha256");
  check_size(path, engine.size(), facts.size);
  return facts;
}

std::vector<uint8_t> read_engine(const std::string& path, const EngineFileFacts& facts) {
  const PrivateFile file(path, "the engine file");
  check_size(path, file.size(), facts.size);
  check_sum(path, "sum64", sum64(file, facts.size), facts.sum64);
  std::vector<uint8_t> engine(facts.size);
  engine.resize(file.read(0, engine.data(), engine.size()));
  Sha256 sha256;
  sha256.update(engine.data(), engine.size());
  check_sum(path, "sha256", sha256.hex(), facts.sha256);
  return engine;
}

}  // namespace fastmrigan
