// What one instance norm of a network is made with: the plugin's fields, which are the attributes
// of the operator in the graph and what an engine keeps of it.
#pragma once

#include <NvInferRuntime.h>

#include <string>
#include <vector>

#include "instance_norm/instance_norm.h"

namespace fastmrigan::plugin {

struct Fields {  // the defaults are ONNX's own
  float epsilon = 1e-5f;
  Activation activation = Activation::none;
  float slope = 0.01f;  // of leaky_relu, below zero
};

// "none", "relu" or "leaky_relu".
const char* name_of(Activation activation);

// The names and types a creator announces; they point at nothing.
std::vector<nvinfer1::PluginField> field_names();

// The same fields with values, which point into `fields`.
std::vector<nvinfer1::PluginField> pointers_to(const Fields& fields);

// Throws std::invalid_argument for a field of another name, type, length or value.
Fields read_fields(const nvinfer1::PluginFieldCollection& given);

// "epsilon 1e-05, leaky_relu 0.2"
std::string describe(const Fields& fields);

}  // namespace fastmrigan::plugin
