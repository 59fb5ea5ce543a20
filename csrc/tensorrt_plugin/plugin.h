// Instance norm and its activation as one layer of a TensorRT network, over the CUDA kernels of
// instance_norm/.
//
//   inputs   x [N, C, ...], scale [C] and bias [C] in float32
//   output   y like x
//
// x and y are float32, float16 or bfloat16; the statistics are float32. Linear tensors, and where
// they hold no padding those with the channels last: kHWC, and kHWC8 of a multiple of 8 channels.
#pragma once

#include <NvInferRuntime.h>

#include <string>
#include <vector>

#include "tensorrt_plugin/fields.h"

namespace fastmrigan::plugin {

static_assert(NV_TENSORRT_MAJOR >= 10, "IPluginV3 came with TensorRT 10");

// By these three TensorRT finds the plugin (export/plugin.py writes them into the graph).
constexpr const char* kName = "FastmriganInstanceNorm";
constexpr const char* kVersion = "1";
constexpr const char* kNamespace = "fastmrigan";

class InstanceNormPlugin final : public nvinfer1::IPluginV3,
                                 public nvinfer1::IPluginV3OneCore,
                                 public nvinfer1::IPluginV3OneBuild,
                                 public nvinfer1::IPluginV3OneRuntime {
 public:
  explicit InstanceNormPlugin(const Fields& fields);

  nvinfer1::IPluginCapability* getCapabilityInterface(
      nvinfer1::PluginCapabilityType type) noexcept override;
  nvinfer1::IPluginV3* clone() noexcept override;

  const char* getPluginName() const noexcept override { return kName; }
  const char* getPluginVersion() const noexcept override { return kVersion; }
  const char* getPluginNamespace() const noexcept override { return kNamespace; }

  int32_t getNbOutputs() const noexcept override { return 1; }
  int32_t getOutputDataTypes(nvinfer1::DataType* outputs, int32_t output_count,
                             const nvinfer1::DataType* inputs,
                             int32_t input_count) const noexcept override;
  int32_t getOutputShapes(const nvinfer1::DimsExprs* inputs, int32_t input_count,
                          const nvinfer1::DimsExprs* shapes, int32_t shape_count,
                          nvinfer1::DimsExprs* outputs, int32_t output_count,
                          nvinfer1::IExprBuilder& builder) noexcept override;
  bool supportsFormatCombination(int32_t position, const nvinfer1::DynamicPluginTensorDesc* tensors,
                                 int32_t input_count, int32_t output_count) noexcept override;
  int32_t configurePlugin(const nvinfer1::DynamicPluginTensorDesc* inputs, int32_t input_count,
                          const nvinfer1::DynamicPluginTensorDesc* outputs,
                          int32_t output_count) noexcept override;
  size_t getWorkspaceSize(const nvinfer1::DynamicPluginTensorDesc* inputs, int32_t input_count,
                          const nvinfer1::DynamicPluginTensorDesc* outputs,
                          int32_t output_count) const noexcept override;
  const char* getTimingCacheID() noexcept override { return description_.c_str(); }
  const char* getMetadataString() noexcept override { return description_.c_str(); }

  int32_t onShapeChange(const nvinfer1::PluginTensorDesc* inputs, int32_t input_count,
                        const nvinfer1::PluginTensorDesc* outputs,
                        int32_t output_count) noexcept override;
  int32_t enqueue(const nvinfer1::PluginTensorDesc* input_descriptions,
                  const nvinfer1::PluginTensorDesc* output_descriptions, const void* const* inputs,
                  void* const* outputs, void* workspace, cudaStream_t stream) noexcept override;
  nvinfer1::IPluginV3* attachToContext(nvinfer1::IPluginResourceContext* context) noexcept override;
  const nvinfer1::PluginFieldCollection* getFieldsToSerialize() noexcept override;

 private:
  const Fields fields_;
  const std::string description_;
  const std::vector<nvinfer1::PluginField> serialised_;  // points into fields_
  const nvinfer1::PluginFieldCollection collection_;
};

}  // namespace fastmrigan::plugin
