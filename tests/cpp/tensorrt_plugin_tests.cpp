// The TensorRT plugin without TensorRT and without a GPU: what the builder and the registry would
// ask it, and enqueue with a stand-in for the CUDA kernels that computes on the host.
#include <cmath>
#include <cstring>
#include <initializer_list>
#include <limits>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "check.h"
#include "instance_norm/instance_norm.h"
#include "tensorrt_plugin/plugin.h"

extern "C" nvinfer1::IPluginCreatorInterface* const* getCreators(int32_t& count);
extern "C" void setLoggerFinder(nvinfer1::ILoggerFinder* given);

namespace {

fastmrigan::InstanceNormForward last_call;
void* last_stream;
bool launch_fails = false;
std::string logged;

}  // namespace

// In float64, of float32 tensors; of others only the call is kept.
void fastmrigan::instance_norm_forward_cuda(const InstanceNormForward& call, void* stream) {
  last_call = call;
  last_stream = stream;
  if (launch_fails) throw std::runtime_error("instance_norm_forward_cuda: no kernel image");
  if (call.dtype != Dtype::float32) return;
  const auto* x = static_cast<const float*>(call.x);
  auto* y = static_cast<float*>(call.y);
  for (int64_t n = 0; n < call.batch; ++n) {
    for (int64_t c = 0; c < call.channels; ++c) {
      const auto at = [&](int64_t i) {
        const Strides s = call.x_strides;
        return n * s.batch_stride + (call.channels_last ? i * s.step + c : c * s.step + i);
      };
      double mean = 0, square = 0;
      for (int64_t i = 0; i < call.plane; ++i) mean += x[at(i)] / static_cast<double>(call.plane);
      for (int64_t i = 0; i < call.plane; ++i) square += std::pow(x[at(i)] - mean, 2);
      const double rstd = 1 / std::sqrt(square / static_cast<double>(call.plane) + call.eps);
      for (int64_t i = 0; i < call.plane; ++i) {
        const double z = (x[at(i)] - mean) * rstd * call.weight[c] + call.bias[c];
        const double below = call.activation == Activation::none   ? 1
                             : call.activation == Activation::relu ? 0
                                                                   : call.slope;
        y[at(i)] = static_cast<float>(z < 0 ? z * below : z);
      }
      for (int k = 0; k < 3; ++k)  // writes all that it may
        call.statistics[(k * call.batch + n) * call.channels + c] = static_cast<float>(mean);
    }
  }
}

