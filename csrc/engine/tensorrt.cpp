// TensorRT on CUDA's first device: an engine of `fastmrigan export --engine tensorrt`, held against
// its sidecar before TensorRT sees it. Compiled against TensorRT's public headers, not run.
//
// libnvinfer is opened while running: its C entry points are found by name, and the rest of its
// interface is virtual.
#include <NvInfer.h>

#include <algorithm>
#include <cstdio>
#include <utility>
#include <vector>

#include "core/error.h"
#include "engine/buffer.h"
#include "engine/cuda_driver.h"
#include "engine/engine.h"
#include "engine/library.h"
#include "engine/precision.h"
#include "include/fastmrigan.h"
#include "model_file/engine_file.h"

static_assert(NV_TENSORRT_MAJOR >= 11, "TENSORRT_INCLUDE_DIR: TensorRT 11 or later is needed");

namespace fastmrigan {
namespace {

constexpr Precisions PRECISIONS{"tensorrt", "auto, fp32", "bf16, fp16, int8"};

// Keeps what TensorRT last said was wrong in this thread.
class Log final : public nvinfer1::ILogger {
 public:
  void log(Severity severity, const nvinfer1::AsciiChar* text) noexcept override {
    if (severity <= Severity::kERROR) std::snprintf(last, sizeof last, "%s", text);
  }

  static thread_local char last[512];
};
thread_local char Log::last[512] = "";

nvinfer1::ILogger* the_log() {
  static Log* log = new Log;  // TensorRT keeps it for the life of the process
  return log;
}

[[noreturn]] void fail(const std::string& subject) {
  const std::string reason = Log::last[0] != '\0' ? Log::last : "no reason given";
  Log::last[0] = '\0';
  throw Error(FMG_ERROR_BACKEND, subject + ": " + reason);
}

struct Version {
  int major = 0, minor = 0, patch = 0;

  std::string text() const {
    return std::to_string(major) + "." + std::to_string(minor) + "." + std::to_string(patch);
  }
  int number() const { return (major * 100 + minor) * 100 + patch; }
};

// The library's C entry points.
struct TensorRT {
  explicit TensorRT(const std::string& path) {
    std::vector<std::string> names{path};
    if (path.empty()) names = {"libnvinfer.so." + std::to_string(NV_TENSORRT_MAJOR)};
    const Library library("backend tensorrt", names);
    using Number = int32_t();
    Number *major = nullptr, *minor = nullptr, *patch = nullptr;
    library.load(major, "getInferLibMajorVersion");
    library.load(minor, "getInferLibMinorVersion");
    library.load(patch, "getInferLibPatchVersion");
    library.load(create_runtime, "createInferRuntime_INTERNAL");
    version = {major(), minor(), patch()};
    if (version.major != NV_TENSORRT_MAJOR)
      throw Error(FMG_ERROR_BACKEND_VERSION, "backend tensorrt: its library is version " +
                                                 version.text() + "; take a version " +
                                                 std::to_string(NV_TENSORRT_MAJOR));
  }

