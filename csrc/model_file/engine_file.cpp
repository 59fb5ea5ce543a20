#include "model_file/engine_file.h"

#include <sys/stat.h>
#include <unistd.h>

#include <stdexcept>
#include <string_view>

#include "core/error.h"
#include "include/fastmrigan.h"
#include "model_file/json.h"
#include "model_file/sha256.h"

namespace fastmrigan {
namespace {

constexpr double MAX_BATCH = 4096;
constexpr size_t MAX_SIDECAR = 1 << 20;  // bytes; they have a few thousand

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

  bool is_whole(const char* field, size_t expected) const {
    const auto& number = need<Json::Number>(field, "a number");
    return number.whole && number.value == static_cast<double>(expected);
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

// Whoever can write to an engine can have anything executed.
void check_private(const std::string& path) {
  struct stat status{};
  if (stat(path.c_str(), &status) != 0) return;  // reading it has said so, or will
  // A pipe would be waited for.
  if (!S_ISREG(status.st_mode))
    throw Error(FMG_ERROR_MODEL, path + ": is no plain file; name an engine that export has built");
  if ((status.st_mode & (S_IWGRP | S_IWOTH)) != 0)
    throw Error(FMG_ERROR_MODEL, path +
                                     ": others may write to it, and an engine is executable; build "
                                     "it again, or chmod 600 it where you trust it");
  if (status.st_uid != 0 && status.st_uid != geteuid())
    throw Error(FMG_ERROR_MODEL,
                path + ": belongs to another user, and an engine is executable; build your own");
}

}  // namespace

EngineFileFacts check_engine_file(const std::string& path, const uint8_t* data, size_t size) {
  const std::string name = path + ".json";
  check_private(path);
  check_private(name);
  const std::vector<uint8_t> bytes = read_file(name, "the sidecar of an engine");
  if (bytes.size() > MAX_SIDECAR)
    throw Error(FMG_ERROR_MODEL,
                name + ": is no engine's sidecar (over 1 MiB); build the engine again");
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  const Json json = read_json(name, text);
  const Sidecar sidecar(name, json);
  if (sidecar.text("kind") != "fastmrigan-engine") sidecar.wrong("kind", "no engine of ours");
  if (!sidecar.is_whole("schema_version", 1))
    sidecar.wrong("schema_version", "this fastmrigan knows 1");
  check_seal(name, text);
  const auto refuse = [&](const std::string& what) { return Error(FMG_ERROR_MODEL, path + what); };
  if (!sidecar.is_whole("size", size))
    throw refuse(": is not the " + name + " engine: it has " + std::to_string(size) +
                 " bytes; build it again");
  Sha256 sha256;
  sha256.update(data, size);
  const std::string found = sha256.hex(), &expected = sidecar.text("engine_sha256");
  if (found != expected)
    throw refuse(": damaged or altered (sha256 " + found.substr(0, 12) + "…, expected " +
                 expected.substr(0, 12) + "…); build it again");
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
  return facts;
}

}  // namespace fastmrigan
