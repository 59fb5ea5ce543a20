// OpenVINO on the CPU: the same graph, shapes and properties as fastmrigan/runtime/backends/
// openvino.py sets, so that both give the same bits.
#include <cctype>
#include <condition_variable>
#include <cstdio>
#include <cstring>
#include <mutex>
#include <utility>
#include <vector>

#include "core/error.h"
#include "engine/buffer.h"
#include "engine/engine.h"
#include "engine/openvino_api.h"
#include "engine/precision.h"
#include "include/fastmrigan.h"

namespace fastmrigan {
namespace {

// auto takes bf16 only where the model file says that it stays this close to PyTorch.
constexpr double BF16_MIN_DB = 45.0;
constexpr Precisions PRECISIONS{"openvino", "auto, fp32, bf16", "bf16, fp16, int8"};

// Nodes that only move or convert values say nothing about the precision of the arithmetic.
bool arithmetic(const char* node_type) {
  for (const char* other : {"Const", "Convert", "Input", "Output", "Reorder", "Reshape"})
    if (std::strcmp(node_type, other) == 0) return false;
  return true;
}

// Signalled from a thread of OpenVINO's.
struct Done {
  std::mutex mutex;
  std::condition_variable changed;
  bool done = false;

  static void set(void* self) {
    auto* it = static_cast<Done*>(self);
    const std::lock_guard<std::mutex> lock(it->mutex);
    it->done = true;
    it->changed.notify_all();
  }
};

class OpenVINOEngine final : public Engine {
 public:
  OpenVINOEngine(const ModelBytes& file, ModelFacts model, const EngineOptions& options)
      : Engine(std::move(model)),
        ov_(load_openvino(options.library)),
        subject_(file.name + ": openvino refuses the graph"),
        threads_(std::to_string(options.threads)),
        pinning_(options.all_cores ? "YES" : "NO"),
        in_shape_(input_shape(model_, options.batch)),
        out_shape_(output_shape(model_, options.batch)),
        in_(zeros(in_shape_)),
        out_(zeros(out_shape_)),
        compiled_(nullptr, ov_.ov_compiled_model_free),
        request_(nullptr, ov_.ov_infer_request_free) {
    facts_.backend = "openvino";
    facts_.version = ov_.version;
    facts_.device = ov_.property("FULL_DEVICE_NAME");
    choose_precision(file.name, options.precision);

    OpenVINO::Owned<ov_model_t> graph = read(file);
    if (facts_.precision != "fp32") {
      compile(graph.get(), "YES");
      check_runs_in_precision(file.name);
    }
    compile(graph.get(), "NO");
    check(ov_.ov_infer_request_set_callback(request_.get(), &callback_));
  }

  float* input() override { return in_.get(); }
  const float* output() override { return out_.get(); }

  void run(const Limits& limits) override {
    if (limits.none()) {
      ran(ov_.ov_infer_request_infer(request_.get()));
      return;
    }
    done_.done = false;
    ran(ov_.ov_infer_request_start_async(request_.get()));
    bool stopped = false;
    {
      std::unique_lock<std::mutex> lock(done_.mutex);
      while (!done_.done && !(stopped = limits.reached()))
        done_.changed.wait_until(lock, limits.next_look());
    }
    if (stopped) ov_.ov_infer_request_cancel(request_.get());
    const ov_status_e status = ov_.ov_infer_request_wait(request_.get());
    if (stopped) limits.stop();
    ran(status);
  }

 private:
  void check(ov_status_e status) const { ov_.check(status, subject_, FMG_ERROR_BACKEND); }

  void ran(ov_status_e status) const {
    if (status != ov_status_e::OK)
      ov_.check(status, "backend openvino: cannot run the model", FMG_ERROR_BACKEND);
  }

  bool processor_has(std::string precision) const {
    for (char& c : precision) c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
    const std::string all = " " + ov_.property("OPTIMIZATION_CAPABILITIES") + " ";
    return all.find(" " + precision + " ") != all.npos;
  }