namespace {

using fastmrigan::Activation;
using fastmrigan::Dtype;
using nvinfer1::DataType;
using nvinfer1::Dims;
using nvinfer1::DynamicPluginTensorDesc;
using nvinfer1::PluginField;
using nvinfer1::PluginFieldType;
using nvinfer1::PluginTensorDesc;
using nvinfer1::TensorFormat;

struct Logger final : nvinfer1::ILogger {
  void log(Severity, const char* text) noexcept override { logged = text; }
} logger;

struct Finder final : nvinfer1::ILoggerFinder {
  nvinfer1::ILogger* findLogger() override { return &logger; }
  ~Finder() override = default;
} finder;

nvinfer1::IPluginCreatorV3One& creator() {
  int32_t count = 0;
  auto* const* creators = getCreators(count);
  CHECK(count == 1);
  CHECK(std::strcmp(creators[0]->getInterfaceInfo().kind, "PLUGIN CREATOR_V3ONE") == 0);
  return static_cast<nvinfer1::IPluginCreatorV3One&>(*creators[0]);
}

using Made = std::unique_ptr<nvinfer1::IPluginV3>;

Made make(const std::vector<PluginField>& fields,
          nvinfer1::TensorRTPhase phase = nvinfer1::TensorRTPhase::kBUILD) {
  logged.clear();
  const nvinfer1::PluginFieldCollection given{static_cast<int32_t>(fields.size()), fields.data()};
  return Made(creator().createPlugin("norm1", &given, phase));
}

nvinfer1::IPluginV3OneBuild& build_of(nvinfer1::IPluginV3& plugin) {
  return *static_cast<nvinfer1::IPluginV3OneBuild*>(
      plugin.getCapabilityInterface(nvinfer1::PluginCapabilityType::kBUILD));
}

nvinfer1::IPluginV3OneRuntime& runtime_of(nvinfer1::IPluginV3& plugin) {
  return *static_cast<nvinfer1::IPluginV3OneRuntime*>(
      plugin.getCapabilityInterface(nvinfer1::PluginCapabilityType::kRUNTIME));
}

PluginField number(const char* name, const float& value) {
  return {name, &value, PluginFieldType::kFLOAT32, 1};
}

PluginField text(const char* name, const char* value) {
  return {name, value, PluginFieldType::kCHAR, static_cast<int32_t>(std::strlen(value))};
}

std::string described(const Made& plugin) {
  return plugin ? build_of(*plugin).getMetadataString() : "not made: " + logged;
}

void test_fields() {
  const float eps = 1e-3f, slope = 0.2f;
  CHECK(described(make({})) == "epsilon 1e-05, none");
  CHECK(described(make({number("epsilon", eps), text("activation", "relu")})) ==
        "epsilon 0.001, relu");
  const std::vector<PluginField> all = {number("epsilon", eps), text("activation", "leaky_relu"),
                                        number("slope", slope)};
  CHECK(described(make(all)) == "epsilon 0.001, leaky_relu 0.2");
  CHECK(described(make({{"activation", "relu", PluginFieldType::kCHAR, 5}})) ==  // with its null
        "epsilon 1e-05, relu");
  CHECK(described(Made(creator().createPlugin("x", nullptr, nvinfer1::TensorRTPhase::kBUILD))) ==
        "epsilon 1e-05, none");
  const auto* names = creator().getFieldNames();
  CHECK(names->nbFields == 3);
  CHECK(std::string(names->fields[0].name) == "epsilon");
  CHECK(std::string(names->fields[1].name) == "activation");
  CHECK(std::string(names->fields[2].name) == "slope");

  // What an engine keeps makes the same plugin again, after the first one is gone.
  Made first = make(all);
  Made second(first->clone());
  first.reset();
  const auto* kept = runtime_of(*second).getFieldsToSerialize();
  const std::vector<PluginField> again(kept->fields, kept->fields + kept->nbFields);
  const Made third = make(again, nvinfer1::TensorRTPhase::kRUNTIME);
  second.reset();
  CHECK(described(third) == "epsilon 0.001, leaky_relu 0.2");
  const Made fourth(runtime_of(*third).attachToContext(nullptr));
  CHECK(described(fourth) == "epsilon 0.001, leaky_relu 0.2");
}

void test_wrong_fields() {
  const float negative = -1, nan = std::nanf(""), good = 1e-5f;
  const double wide = 1e-5;
  const std::string field = "FastmriganInstanceNorm 'norm1': field ";
  struct Case {
    PluginField field;
    std::string said;
  };
  const Case cases[] = {
      {number("epsilon", negative), field + "epsilon: expected at least 0, got -1"},
      {number("epsilon", nan), field + "epsilon: expected a finite number, got nan"},
      {number("slope", nan), field + "slope: expected a finite number, got nan"},
      {{"epsilon", &wide, PluginFieldType::kFLOAT64, 1},
       field + "epsilon: expected one float32, got a field of type 2"},
      {{"epsilon", &good, PluginFieldType::kFLOAT32, 2},
       field + "epsilon: expected one float32, got 2"},
      {{"epsilon", nullptr, PluginFieldType::kFLOAT32, 1},
       field + "epsilon: expected one float32, got a field of type 1 without data"},
      {text("activation", "gelu"),
       field + "activation: expected none, relu or leaky_relu, got 'gelu'"},
      {text("activation", ""), field + "activation: expected none, relu or leaky_relu, got ''"},
      {{"activation", "relu", PluginFieldType::kCHAR, -1},
       field + "activation: expected none, relu or leaky_relu, got ''"},
      {number("activation", good), field + "activation: expected text, got a field of type 1"},
      {number("eps", good),
       "FastmriganInstanceNorm 'norm1': unknown field 'eps': expected epsilon, activation and "
       "slope"},
      {{nullptr, &good, PluginFieldType::kFLOAT32, 1},
       "FastmriganInstanceNorm 'norm1': unknown field '': expected epsilon, activation and slope"},
  };
  for (const Case& each : cases) {
    CHECK(make({each.field}) == nullptr);
    if (logged != each.said) std::fprintf(stderr, "  said: %s\n", logged.c_str());
    CHECK(logged == each.said);
  }
}

Dims dims(std::initializer_list<int64_t> extents) {
  Dims made{};
  for (const int64_t extent : extents) made.d[made.nbDims++] = extent;
  return made;
}

PluginTensorDesc tensor(std::initializer_list<int64_t> extents, DataType type = DataType::kFLOAT,
                        TensorFormat format = TensorFormat::kLINEAR) {
  return {dims(extents), type, format, -1.0f};
}

DynamicPluginTensorDesc dynamic(const PluginTensorDesc& desc) {
  return {desc, desc.dims, desc.dims, desc.dims};
}

void test_capabilities() {
  const Made plugin = make({});
  auto* core = static_cast<nvinfer1::IPluginV3OneCore*>(
      plugin->getCapabilityInterface(nvinfer1::PluginCapabilityType::kCORE));
  CHECK(std::string(core->getPluginName()) == creator().getPluginName());
  CHECK(std::string(core->getPluginVersion()) == creator().getPluginVersion());
  CHECK(std::string(core->getPluginNamespace()) == creator().getPluginNamespace());
  CHECK(std::strcmp(core->getInterfaceInfo().kind, "PLUGIN_V3ONE_CORE") == 0);
  CHECK(std::strcmp(build_of(*plugin).getInterfaceInfo().kind, "PLUGIN_V3ONE_BUILD") == 0);
  CHECK(std::strcmp(runtime_of(*plugin).getInterfaceInfo().kind, "PLUGIN_V3ONE_RUNTIME") == 0);
  CHECK(plugin->getCapabilityInterface(static_cast<nvinfer1::PluginCapabilityType>(9)) == nullptr);
  CHECK(build_of(*plugin).getNbOutputs() == 1);
}

void test_types() {
  const Made plugin = make({});
  struct Case {
    DataType x, scale;
    int32_t inputs;
    bool taken;
  };
  for (const Case& each :
       std::initializer_list<Case>{{DataType::kFLOAT, DataType::kFLOAT, 3, true},
                                   {DataType::kHALF, DataType::kFLOAT, 3, true},
                                   {DataType::kBF16, DataType::kFLOAT, 3, true},
                                   {DataType::kHALF, DataType::kHALF, 3, false},
                                   {DataType::kINT8, DataType::kFLOAT, 3, false},
                                   {DataType::kFLOAT, DataType::kFLOAT, 2, false}}) {
    const DataType inputs[] = {each.x, each.scale, each.scale};
    DataType output = DataType::kINT32;
    const int32_t code = build_of(*plugin).getOutputDataTypes(&output, 1, inputs, each.inputs);
    CHECK((code == 0) == each.taken);
    if (each.taken) CHECK(output == each.x);
  }
}

struct Extent final : nvinfer1::IDimensionExpr, private nvinfer1::apiv::VDimensionExpr {
  explicit Extent(int64_t extent) : extent(extent) { mImpl = this; }
  bool isConstant() const override { return extent >= 0; }
  int64_t getConstantValue() const override { return extent; }
  bool isSizeTensor() const override { return false; }
  const int64_t extent;
};

struct Builder final : nvinfer1::IExprBuilder {};

void test_shapes() {
  const Made plugin = make({});
  struct Case {
    std::vector<int64_t> x, scale, bias;  // -1: known when run
    std::string said;                     // empty: taken
  };
  const std::string name = "FastmriganInstanceNorm: ";
  const Case cases[] = {
      {{-1, 8, 16, 16}, {8}, {8}, ""},
      {{1, 8, 5}, {8}, {8}, ""},
      {{-1, -1, 4, 5, 6}, {8}, {8}, ""},
      {{-1, 8},
       {8},
       {8},
       name + "expected x [N, C, ...] of at least 3 axes, scale [C] and bias [C], got 2, 1 and 1 "
              "axes"},
      {{-1, 8, 4, 4},
       {1, 8},
       {8},
       name + "expected x [N, C, ...] of at least 3 axes, scale [C] and bias [C], got 4, 2 and 1 "
              "axes"},
      {{-1, 8, 4, 4}, {7}, {8}, name + "expected scale and bias of x's 8 channels, got 7 and 8"},
  };
  // The plugin must not touch the builder: there is none to hand in.
  alignas(8) char nothing[sizeof(nvinfer1::IExprBuilder)] = {};
  auto& builder = reinterpret_cast<nvinfer1::IExprBuilder&>(nothing);
  for (const Case& each : cases) {
    std::vector<std::unique_ptr<Extent>> extents;
    nvinfer1::DimsExprs inputs[3] = {}, output = {};
    int place = 0;
    for (const auto& axes : {each.x, each.scale, each.bias}) {
      for (const int64_t extent : axes) {
        extents.push_back(std::make_unique<Extent>(extent));
        inputs[place].d[inputs[place].nbDims++] = extents.back().get();
      }
      ++place;
    }
    logged.clear();
    const int32_t code =
        build_of(*plugin).getOutputShapes(inputs, 3, nullptr, 0, &output, 1, builder);
    CHECK((code == 0) == each.said.empty());
    CHECK(logged == each.said);
    if (code != 0) continue;
    CHECK(output.nbDims == inputs[0].nbDims);
    for (int32_t axis = 0; axis < output.nbDims; ++axis) CHECK(output.d[axis] == inputs[0].d[axis]);
  }
}

void test_formats() {
  const Made plugin = make({});
  struct Case {
    PluginTensorDesc x;
    bool taken;
  };
  const auto linear = TensorFormat::kLINEAR, hwc = TensorFormat::kHWC, hwc8 = TensorFormat::kHWC8;
  const Case cases[] = {
      {tensor({-1, 3, 4, 4}), true},
      {tensor({-1, 3, 4, 4}, DataType::kHALF), true},
      {tensor({-1, 3, 4, 4, 4}, DataType::kBF16), true},
      {tensor({-1, 3, 4, 4}, DataType::kINT8), false},
      {tensor({-1, 3, 4, 4}, DataType::kFLOAT, hwc), true},
      {tensor({-1, 3, 4, 4}, DataType::kHALF, hwc), false},
      {tensor({-1, 3, 4, 4, 4}, DataType::kFLOAT, hwc), false},
      {tensor({-1, 16, 4, 4}, DataType::kHALF, hwc8), true},
      {tensor({-1, 16, 4, 4}, DataType::kBF16, hwc8), true},
      {tensor({-1, 16, 4, 4}, DataType::kFLOAT, hwc8), false},
      {tensor({-1, 12, 4, 4}, DataType::kHALF, hwc8), false},  // padded to 16
      {tensor({-1, -1, 4, 4}, DataType::kHALF, hwc8), false},
      {tensor({-1, 16, 4, 4, 4}, DataType::kHALF, hwc8), false},
      {tensor({-1, 16, 4, 4}, DataType::kHALF, TensorFormat::kCHW2), false},
  };
  for (const Case& each : cases) {
    DynamicPluginTensorDesc all[] = {dynamic(each.x), dynamic(tensor({3})), dynamic(tensor({3})),
                                     dynamic(each.x)};
    const auto takes = [&](int32_t at) {
      return build_of(*plugin).supportsFormatCombination(at, all, 3, 1);
    };
    CHECK(takes(0) == each.taken);
    CHECK(takes(1));
    CHECK(takes(2));
    CHECK(takes(3));
    all[3].desc.format = each.x.format == linear ? hwc : linear;
    CHECK(!takes(3));
    all[3] = dynamic(each.x);
    all[3].desc.type = each.x.type == DataType::kFLOAT ? DataType::kHALF : DataType::kFLOAT;
    CHECK(!takes(3));
    all[1].desc.type = DataType::kHALF;
    CHECK(!takes(1));
    all[2].desc.format = hwc;
    CHECK(!takes(2));
    CHECK(!build_of(*plugin).supportsFormatCombination(0, all, 2, 1));
  }
}

void test_workspace_and_changes() {
  const Made plugin = make({});
  DynamicPluginTensorDesc inputs[] = {dynamic(tensor({-1, 5, 7, 7})), dynamic(tensor({5})),
                                      dynamic(tensor({5}))};
  inputs[0].max = dims({32, 5, 7, 7});
  const DynamicPluginTensorDesc output = inputs[0];
  CHECK(build_of(*plugin).configurePlugin(inputs, 3, &output, 1) == 0);
  CHECK(build_of(*plugin).configurePlugin(inputs, 2, &output, 1) != 0);
  CHECK(build_of(*plugin).getWorkspaceSize(inputs, 3, &output, 1) == 3 * 32 * 5 * sizeof(float));
  const PluginTensorDesc good[] = {tensor({2, 5, 7, 7}), tensor({5}), tensor({5})};
  const PluginTensorDesc bad[] = {tensor({2, 5, 7, 7}), tensor({5}), tensor({4})};
  CHECK(runtime_of(*plugin).onShapeChange(good, 3, good, 1) == 0);
  CHECK(runtime_of(*plugin).onShapeChange(bad, 3, bad, 1) != 0);
  CHECK(logged == "FastmriganInstanceNorm: expected scale and bias of x's 5 channels, got 5 and 4");
}

// x is counted up from -3; the reference is worked out by hand for one plane of each call.
void test_enqueue() {
  const float slope = 0.25f, eps = 0.5f;
  const Made plugin =
      make({number("epsilon", eps), text("activation", "leaky_relu"), number("slope", slope)});
  constexpr int64_t kBatch = 2, kChannels = 2, kPlane = 3;
  const float scale[] = {2, -1}, bias[] = {0.5f, 3};
  // Of three values at distance d: mean the middle one, variance 2 d² / 3.
  const auto expected = [&](int64_t c, double above, double step) {
    const double z = above * step / std::sqrt(2 * step * step / 3 + eps) * scale[c] + bias[c];
    return static_cast<float>(z < 0 ? z * slope : z);
  };
  for (const TensorFormat format : {TensorFormat::kLINEAR, TensorFormat::kHWC}) {
    const bool last = format == TensorFormat::kHWC;
    std::vector<float> x(kBatch * kChannels * kPlane), y(x.size());
    for (size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(i) - 3;
    std::vector<float> workspace(3 * kBatch * kChannels);
    const PluginTensorDesc descriptions[] = {
        tensor({kBatch, kChannels, 1, kPlane}, DataType::kFLOAT, format), tensor({kChannels}),
        tensor({kChannels})};
    const void* inputs[] = {x.data(), scale, bias};
    void* outputs[] = {y.data()};
    const auto stream = reinterpret_cast<cudaStream_t>(&logger);
    CHECK(runtime_of(*plugin).enqueue(descriptions, descriptions, inputs, outputs, workspace.data(),
                                      stream) == 0);
    CHECK(last_stream == stream);
    for (int64_t n = 0; n < kBatch; ++n)
      for (int64_t c = 0; c < kChannels; ++c)
        for (int64_t i = 0; i < kPlane; ++i) {
          const int64_t at = n * kChannels * kPlane + (last ? i * kChannels + c : c * kPlane + i);
          const double step = last ? kChannels : 1;
          CHECK(std::abs(y[at] - expected(c, static_cast<double>(i - 1), step)) < 1e-6f);
        }
  }

  struct Case {
    DataType type;
    TensorFormat format;
    Dtype dtype;
    int64_t step;
  };
  for (const Case& each :
       std::initializer_list<Case>{{DataType::kHALF, TensorFormat::kLINEAR, Dtype::float16, 20},
                                   {DataType::kHALF, TensorFormat::kHWC8, Dtype::float16, 8},
                                   {DataType::kBF16, TensorFormat::kHWC8, Dtype::bfloat16, 8}}) {
    const PluginTensorDesc descriptions[] = {tensor({3, 8, 4, 5}, each.type, each.format),
                                             tensor({8}), tensor({8})};
    const void* inputs[] = {&logger, scale, bias};
    void* outputs[] = {&finder};
    float workspace[1];
    CHECK(runtime_of(*plugin).enqueue(descriptions, descriptions, inputs, outputs, workspace,
                                      nullptr) == 0);
    CHECK(last_call.batch == 3 && last_call.channels == 8 && last_call.plane == 20);
    CHECK(last_call.dtype == each.dtype);
    CHECK(last_call.channels_last == (each.format != TensorFormat::kLINEAR));
    CHECK(last_call.x_strides.batch_stride == 160 && last_call.x_strides.step == each.step);
    CHECK(last_call.y_strides.batch_stride == 160 && last_call.y_strides.step == each.step);
    CHECK(last_call.x == &logger && last_call.y == &finder && last_call.residual == nullptr);
    CHECK(last_call.weight == scale && last_call.bias == bias && last_call.statistics == workspace);
    CHECK(last_call.activation == Activation::leaky_relu && last_call.slope == slope);
    CHECK(last_call.eps == static_cast<double>(eps));

    last_call.batch = -1;  // nothing of an empty tensor reaches the kernels
    const PluginTensorDesc empty[] = {tensor({0, 8, 4, 5}, each.type), tensor({8}), tensor({8})};
    CHECK(runtime_of(*plugin).enqueue(empty, empty, inputs, outputs, nullptr, nullptr) == 0);
    CHECK(last_call.batch == -1);

    launch_fails = true;
    CHECK(runtime_of(*plugin).enqueue(descriptions, descriptions, inputs, outputs, workspace,
                                      nullptr) != 0);
    launch_fails = false;
    CHECK(logged == "instance_norm_forward_cuda: no kernel image");
  }
}

}  // namespace

int main() {
  setLoggerFinder(&finder);
  test_fields();
  test_wrong_fields();
  test_capabilities();
  test_types();
  test_shapes();
  test_formats();
  test_workspace_and_changes();
  test_enqueue();
  return failures == 0 ? 0 : 1;
}