  Version version;
  void* (*create_runtime)(void* logger, int32_t version) = nullptr;
};

// What must hold of this machine before the engine is deserialised.
void check_fits(const std::string& name, const EngineFileFacts& file, const CudaDriver& driver,
                const Version& here) {
  const auto refuse = [&](const std::string& what) {
    return Error(FMG_ERROR_MODEL, name + ": was built " + what +
                                      "; build it on this machine with `fastmrigan export "
                                      "--engine tensorrt`");
  };
  if (file.compute_capability != driver.compute_capability)
    throw refuse("for compute capability " + file.compute_capability + ", and this GPU has " +
                 driver.compute_capability);
  Version built;
  std::sscanf(file.tensorrt_version.c_str(), "%d.%d.%d", &built.major, &built.minor, &built.patch);
  const bool later = here.major == built.major && here.number() >= built.number();
  if (file.version_compatible ? !later : here.number() != built.number())
    throw refuse("by TensorRT " + file.tensorrt_version + ", and this library is version " +
                 here.text());
}

size_t profile_of(const EngineFileFacts& file, int batch) {
  for (size_t i = 0; i < file.buckets.size(); ++i)
    if (file.buckets[i] >= batch) return i;
  throw Error(FMG_ERROR_OPTIONS, "batch " + std::to_string(batch) +
                                     ": the engine was built for batches of up to " +
                                     std::to_string(file.buckets.back()) +
                                     "; take that, or build it with other --buckets");
}

// A tensor's memory: pinned on the host, and on the device.
class Pair {
 public:
  Pair(const CudaDriver& driver, size_t bytes) : driver_(driver), bytes_(bytes) {
    constexpr const char* SUBJECT = "backend tensorrt: cannot allocate its buffers";
    void* host = nullptr;
    driver.check(driver.cuMemHostAlloc(&host, bytes, 0), SUBJECT);
    host_ = static_cast<float*>(host);
    std::fill_n(host_, bytes / sizeof(float), 0.0f);
    const CUresult result = driver.cuMemAlloc_v2(&device_, bytes);
    if (result != CUDA_SUCCESS) driver.cuMemFreeHost(host_);
    driver.check(result, SUBJECT);
  }
  ~Pair() {
    driver_.cuMemFree_v2(device_);
    driver_.cuMemFreeHost(host_);
  }

  float* host() const { return host_; }
  CUdeviceptr device() const { return device_; }
  size_t bytes() const { return bytes_; }

  Pair(const Pair&) = delete;
  Pair& operator=(const Pair&) = delete;

 private:
  const CudaDriver& driver_;
  size_t bytes_;
  float* host_ = nullptr;
  CUdeviceptr device_ = 0;
};

class TensorRTEngine final : public Engine {
 public:
  // Delegates, so that what was made is freed in CUDA's context where this throws.
  TensorRTEngine(const std::string& name, const std::vector<uint8_t>& bytes, EngineFileFacts file,
                 const EngineOptions& options)
      : TensorRTEngine(std::move(file.model), profile_of(file, options.batch),
                       name + ": tensorrt refuses the engine") {
    const TensorRT tensorrt(options.library);
    check_fits(name, file, driver_, tensorrt.version);
    facts_.backend = "tensorrt";
    facts_.version = tensorrt.version.text();
    facts_.device = driver_.device;
    facts_.precision = model_.precision;
    if (model_.precision != "fp32") facts_.why_precision = "as the file is typed";

    const InContext in_context(driver_);
    runtime_.reset(
        static_cast<nvinfer1::IRuntime*>(tensorrt.create_runtime(the_log(), NV_TENSORRT_VERSION)));
    if (!runtime_) fail("backend tensorrt: cannot start");
    // A version-compatible engine carries code of the TensorRT that built it.
    runtime_->setEngineHostCodeAllowed(file.version_compatible);
    engine_.reset(runtime_->deserializeCudaEngine(bytes.data(), bytes.size()));
    if (!engine_) fail(subject_);
    const int32_t batch = file.buckets[profile_];
    const Shape in_shape = input_shape(model_, batch), out_shape = output_shape(model_, batch);
    in_ = std::make_unique<Pair>(driver_, bytes_of(in_shape));
    out_ = std::make_unique<Pair>(driver_, bytes_of(out_shape));
    driver_.check(driver_.cuStreamCreate(&stream_, CU_STREAM_NON_BLOCKING), subject_.c_str());
    set_up(file, in_shape, out_shape);
  }

  ~TensorRTEngine() override {
    driver_.cuCtxPushCurrent_v2(driver_.context);
    context_.reset();
    engine_.reset();
    runtime_.reset();
    if (stream_ != nullptr) driver_.cuStreamDestroy_v2(stream_);
    in_.reset();
    out_.reset();
    CUcontext ours = nullptr;
    driver_.cuCtxPopCurrent_v2(&ours);
  }

  float* input() override { return in_->host(); }
  const float* output() override { return out_->host(); }