  void choose_precision(const std::string& name, const std::string& asked) {
    if (model_.precision != "fp32") {
      if (!processor_has(model_.precision))
        throw Error(FMG_ERROR_OPTIONS, "backend openvino: " + name + " is typed in " +
                                           model_.precision + ", and this processor has no " +
                                           model_.precision +
                                           " arithmetic; export it with --precision fp32");
      facts_.precision = model_.precision;
      facts_.why_precision = "as the file is typed";
      return;
    }
    const bool here = processor_has("bf16");
    facts_.precision = asked;
    if (asked == "bf16" && !here)
      throw Error(FMG_ERROR_OPTIONS,
                  "precision bf16: this processor has no bf16 arithmetic; take fp32");
    if (asked != "auto") return;
    facts_.precision = "fp32";
    if (!here) {
      facts_.why_precision = "auto: the processor has no bf16";
    } else if (!model_.bf16_db) {
      facts_.why_precision = "auto: the model file records nothing about bf16";
    } else {
      if (*model_.bf16_db >= BF16_MIN_DB) facts_.precision = "bf16";
      char text[96];
      std::snprintf(text, sizeof text, "auto: %.1f dB in bf16 by the model file, %g wanted",
                    *model_.bf16_db, BF16_MIN_DB);
      facts_.why_precision = text;
    }
  }

  // Of files typed when they were exported: openvino.py says why.
  const char* hint() const {
    if (model_.precision != "fp32") return model_.precision == "fp16" ? "f16" : "f32";
    return facts_.precision == "bf16" ? "bf16" : "f32";
  }

  // The graph with its batch fixed, checked against the metadata.
  OpenVINO::Owned<ov_model_t> read(const ModelBytes& file) {
    ov_model_t* read = nullptr;
    check(ov_.ov_core_read_model_from_memory_buffer(
        ov_.core, reinterpret_cast<const char*>(file.data), file.size, nullptr, &read));
    OpenVINO::Owned<ov_model_t> graph(read, ov_.ov_model_free);
    size_t inputs = 0, outputs = 0;
    check(ov_.ov_model_inputs_size(read, &inputs));
    check(ov_.ov_model_outputs_size(read, &outputs));
    if (inputs != 1 || outputs != 1)
      throw Error(FMG_ERROR_MODEL, file.name + ": has " + std::to_string(inputs) + " inputs and " +
                                       std::to_string(outputs) +
                                       " outputs where one of each is expected; export it again");
    ov_output_const_port_t* port = nullptr;
    check(ov_.ov_model_const_input(read, &port));
    const OpenVINO::Owned<ov_output_const_port_t> input(port, ov_.ov_output_const_port_free);
    ov_element_type_e type{};
    check(ov_.ov_port_get_element_type(port, &type));
    ov_partial_shape_t shape{};
    check(ov_.ov_port_get_partial_shape(port, &shape));
    const bool fits = fits_input(shape);
    ov_.ov_partial_shape_free(&shape);
    if (!fits || type != ov_element_type_e::F32)
      throw Error(FMG_ERROR_MODEL, file.name + ": its graph does not take float32 " +
                                       brackets(in_shape_) +
                                       ", as its metadata says; export it again");
    std::vector<ov_dimension_t> fixed;
    for (const int64_t side : in_shape_) fixed.push_back({side, side});
    ov_partial_shape_t to{};
    check(ov_.ov_partial_shape_create(static_cast<int64_t>(fixed.size()), fixed.data(), &to));
    const ov_status_e status = ov_.ov_model_reshape_single_input(read, to);
    ov_.ov_partial_shape_free(&to);
    check(status);
    return graph;
  }

  bool fits_input(const ov_partial_shape_t& shape) const {
    const auto rank = static_cast<int64_t>(in_shape_.size());
    if (shape.rank.min != rank || shape.rank.max != rank) return false;
    for (size_t i = 1; i < in_shape_.size(); ++i)
      if (shape.dims[i].min != in_shape_[i] || shape.dims[i].max != in_shape_[i]) return false;
    return true;
  }

