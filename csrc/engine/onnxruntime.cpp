// ONNX Runtime on the CPU: the same session as fastmrigan/runtime/backends/onnxruntime.py makes, so
// that both give the same bits.
#include <utility>
#include <vector>

#include "core/error.h"
#include "engine/buffer.h"
#include "engine/engine.h"
#include "engine/onnxruntime_api.h"
#include "engine/precision.h"
#include "engine/processor.h"
#include "engine/watch.h"
#include "include/fastmrigan.h"

namespace fastmrigan {
namespace {

// It has no bf16 kernels on a CPU.
constexpr Precisions PRECISIONS{"onnxruntime", "auto, fp32", "fp16, int8"};

template <typename T>
using Owned = OnnxRuntime::Owned<T>;

class OnnxRuntimeEngine final : public Engine {
 public:
  OnnxRuntimeEngine(const ModelBytes& file, ModelFacts model, const EngineOptions& options)
      : Engine(std::move(model)),
        ort_(load_onnxruntime(options.library)),
        api_(*ort_.api),
        subject_(file.name + ": onnxruntime refuses the graph"),
        in_shape_(input_shape(model_, options.batch)),
        out_shape_(output_shape(model_, options.batch)),
        in_(zeros(in_shape_)),
        out_(zeros(out_shape_)),
        session_(nullptr, api_.ReleaseSession),
        binding_(nullptr, api_.ReleaseIoBinding),
        run_options_(nullptr, api_.ReleaseRunOptions),
        watch_([this] { end_run(); }) {
    facts_.backend = "onnxruntime";
    facts_.version = ort_.version;
    facts_.device = processor();
    facts_.precision = model_.precision;
    if (model_.precision != "fp32") facts_.why_precision = "as the file is typed";
    if (model_.precision == "fp16")
      facts_.why_precision += "; its values are fp16, the arithmetic on them is fp32";

    Owned<OrtSessionOptions> settings(nullptr, api_.ReleaseSessionOptions);
    make(settings, api_.CreateSessionOptions);
    check(api_.SetIntraOpNumThreads(settings.get(), options.threads));
    check(api_.SetSessionLogSeverityLevel(settings.get(), ORT_LOGGING_LEVEL_FATAL));
    make(session_, api_.CreateSessionFromArray, ort_.env, file.data, file.size, settings.get());
    check_graph(file.name);
    make(run_options_, api_.CreateRunOptions);
    make(binding_, api_.CreateIoBinding, session_.get());
    bind(in_shape_, in_.get(), api_.SessionGetInputName, api_.BindInput);
    bind(out_shape_, out_.get(), api_.SessionGetOutputName, api_.BindOutput);
  }

  float* input() override { return in_.get(); }
  const float* output() override { return out_.get(); }

  void run(const Limits& limits) override {
    if (limits.none()) {
      ran(api_.RunWithBinding(session_.get(), run_options_.get(), binding_.get()));
      return;
    }
    watch_.begin(limits);
    OrtStatus* status = api_.RunWithBinding(session_.get(), run_options_.get(), binding_.get());
    if (watch_.end()) {
      api_.ReleaseStatus(status);
      ran(api_.RunOptionsUnsetTerminate(run_options_.get()));
      limits.stop();
    }
    ran(status);
  }

 private:
  void check(OrtStatus* status) const { ort_.check(status, subject_); }

  void ran(OrtStatus* status) const {
    if (status != nullptr) ort_.check(status, "backend onnxruntime: cannot run the model");
  }

  // In the watching thread. Setting a flag does not fail.
  void end_run() { api_.ReleaseStatus(api_.RunOptionsSetTerminate(run_options_.get())); }

  template <typename T, typename Create, typename... Arguments>
  void make(Owned<T>& owned, Create create, Arguments... arguments) const {
    T* made = nullptr;
    check(create(arguments..., &made));
    owned.reset(made);
  }

  void check_graph(const std::string& name) const {
    size_t inputs = 0, outputs = 0;
    check(api_.SessionGetInputCount(session_.get(), &inputs));
    check(api_.SessionGetOutputCount(session_.get(), &outputs));
    if (inputs != 1 || outputs != 1)
      throw Error(FMG_ERROR_MODEL, name + ": has " + std::to_string(inputs) + " inputs and " +
                                       std::to_string(outputs) +
                                       " outputs where one of each is expected; export it again");
    if (!fits(in_shape_, api_.SessionGetInputTypeInfo))
      throw Error(FMG_ERROR_MODEL, name + ": its graph does not take float32 " +
                                       brackets(in_shape_) +
                                       ", as its metadata says; export it again");
    if (!fits(out_shape_, api_.SessionGetOutputTypeInfo))
      throw Error(FMG_ERROR_MODEL, name + ": its graph does not make float32 " +
                                       brackets(out_shape_) +
                                       ", as its metadata says; export it again");
  }

  // A side that the graph leaves open, such as the batch, fits any.
  template <typename GetType>
  bool fits(const Shape& wanted, GetType get_type) const {
    Owned<OrtTypeInfo> type(nullptr, api_.ReleaseTypeInfo);
    make(type, get_type, session_.get(), size_t{0});
    const OrtTensorTypeAndShapeInfo* tensor = nullptr;  // the type's own
    check(api_.CastTypeInfoToTensorInfo(type.get(), &tensor));
    if (tensor == nullptr) return false;
    ONNXTensorElementDataType element{};
    check(api_.GetTensorElementType(tensor, &element));
    size_t rank = 0;
    check(api_.GetDimensionsCount(tensor, &rank));
    if (element != ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT || rank != wanted.size()) return false;
    Shape sides(rank);
    check(api_.GetDimensions(tensor, sides.data(), rank));
    for (size_t i = 0; i < rank; ++i)
      if (sides[i] >= 0 && sides[i] != wanted[i]) return false;
    return true;
  }

  template <typename GetName, typename Bind>
  void bind(const Shape& shape, float* memory, GetName get_name, Bind bind) const {
    Owned<OrtMemoryInfo> where(nullptr, api_.ReleaseMemoryInfo);
    make(where, api_.CreateCpuMemoryInfo, OrtArenaAllocator, OrtMemTypeDefault);
    Owned<OrtValue> value(nullptr, api_.ReleaseValue);
    make(value, api_.CreateTensorWithDataAsOrtValue, where.get(), memory, bytes_of(shape),
         shape.data(), shape.size(), ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT);
    OrtAllocator* allocator = nullptr;  // ONNX Runtime's one, never freed
    check(api_.GetAllocatorWithDefaultOptions(&allocator));
    char* name = nullptr;
    check(get_name(session_.get(), 0, allocator, &name));
    OrtStatus* status = bind(binding_.get(), name, value.get());
    api_.ReleaseStatus(api_.AllocatorFree(allocator, name));
    check(status);
  }

  const OnnxRuntime& ort_;
  const OrtApi& api_;
  const std::string subject_;
  const Shape in_shape_, out_shape_;
  const Buffer in_, out_;  // outlive the binding
  Owned<OrtSession> session_;
  Owned<OrtIoBinding> binding_;
  Owned<OrtRunOptions> run_options_;
  Watch watch_;
};

}  // namespace

std::unique_ptr<Engine> open_onnxruntime(const ModelBytes& file, const EngineOptions& options) {
  ModelFacts model = check_model(file.name, file.data, file.size);
  check_precision(PRECISIONS, file.name, model.precision, options.precision);
  return std::make_unique<OnnxRuntimeEngine>(file, std::move(model), options);
}

}  // namespace fastmrigan
