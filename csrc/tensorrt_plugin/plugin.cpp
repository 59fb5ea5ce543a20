#include "tensorrt_plugin/plugin.h"

#include <stdexcept>

#include "tensorrt_plugin/report.h"

namespace fastmrigan::plugin {

namespace {

using nvinfer1::DataType;
using nvinfer1::Dims;
using nvinfer1::DimsExprs;
using nvinfer1::DynamicPluginTensorDesc;
using nvinfer1::PluginTensorDesc;
using nvinfer1::TensorFormat;

enum Input { kX = 0, kScale = 1, kBias = 2, kInputs = 3 };

[[noreturn]] void refuse(const std::string& text) {
  throw std::invalid_argument(std::string(kName) + ": " + text);
}

bool is_stored(DataType type) {
  return type == DataType::kFLOAT || type == DataType::kHALF || type == DataType::kBF16;
}

Dtype dtype_of(DataType type) {
  return type == DataType::kFLOAT  ? Dtype::float32
         : type == DataType::kHALF ? Dtype::float16
                                   : Dtype::bfloat16;
}

// Whether the kernels read a tensor of this format: its elements must stand without padding.
bool is_read(const PluginTensorDesc& x) {
  const bool four = x.dims.nbDims == 4;  // of such formats the channels are the third to last
  switch (x.format) {
    case TensorFormat::kLINEAR:
      return is_stored(x.type);
    case TensorFormat::kHWC:
      return four && x.type == DataType::kFLOAT;
    case TensorFormat::kHWC8:
      return four && (x.type == DataType::kHALF || x.type == DataType::kBF16) && x.dims.d[1] > 0 &&
             x.dims.d[1] % 8 == 0;
    default:
      return false;
  }
}

void require_counts(int32_t inputs, int32_t outputs) {
  if (inputs != kInputs || outputs != 1)
    refuse("expected the inputs x, scale and bias and one output, got " + std::to_string(inputs) +
           " inputs and " + std::to_string(outputs) + " outputs");
}

void require_ranks(int32_t x, int32_t scale, int32_t bias) {
  if (x < 3 || scale != 1 || bias != 1)
    refuse("expected x [N, C, ...] of at least 3 axes, scale [C] and bias [C], got " +
           std::to_string(x) + ", " + std::to_string(scale) + " and " + std::to_string(bias) +
           " axes");
}

void require_channels(int64_t x, int64_t scale, int64_t bias) {
  if (scale != x || bias != x)
    refuse("expected scale and bias of x's " + std::to_string(x) + " channels, got " +
           std::to_string(scale) + " and " + std::to_string(bias));
}

int64_t plane_of(const Dims& dims) {
  int64_t plane = 1;
  for (int32_t axis = 2; axis < dims.nbDims; ++axis) plane *= dims.d[axis];
  return plane;
}

}  // namespace

InstanceNormPlugin::InstanceNormPlugin(const Fields& fields)
    : fields_(fields),
      description_(describe(fields)),
      serialised_(pointers_to(fields_)),
      collection_{static_cast<int32_t>(serialised_.size()), serialised_.data()} {}

nvinfer1::IPluginCapability* InstanceNormPlugin::getCapabilityInterface(
    nvinfer1::PluginCapabilityType type) noexcept {
  switch (type) {
    case nvinfer1::PluginCapabilityType::kCORE:
      return static_cast<IPluginV3OneCore*>(this);
    case nvinfer1::PluginCapabilityType::kBUILD:
      return static_cast<IPluginV3OneBuild*>(this);
    case nvinfer1::PluginCapabilityType::kRUNTIME:
      return static_cast<IPluginV3OneRuntime*>(this);
  }
  return nullptr;
}

nvinfer1::IPluginV3* InstanceNormPlugin::clone() noexcept {
  InstanceNormPlugin* made = nullptr;
  guarded([&] { made = new InstanceNormPlugin(fields_); });
  return made;
}

int32_t InstanceNormPlugin::getOutputDataTypes(DataType* outputs, int32_t output_count,
                                               const DataType* inputs,
                                               int32_t input_count) const noexcept {
  return guarded([&] {
    require_counts(input_count, output_count);
    if (!is_stored(inputs[kX]) || inputs[kScale] != DataType::kFLOAT ||
        inputs[kBias] != DataType::kFLOAT)
      refuse("expected x in float32, float16 or bfloat16, scale and bias in float32");
    outputs[0] = inputs[kX];
  });
}

int32_t InstanceNormPlugin::getOutputShapes(const DimsExprs* inputs, int32_t input_count,
                                            const DimsExprs*, int32_t, DimsExprs* outputs,
                                            int32_t output_count,
                                            nvinfer1::IExprBuilder&) noexcept {
  return guarded([&] {
    require_counts(input_count, output_count);
    require_ranks(inputs[kX].nbDims, inputs[kScale].nbDims, inputs[kBias].nbDims);
    const auto *channels = inputs[kX].d[1], *scale = inputs[kScale].d[0],
               *bias = inputs[kBias].d[0];
    if (channels->isConstant() && scale->isConstant() && bias->isConstant())
      require_channels(channels->getConstantValue(), scale->getConstantValue(),
                       bias->getConstantValue());
    outputs[0] = inputs[kX];
  });
}

bool InstanceNormPlugin::supportsFormatCombination(int32_t position,
                                                   const DynamicPluginTensorDesc* tensors,
                                                   int32_t input_count,
                                                   int32_t output_count) noexcept {
  if (input_count != kInputs || output_count != 1) return false;
  const PluginTensorDesc& asked = tensors[position].desc;
  if (position == kX) return is_read(asked);
  if (position == kScale || position == kBias)
    return asked.type == DataType::kFLOAT && asked.format == TensorFormat::kLINEAR;
  const PluginTensorDesc& x = tensors[kX].desc;
  return asked.type == x.type && asked.format == x.format;
}

int32_t InstanceNormPlugin::configurePlugin(const DynamicPluginTensorDesc* inputs,
                                            int32_t input_count, const DynamicPluginTensorDesc*,
                                            int32_t output_count) noexcept {
  return guarded([&] {
    require_counts(input_count, output_count);
    require_ranks(inputs[kX].desc.dims.nbDims, inputs[kScale].desc.dims.nbDims,
                  inputs[kBias].desc.dims.nbDims);
  });
}

// The kernels leave the statistics of every plane, which training's backward reads.
size_t InstanceNormPlugin::getWorkspaceSize(const DynamicPluginTensorDesc* inputs, int32_t,
                                            const DynamicPluginTensorDesc*,
                                            int32_t) const noexcept {
  const Dims& most = inputs[kX].max;
  return 3 * sizeof(float) * static_cast<size_t>(most.d[0]) * static_cast<size_t>(most.d[1]);
}

int32_t InstanceNormPlugin::onShapeChange(const PluginTensorDesc* inputs, int32_t input_count,
                                          const PluginTensorDesc*, int32_t output_count) noexcept {
  return guarded([&] {
    require_counts(input_count, output_count);
    require_ranks(inputs[kX].dims.nbDims, inputs[kScale].dims.nbDims, inputs[kBias].dims.nbDims);
    require_channels(inputs[kX].dims.d[1], inputs[kScale].dims.d[0], inputs[kBias].dims.d[0]);
  });
}

int32_t InstanceNormPlugin::enqueue(const PluginTensorDesc* input_descriptions,
                                    const PluginTensorDesc*, const void* const* inputs,
                                    void* const* outputs, void* workspace,
                                    cudaStream_t stream) noexcept {
  return guarded([&] {
    const PluginTensorDesc& x = input_descriptions[kX];
    InstanceNormForward call{};
    call.batch = x.dims.d[0];
    call.channels = x.dims.d[1];
    call.plane = plane_of(x.dims);
    if (call.batch == 0 || call.channels == 0 || call.plane == 0) return;
    call.channels_last = x.format != TensorFormat::kLINEAR;
    call.dtype = dtype_of(x.type);
    call.activation = fields_.activation;
    call.slope = fields_.slope;
    call.eps = fields_.epsilon;
    call.weight = static_cast<const float*>(inputs[kScale]);
    call.bias = static_cast<const float*>(inputs[kBias]);
    call.x = inputs[kX];
    call.y = outputs[0];
    call.x_strides = {call.channels * call.plane, call.channels_last ? call.channels : call.plane};
    call.y_strides = call.x_strides;
    call.statistics = static_cast<float*>(workspace);
    instance_norm_forward_cuda(call, stream);
  });
}

nvinfer1::IPluginV3* InstanceNormPlugin::attachToContext(
    nvinfer1::IPluginResourceContext*) noexcept {
  return clone();
}

const nvinfer1::PluginFieldCollection* InstanceNormPlugin::getFieldsToSerialize() noexcept {
  return &collection_;
}

}  // namespace fastmrigan::plugin