  void compile(ov_model_t* graph, const char* profiling) {
    request_.reset();
    ov_compiled_model_t* compiled = nullptr;
    check(ov_.ov_core_compile_model(ov_.core, graph, "CPU", 10, &compiled,
                                    "INFERENCE_PRECISION_HINT", hint(), "INFERENCE_NUM_THREADS",
                                    threads_.c_str(), "NUM_STREAMS", "1", "ENABLE_CPU_PINNING",
                                    pinning_, "PERF_COUNT", profiling));
    compiled_.reset(compiled);
    check_output();
    ov_infer_request_t* request = nullptr;
    check(ov_.ov_compiled_model_create_infer_request(compiled, &request));
    request_.reset(request);
    bind(in_shape_, in_.get(), ov_.ov_infer_request_set_input_tensor);
    bind(out_shape_, out_.get(), ov_.ov_infer_request_set_output_tensor);
  }

  void check_output() const {
    ov_output_const_port_t* port = nullptr;
    check(ov_.ov_compiled_model_output(compiled_.get(), &port));
    const OpenVINO::Owned<ov_output_const_port_t> output(port, ov_.ov_output_const_port_free);
    ov_shape_t shape{};
    check(ov_.ov_const_port_get_shape(port, &shape));
    const Shape made(shape.dims, shape.dims + shape.rank);
    ov_.ov_shape_free(&shape);
    ov_element_type_e type{};
    check(ov_.ov_port_get_element_type(port, &type));
    if (made != out_shape_ || type != ov_element_type_e::F32)
      throw Error(FMG_ERROR_MODEL, subject_ + ": it makes " + brackets(made) +
                                       " where its metadata says float32 " + brackets(out_shape_) +
                                       "; export it again");
  }

  template <typename Set>
  void bind(const Shape& sides, float* memory, Set set) {
    ov_shape_t shape{};
    check(ov_.ov_shape_create(static_cast<int64_t>(sides.size()), sides.data(), &shape));
    ov_tensor_t* made = nullptr;
    const ov_status_e status =
        ov_.ov_tensor_create_from_host_ptr(ov_element_type_e::F32, shape, memory, &made);
    ov_.ov_shape_free(&shape);
    check(status);
    const OpenVINO::Owned<ov_tensor_t> tensor(made, ov_.ov_tensor_free);
    check(set(request_.get(), made));
  }

  // OpenVINO accepts the hint and then runs some operators in fp32 whatever is asked. Its C API
  // tells what ran through the profile of a run alone.
  void check_runs_in_precision(const std::string& name) {
    const char* kind = facts_.precision == "bf16"   ? "_bf16"
                       : facts_.precision == "fp16" ? "_f16"
                                                    : "_i8";
    check(ov_.ov_infer_request_infer(request_.get()));
    ov_profiling_info_list_t list{};
    check(ov_.ov_infer_request_get_profiling_info(request_.get(), &list));
    bool found = false;
    for (size_t i = 0; i < list.size; ++i) {
      const ov_profiling_info_t& node = list.profiling_infos[i];
      std::string ran_as = node.exec_type;
      for (char& c : ran_as) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
      found |= arithmetic(node.node_type) && ran_as.find(kind) != ran_as.npos;
    }
    ov_.ov_profiling_info_list_free(&list);
    if (!found)
      throw Error(FMG_ERROR_OPTIONS, "precision " + facts_.precision +
                                         ": OpenVINO runs every operator of " + name +
                                         " in another one; take fp32");
  }

  const OpenVINO& ov_;
  const std::string subject_, threads_;
  const char* const pinning_;
  const Shape in_shape_, out_shape_;
  const Buffer in_, out_;  // outlive the request, which runs on them
  OpenVINO::Owned<ov_compiled_model_t> compiled_;
  Done done_;
  const ov_callback_t callback_{Done::set, &done_};  // OpenVINO keeps its address
  OpenVINO::Owned<ov_infer_request_t> request_;
};

}  // namespace

std::unique_ptr<Engine> open_openvino(const ModelBytes& file, const EngineOptions& options) {
  ModelFacts model = check_model(file.name, file.data, file.size);
  check_precision(PRECISIONS, file.name, model.precision, options.precision);
  return std::make_unique<OpenVINOEngine>(file, std::move(model), options);
}

}  // namespace fastmrigan