  // What is on the device cannot be called back: limits are looked at between batches.
  void run(const Limits&) override {
    constexpr const char* SUBJECT = "backend tensorrt: cannot run the model";
    const InContext in_context(driver_);
    driver_.check(driver_.cuMemcpyHtoDAsync_v2(in_->device(), in_->host(), in_->bytes(), stream_),
                  SUBJECT);
    if (!context_->enqueueV3(stream_)) fail(SUBJECT);
    driver_.check(
        driver_.cuMemcpyDtoHAsync_v2(out_->host(), out_->device(), out_->bytes(), stream_),
        SUBJECT);
    driver_.check(driver_.cuStreamSynchronize(stream_), SUBJECT);
  }

 private:
  TensorRTEngine(ModelFacts model, size_t profile, std::string subject)
      : Engine(std::move(model)),
        profile_(profile),
        driver_(load_cuda_driver()),
        subject_(std::move(subject)) {}

  // The profile of the batch, and the tensors' memory.
  void set_up(const EngineFileFacts& file, const Shape& in_shape, const Shape& out_shape) {
    const char *in = file.input.c_str(), *out = file.output.c_str();
    if (engine_->getNbIOTensors() != 2 || !is_float(in, nvinfer1::TensorIOMode::kINPUT) ||
        !is_float(out, nvinfer1::TensorIOMode::kOUTPUT))
      throw Error(FMG_ERROR_MODEL, subject_ + ": its tensors are not float32 " + file.input +
                                       " and " + file.output + "; build it again");
    context_.reset(engine_->createExecutionContext());
    if (!context_) fail(subject_);
    nvinfer1::Dims dims{};
    dims.nbDims = static_cast<int32_t>(in_shape.size());
    for (size_t i = 0; i < in_shape.size(); ++i) dims.d[i] = in_shape[i];
    if (!context_->setOptimizationProfileAsync(static_cast<int32_t>(profile_), stream_) ||
        !context_->setInputShape(in, dims) ||
        !context_->setTensorAddress(in, reinterpret_cast<void*>(in_->device())) ||
        !context_->setTensorAddress(out, reinterpret_cast<void*>(out_->device())))
      fail(subject_);
    driver_.check(driver_.cuStreamSynchronize(stream_), subject_.c_str());
    const nvinfer1::Dims made = context_->getTensorShape(out);
    const Shape sides(made.d, made.d + std::max(made.nbDims, 0));
    if (sides != out_shape)
      throw Error(FMG_ERROR_MODEL, subject_ + ": it makes " + brackets(sides) +
                                       " where its sidecar says " + brackets(out_shape) +
                                       "; build it again");
  }

  bool is_float(const char* tensor, nvinfer1::TensorIOMode mode) const {
    return engine_->getTensorIOMode(tensor) == mode &&
           engine_->getTensorDataType(tensor) == nvinfer1::DataType::kFLOAT;
  }

  const size_t profile_;
  const CudaDriver& driver_;
  const std::string subject_;
  std::unique_ptr<nvinfer1::IRuntime> runtime_;
  std::unique_ptr<nvinfer1::ICudaEngine> engine_;
  std::unique_ptr<nvinfer1::IExecutionContext> context_;
  std::unique_ptr<Pair> in_, out_;
  CUstream stream_ = nullptr;
};

}  // namespace

std::unique_ptr<Engine> open_tensorrt(const ModelBytes& file, const EngineOptions& options) {
  if (!file.has_path)
    throw Error(FMG_ERROR_OPTIONS,
                "backend tensorrt: takes an engine by its path, beside which its sidecar lies; "
                "use fmg_open");
  EngineFileFacts facts = read_engine_facts(file.name);
  check_precision(PRECISIONS, file.name, facts.model.precision, options.precision);
  const std::vector<uint8_t> bytes = read_engine(file.name, facts);
  return std::make_unique<TensorRTEngine>(file.name, bytes, std::move(facts), options);
}

}  // namespace fastmrigan
