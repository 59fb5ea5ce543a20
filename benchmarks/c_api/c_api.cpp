// fmg_run against OpenVINO's own C API on the same model file and the same settings.
//
//   c_api MODEL LIBRARY PRECISION THREADS ROUNDS
//
// Both sides translate one slice of random pixels, in turn in every round; their results are
// compared to the bit first. Prints, per side, min and median of the rounds in microseconds, then
// the difference and the ratio of the medians. c_api.py builds it, makes the models and knows the
// bars.
#include <dlfcn.h>
#include <fastmrigan.h>
#include <openvino/c/openvino.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string>
#include <vector>

namespace {

using Clock = std::chrono::steady_clock;

[[noreturn]] void stop(const std::string& what) {
  std::fprintf(stderr, "c_api: %s\n", what.c_str());
  std::exit(6);
}

// A function of the library, by its declaration in OpenVINO's header.
template <typename Function>
Function* find(void* library, const char* name) {
  void* found = dlsym(library, name);
  if (found == nullptr) stop(std::string("no ") + name);
  return reinterpret_cast<Function*>(found);
}
#define OV(name) find<decltype(::name)>(library, #name)

void good(ov_status_e status) {
  if (status != ov_status_e::OK) stop("OpenVINO: status " + std::to_string(status));
}

// The bare side: read, reshape to one slice, compile, infer.
struct Bare {
  Bare(void* library, const char* model, const char* precision, const char* threads,
       const fmg_info& info)
      : infer(OV(ov_infer_request_infer)) {
    ov_core_t* core = nullptr;
    good(OV(ov_core_create)(&core));
    ov_model_t* graph = nullptr;
    good(OV(ov_core_read_model)(core, model, nullptr, &graph));
    const int64_t sides[] = {1, 1, info.height, info.width};
    ov_partial_shape_t partial{};
    good(OV(ov_partial_shape_create_static)(4, sides, &partial));
    good(OV(ov_model_reshape_single_input)(graph, partial));
    ov_compiled_model_t* compiled = nullptr;
    good(OV(ov_core_compile_model)(core, graph, "CPU", 6, &compiled, "INFERENCE_PRECISION_HINT",
                                   precision, "INFERENCE_NUM_THREADS", threads, "NUM_STREAMS",
                                   "1"));
    good(OV(ov_compiled_model_create_infer_request)(compiled, &request));
    ov_tensor_t *in = nullptr, *out = nullptr;
    good(OV(ov_infer_request_get_input_tensor)(request, &in));
    good(OV(ov_infer_request_get_output_tensor)(request, &out));
    void* data = nullptr;
    good(OV(ov_tensor_data)(in, &data));
    input = static_cast<float*>(data);
    good(OV(ov_tensor_data)(out, &data));
    output = static_cast<const float*>(data);
  }

  decltype(::ov_infer_request_infer)* infer;
  ov_infer_request_t* request = nullptr;
  float* input = nullptr;
  const float* output = nullptr;
};

template <typename Body>
double microseconds(const Body& body) {
  const auto start = Clock::now();
  body();
  return std::chrono::duration<double, std::micro>(Clock::now() - start).count();
}

double median(std::vector<double> times) {
  std::nth_element(times.begin(), times.begin() + times.size() / 2, times.end());
  return times[times.size() / 2];
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 6) stop("usage: c_api MODEL LIBRARY PRECISION THREADS ROUNDS");
  fmg_options options;
  fmg_options_init(&options);
  options.library = argv[2];
  options.precision = argv[3];
  options.threads = std::atoi(argv[4]);
  fmg_engine* engine = nullptr;
  if (fmg_open(argv[1], &options, &engine) != FMG_OK) stop(fmg_last_error());
  fmg_info info{};
  info.size = sizeof info;
  if (fmg_get_info(engine, &info) != FMG_OK) stop(fmg_last_error());
  void* library = dlopen(argv[2], RTLD_NOW);
  if (library == nullptr) stop(dlerror());
  const Bare bare(library, argv[1], std::strcmp(info.precision, "bf16") == 0 ? "bf16" : "f32",
                  argv[4], info);

  const size_t pixels = static_cast<size_t>(info.height) * static_cast<size_t>(info.width);
  std::vector<float> in(pixels), out(pixels);
  std::mt19937 random(7);
  std::uniform_real_distribution<float> uniform(-1, 1);
  for (float& pixel : in) pixel = uniform(random);

  // What each side does for its caller: pixels of the caller's in, pixels of the caller's out.
  std::vector<float> bare_out(pixels);
  const auto run_ours = [&] {
    if (fmg_run(engine, in.data(), 1, out.data()) != FMG_OK) stop(fmg_last_error());
  };
  const auto run_bare = [&] {
    std::memcpy(bare.input, in.data(), pixels * sizeof(float));
    good(bare.infer(bare.request));
    std::memcpy(bare_out.data(), bare.output, pixels * sizeof(float));
  };
  run_ours(), run_bare();
  if (std::memcmp(out.data(), bare_out.data(), pixels * sizeof(float)) != 0)
    stop("the two sides differ");

  const int rounds = std::max(3, std::atoi(argv[5]));
  std::vector<double> ours, theirs;
  for (int i = -rounds / 10; i < rounds; ++i) {  // the first tenth warms up
    const double first = microseconds(run_ours), second = microseconds(run_bare);
    if (i >= 0) ours.push_back(first), theirs.push_back(second);
  }
  std::printf("%.2f %.2f %.2f %.2f\n", *std::min_element(ours.begin(), ours.end()), median(ours),
              *std::min_element(theirs.begin(), theirs.end()), median(theirs));
  fmg_close(engine);
  return 0;
}
