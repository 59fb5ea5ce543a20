#include "model_file/model_file.h"

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <memory>

#include "core/error.h"
#include "include/fastmrigan.h"
#include "model_file/json.h"
#include "model_file/onnx_wire.h"

namespace fastmrigan {
namespace {

constexpr int SCHEMA_VERSION = 1;
constexpr size_t MAX_FILE = (size_t{1} << 31) - 1;  // bytes: what a protobuf message may have
constexpr double MAX_SIDE = 16384;                  // pixels
constexpr double MAX_LATENT = 1 << 20;

// Reads fields of one document and names the one that is wrong.
class Document {
 public:
  Document(const std::string& name, const Json& json) : name_(name), json_(json) {}

  [[noreturn]] void wrong(const std::string& field, const std::string& what) const {
    throw Error(FMG_ERROR_MODEL, name_ + ": its fastmrigan metadata is wrong at " + field + ": " +
                                     what + "; export it again");
  }

  const Json& need(const char* field) const {
    const Json* found = json_.at(field);
    if (found == nullptr) wrong(field, "missing");
    return *found;
  }

  std::string text(const char* field) const {
    const auto* found = need(field).as<std::string>();
    if (found == nullptr) wrong(field, "expected text");
    return *found;
  }

  // "" where it is absent or null.
  std::string optional_text(const char* field) const {
    const Json* found = json_.at(field);
    return found == nullptr || found->as<std::nullptr_t>() ? "" : text(field);
  }

  int32_t whole(const std::string& field, const Json* json, double max) const {
    const auto* number = json == nullptr ? nullptr : json->as<Json::Number>();
    if (number == nullptr || !number->whole || number->value < 1 || number->value > max)
      wrong(field, "expected a whole number from 1 to " + std::to_string(std::llround(max)));
    return static_cast<int32_t>(number->value);
  }

