#include "tensorrt_plugin/fields.h"

#include <cmath>
#include <cstdio>
#include <cstring>
#include <stdexcept>

namespace fastmrigan::plugin {

namespace {

using nvinfer1::PluginField;
using nvinfer1::PluginFieldType;

constexpr Activation kActivations[] = {Activation::none, Activation::relu, Activation::leaky_relu};

[[noreturn]] void refuse(const std::string& field, const std::string& text) {
  throw std::invalid_argument("field " + field + ": " + text);
}

std::string text_of(float value) {
  char text[32];
  std::snprintf(text, sizeof(text), "%g", static_cast<double>(value));
  return text;
}

void require_type(const PluginField& field, PluginFieldType type, const char* expected) {
  if (field.type != type || field.data == nullptr)
    refuse(field.name, std::string("expected ") + expected + ", got a field of type " +
                           std::to_string(static_cast<int>(field.type)) +
                           (field.data == nullptr ? " without data" : ""));
}

float number(const PluginField& field) {
  require_type(field, PluginFieldType::kFLOAT32, "one float32");
  if (field.length != 1)
    refuse(field.name, "expected one float32, got " + std::to_string(field.length));
  float value;
  std::memcpy(&value, field.data, sizeof(value));
  if (!std::isfinite(value)) refuse(field.name, "expected a finite number, got " + text_of(value));
  return value;
}

Activation activation(const PluginField& field) {
  require_type(field, PluginFieldType::kCHAR, "text");
  // The ONNX parser counts the closing null, other callers do not.
  const std::string name(static_cast<const char*>(field.data),
                         strnlen(static_cast<const char*>(field.data),
                                 field.length < 0 ? 0 : static_cast<size_t>(field.length)));
  for (const Activation each : kActivations)
    if (name == name_of(each)) return each;
  refuse(field.name, "expected none, relu or leaky_relu, got '" + name + "'");
}

}  // namespace

const char* name_of(Activation activation) {
  switch (activation) {
    case Activation::relu:
      return "relu";
    case Activation::leaky_relu:
      return "leaky_relu";
    default:
      return "none";
  }
}

std::vector<PluginField> field_names() {
  return {PluginField("epsilon", nullptr, PluginFieldType::kFLOAT32, 1),
          PluginField("activation", nullptr, PluginFieldType::kCHAR, 1),
          PluginField("slope", nullptr, PluginFieldType::kFLOAT32, 1)};
}

std::vector<PluginField> pointers_to(const Fields& fields) {
  const char* name = name_of(fields.activation);
  const auto length = static_cast<int32_t>(std::strlen(name));
  return {PluginField("epsilon", &fields.epsilon, PluginFieldType::kFLOAT32, 1),
          PluginField("activation", name, PluginFieldType::kCHAR, length),
          PluginField("slope", &fields.slope, PluginFieldType::kFLOAT32, 1)};
}

Fields read_fields(const nvinfer1::PluginFieldCollection& given) {
  Fields fields;
  for (int32_t i = 0; i < given.nbFields; ++i) {
    const PluginField& field = given.fields[i];
    const std::string name = field.name == nullptr ? "" : field.name;
    if (name == "epsilon") {
      fields.epsilon = number(field);
      if (fields.epsilon < 0) refuse(name, "expected at least 0, got " + text_of(fields.epsilon));
    } else if (name == "activation") {
      fields.activation = activation(field);
    } else if (name == "slope") {
      fields.slope = number(field);
    } else {
      throw std::invalid_argument("unknown field '" + name +
                                  "': expected epsilon, activation and slope");
    }
  }
  return fields;
}

std::string describe(const Fields& fields) {
  std::string text = "epsilon " + text_of(fields.epsilon) + ", " + name_of(fields.activation);
  if (fields.activation == Activation::leaky_relu) text += " " + text_of(fields.slope);
  return text;
}

}  // namespace fastmrigan::plugin