 private:
  const std::string& name_;
  const Json& json_;
};

std::optional<GradingRule> read_rule(const Json& grading) {
  const Json* method = grading.at("method");
  const auto* name = method == nullptr ? nullptr : method->as<std::string>();
  if (name == nullptr) return std::nullopt;
  if (*name == "minmax") return GradingRule{GradingRule::Method::minmax, 0, 0};
  if (*name != "percentile" && *name != "window") return std::nullopt;
  const bool percentile = *name == "percentile";
  const Json *low = grading.at("low"), *high = grading.at("high");
  if (low == nullptr || high == nullptr) return std::nullopt;
  const auto *first = low->as<Json::Number>(), *second = high->as<Json::Number>();
  if (first == nullptr || second == nullptr) return std::nullopt;
  const double from = first->value, to = second->value;
  if (!(from < to) || !std::isfinite(to - from)) return std::nullopt;
  if (percentile && (from < 0 || to > 100)) return std::nullopt;
  return GradingRule{percentile ? GradingRule::Method::percentile : GradingRule::Method::window,
                     from, to};
}

// The lower of what OpenVINO in bf16 reached on random inputs and on real slices.
std::optional<double> read_bf16(const Document& document, const Json& parity) {
  if (parity.as<Json::Object>() == nullptr) document.wrong("parity", "expected an object");
  const Json* real = parity.at("real_slices");
  if (real != nullptr && real->as<Json::Object>() == nullptr)
    document.wrong("parity", "real_slices: expected an object");
  std::optional<double> least;
  for (const Json* figures : {&parity, real}) {
    const Json* engine = figures == nullptr ? nullptr : figures->at("openvino-bf16");
    if (engine == nullptr) continue;
    const Json* measured = engine->at("psnr_db");
    const auto* number = measured == nullptr ? nullptr : measured->as<Json::Number>();
    if (number == nullptr || !std::isfinite(number->value))  // NaN would pass for the higher one
      document.wrong("parity", "openvino-bf16 states no psnr_db");
    least = least ? std::min(*least, number->value) : number->value;
  }
  return least;
}

Json parse(const std::string& name, const std::string& text) {
  try {
    return parse_json(text);
  } catch (const std::invalid_argument& error) {
    throw Error(FMG_ERROR_MODEL,
                name + ": its fastmrigan metadata is not JSON (" + error.what() + ")");
  }
}

OnnxFacts read_facts(const std::string& name, const uint8_t* data, size_t size) {
  try {
    return read_onnx(data, size);
  } catch (const std::invalid_argument& error) {
    throw Error(FMG_ERROR_MODEL,
                name + ": not a whole ONNX file (" + error.what() + "); export it again");
  }
}

void check_schema(const std::string& name, const Document& document, const Json& json) {
  const Json* field = json.at("schema_version");
  if (field == nullptr) return;  // its default is 1
  const auto* version = field->as<Json::Number>();
  if (version != nullptr && version->whole && version->value > SCHEMA_VERSION)
    throw Error(FMG_ERROR_MODEL, name + ": its metadata has schema version " +
                                     std::to_string(std::llround(std::min(version->value, 1e15))) +
                                     ", this fastmrigan knows up to " +
                                     std::to_string(SCHEMA_VERSION) + "; upgrade fastmrigan");
  if (version == nullptr || version->value != SCHEMA_VERSION)
    document.wrong("schema_version", "expected 1");
}

}  // namespace

std::vector<uint8_t> read_file(const std::string& path) {
  const auto refuse = [&](int reason) {
    return Error(FMG_ERROR_FILE, path + ": cannot read the model file: " + std::strerror(reason));
  };
  errno = 0;
  const std::unique_ptr<FILE, int (*)(FILE*)> file(std::fopen(path.c_str(), "rb"), std::fclose);
  if (!file) throw refuse(errno);
  std::vector<uint8_t> data;
  size_t got = 0;
  do {
    const size_t before = data.size();
    data.resize(before + std::max(before, size_t{1} << 20));  // doubles: few copies
    got = std::fread(data.data() + before, 1, data.size() - before, file.get());
    data.resize(before + got);
    if (data.size() > MAX_FILE)
      throw Error(FMG_ERROR_MODEL, path + ": larger than 2 GiB, which no ONNX file is");
  } while (got > 0);
  if (std::ferror(file.get())) throw refuse(errno);
  return data;
}

ModelFacts read_metadata(const std::string& name, const Json& json) {
  const Document document(name, json);
  if (json.as<Json::Object>() == nullptr) document.wrong("document", "expected an object");
  check_schema(name, document, json);

  ModelFacts facts;
  const std::string task = document.text("task");
  if (task != "sample" && task != "translate")
    document.wrong("task", "expected sample or translate");
  facts.task = task == "sample" ? Task::sample : Task::translate;
  const auto* side = document.need("slice_size").as<Json::Array>();
  if (side == nullptr || side->size() != 2)
    document.wrong("slice_size", "expected [height, width]");
  facts.height = document.whole("slice_size.0", &(*side)[0], MAX_SIDE);
  facts.width = document.whole("slice_size.1", &(*side)[1], MAX_SIDE);
  if (facts.task == Task::sample)
    facts.latent_size = document.whole("latent_size", json.at("latent_size"), MAX_LATENT);
  facts.recipe = document.text("recipe");
  if (json.at("precision") != nullptr) facts.precision = document.text("precision");
  if (facts.precision != "fp32" && facts.precision != "bf16" && facts.precision != "fp16" &&
      facts.precision != "int8")
    document.wrong("precision", "expected fp32, bf16, fp16 or int8");
  facts.source_contrast = document.optional_text("source_contrast");
  facts.target_contrast = document.optional_text("target_contrast");
  facts.rule = read_rule(document.need("grading"));
  facts.bf16_db = read_bf16(document, document.need("parity"));
  facts.graph_sha256 = document.text("graph_sha256");
  return facts;
}

ModelFacts check_model(const std::string& name, const uint8_t* data, size_t size) {
  const OnnxFacts onnx = read_facts(name, data, size);
  if (onnx.external_data)
    throw Error(FMG_ERROR_MODEL,
                name +
                    ": keeps weights in another file (ONNX external data), which is never "
                    "loaded; export it again with `fastmrigan export`");
  if (!onnx.metadata)
    throw Error(FMG_ERROR_MODEL, name +
                                     ": has no fastmrigan metadata; write model files with "
                                     "`fastmrigan export`");
  ModelFacts facts = read_metadata(name, parse(name, *onnx.metadata));
  if (facts.graph_sha256 != onnx.graph_sha256)
    throw Error(FMG_ERROR_MODEL, name + ": its graph is not the one that was exported (sha256 " +
                                     onnx.graph_sha256.substr(0, 12) + "…, expected " +
                                     facts.graph_sha256.substr(0, 12) +
                                     "…): damaged or altered; export it again");
  return facts;
}

}  // namespace fastmrigan
