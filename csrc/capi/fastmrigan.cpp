// The only extern "C". `guarded` turns every exception into a code and a line of text.
#include "include/fastmrigan.h"

#include <sched.h>

#include <condition_variable>
#include <cstdio>
#include <cstring>
#include <memory>
#include <mutex>
#include <new>
#include <stdexcept>
#include <string>
#include <system_error>
#include <vector>

#include "capi/layout.h"
#include "core/error.h"
#include "engine/engine.h"

using fastmrigan::Error;
using fastmrigan::Layout;
using fastmrigan::Limits;
using fastmrigan::Task;

struct fmg_engine {
  fastmrigan::EngineOptions options;
  std::unique_ptr<fastmrigan::Engine> engine;

  // Calls of several threads queue here.
  std::mutex mutex;
  std::condition_variable idle;
  bool busy = false;

  const fastmrigan::ModelFacts& model() const { return engine->model(); }
  int64_t in_height() const { return model().task == Task::sample ? 1 : model().height; }
  int64_t in_width() const {
    return model().task == Task::sample ? model().latent_size : model().width;
  }
};

namespace {

constexpr int32_t MAX_BATCH = 4096, MAX_THREADS = 4096;

thread_local char last_error[1024] = "";

int fail(int code, const char* text) {
  std::snprintf(last_error, sizeof last_error, "%s", text);
  for (char* c = last_error; *c != '\0'; ++c)
    if (*c == '\n' || *c == '\r') *c = ' ';
  return code;
}

template <typename Body>
int guarded(const char* function, const Body& body) noexcept {
  char text[256];
  try {
    body();
    return FMG_OK;
  } catch (const Error& error) {
    return fail(error.code, error.what());
  } catch (const std::bad_alloc&) {
    std::snprintf(text, sizeof text, "%s: out of memory; take a smaller batch", function);
    return fail(FMG_ERROR_MEMORY, text);
  } catch (const std::length_error&) {  // more than a vector can ever hold
    std::snprintf(text, sizeof text, "%s: out of memory; take fewer slices", function);
    return fail(FMG_ERROR_MEMORY, text);
  } catch (const std::system_error& error) {
    std::snprintf(text, sizeof text, "%s: the system gives no thread: %s", function, error.what());
    return fail(FMG_ERROR_MEMORY, text);
  } catch (const std::exception& error) {
    std::snprintf(text, sizeof text, "%s: a bug of ours, please report it: %s", function,
                  error.what());
  } catch (...) {
    std::snprintf(text, sizeof text, "%s: a bug of ours, please report it", function);
  }
  return fail(FMG_ERROR_BUG, text);
}

void need(bool holds, const char* text) {
  if (!holds) throw Error(FMG_ERROR_ARGUMENT, text);
}

// A struct's size is its version: a caller compiled against another header is told so.
void check_size(const char* what, size_t given, size_t expected, int code) {
  if (given != expected)
    throw Error(code, std::string(what) + " is " + std::to_string(given) + ", expected " +
                          std::to_string(expected) +
                          ": set it, and compile against this version's header");
}

int usable_cores() {
  cpu_set_t set;
  CPU_ZERO(&set);
  return sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
}

struct Backend {
  const char* name;
  std::unique_ptr<fastmrigan::Engine> (*open)(const fastmrigan::ModelBytes& file,
                                              const fastmrigan::EngineOptions& options);
  bool reads;  // the file by itself
};

constexpr Backend BACKENDS[] = {{"openvino", fastmrigan::open_openvino, false},
                                {"onnxruntime", fastmrigan::open_onnxruntime, false},
                                {"tensorrt", fastmrigan::open_tensorrt, true}};

const Backend& find_backend(const std::string& name) {
  for (const Backend& backend : BACKENDS)
    if (name == backend.name) return backend;
  throw Error(FMG_ERROR_OPTIONS,
              "backend '" + name + "': unknown; take openvino, onnxruntime or tensorrt");
}

// How an engine is to be opened.
struct Setup {
  Backend backend;
  fastmrigan::EngineOptions options;
};

Setup check_options(const fmg_options* given) {
  fmg_options options;
  fmg_options_init(&options);
  if (given != nullptr) {
    check_size("fmg_options.size", given->size, sizeof(fmg_options), FMG_ERROR_OPTIONS);
    options = *given;
  }
  const auto refuse = [](const std::string& text) { return Error(FMG_ERROR_OPTIONS, text); };
  const Backend& backend = find_backend(options.backend != nullptr ? options.backend : "openvino");
  const std::string precision = options.precision != nullptr ? options.precision : "auto";
  if (precision != "auto" && precision != "fp32" && precision != "bf16" && precision != "fp16" &&
      precision != "int8")
    throw refuse("precision '" + precision + "': expected auto, fp32, bf16, fp16 or int8");
  if (options.threads < 0 || options.threads > MAX_THREADS)
    throw refuse("threads " + std::to_string(options.threads) + ": expected 0 to " +
                 std::to_string(MAX_THREADS));
  if (options.batch < 1 || options.batch > MAX_BATCH)
    throw refuse("batch " + std::to_string(options.batch) + ": expected 1 to " +
                 std::to_string(MAX_BATCH));
  const int cores = usable_cores(), threads = options.threads > 0 ? options.threads : cores;
  return {backend,
          {options.library != nullptr ? options.library : "", precision, threads, threads == cores,
           options.batch}};
}

fmg_engine* open(const fastmrigan::ModelBytes& file, const Setup& setup) {
  auto opened = std::make_unique<fmg_engine>();
  opened->options = setup.options;
  opened->engine = setup.backend.open(file, setup.options);
  return opened.release();
}

// An engine for one call alone.
class Turn {
 public:
  Turn(fmg_engine& engine, const Limits& limits) : engine_(engine) {
    std::unique_lock<std::mutex> lock(engine.mutex);
    while (engine.busy) {
      limits.check();
      if (limits.none())
        engine.idle.wait(lock);
      else
        engine.idle.wait_until(lock, limits.next_look());
    }
    engine.busy = true;
  }

  ~Turn() {
    {
      const std::lock_guard<std::mutex> lock(engine_.mutex);
      engine_.busy = false;
    }
    engine_.idle.notify_one();
  }

  Turn(const Turn&) = delete;
  Turn& operator=(const Turn&) = delete;

 private:
  fmg_engine& engine_;
};

void run(const char* function, fmg_engine& engine, const Layout& in, int64_t n, const Layout& out,
         const Limits& limits) {
  const Turn turn(engine, limits);
  fastmrigan::Engine& backend = *engine.engine;
  const int64_t batch = engine.options.batch, slice = engine.in_height() * engine.in_width();
  for (int64_t first = 0; first < n; first += batch) {
    limits.check();
    const int64_t count = n - first < batch ? n - first : batch;
    if (!in.read(first, count, backend.input()))
      throw Error(FMG_ERROR_INPUT, std::string(function) +
                                       ": the input holds NaN or infinite values; mend it first");
    std::memset(backend.input() + count * slice, 0,
                static_cast<size_t>((batch - count) * slice) * sizeof(float));
    backend.run(limits);
    if (!out.write(first, count, backend.output()))
      throw Error(FMG_ERROR_OUTPUT, std::string(function) +
                                        ": the model makes NaN or infinite "
                                        "pixels; train it again");
  }
  limits.check();  // FMG_OK is a promise that the slices were there in time
}

fmg_slices dense(float* data) {
  return {sizeof(fmg_slices), data, FMG_FLOAT32, FMG_SCALE_MODEL, 0, 0, 0, 0, 0};
}

}  // namespace

const char* fmg_version(void) { return FASTMRIGAN_VERSION; }

const char* fmg_last_error(void) { return last_error; }

const char* fmg_code_name(int code) {
  static const char* const names[] = {"FMG_OK",
                                      "FMG_ERROR_ARGUMENT",
                                      "FMG_ERROR_OPTIONS",
                                      "FMG_ERROR_FILE",
                                      "FMG_ERROR_MODEL",
                                      "FMG_ERROR_BACKEND_MISSING",
                                      "FMG_ERROR_BACKEND_VERSION",
                                      "FMG_ERROR_BACKEND",
                                      "FMG_ERROR_INPUT",
                                      "FMG_ERROR_OUTPUT",
                                      "FMG_ERROR_DEADLINE",
                                      "FMG_ERROR_CANCELLED",
                                      "FMG_ERROR_MEMORY",
                                      "FMG_ERROR_BUG"};
  const bool known = code >= 0 && static_cast<size_t>(code) < sizeof names / sizeof names[0];
  return known ? names[code] : "unknown code";
}

void fmg_options_init(fmg_options* options) {
  if (options != nullptr) *options = {sizeof(fmg_options), "openvino", nullptr, "auto", 0, 1};
}

int fmg_open(const char* path, const fmg_options* options, fmg_engine** engine) {
  if (engine != nullptr) *engine = nullptr;
  return guarded("fmg_open", [&] {
    need(path != nullptr, "fmg_open: path is NULL");
    need(engine != nullptr, "fmg_open: engine is NULL");
    const Setup setup = check_options(options);
    std::vector<uint8_t> data;
    if (!setup.backend.reads) data = fastmrigan::read_file(path);
    *engine = open({path, true, data.data(), data.size()}, setup);
  });
}

int fmg_open_memory(const void* data, size_t size, const fmg_options* options,
                    fmg_engine** engine) {
  if (engine != nullptr) *engine = nullptr;
  return guarded("fmg_open_memory", [&] {
    need(data != nullptr, "fmg_open_memory: data is NULL");
    need(engine != nullptr, "fmg_open_memory: engine is NULL");
    const auto* bytes = static_cast<const uint8_t*>(data);
    *engine = open({"model in memory", false, bytes, size}, check_options(options));
  });
}

void fmg_close(fmg_engine* engine) { delete engine; }

int fmg_get_info(const fmg_engine* engine, fmg_info* info) {
  return guarded("fmg_get_info", [&] {
    need(engine != nullptr, "fmg_get_info: engine is NULL");
    need(info != nullptr, "fmg_get_info: info is NULL");
    check_size("fmg_info.size", info->size, sizeof(fmg_info), FMG_ERROR_ARGUMENT);
    const fastmrigan::ModelFacts& model = engine->model();
    const fastmrigan::EngineFacts& facts = engine->engine->facts();
    info->task = model.task == Task::sample ? FMG_SAMPLE : FMG_TRANSLATE;
    info->height = model.height;
    info->width = model.width;
    info->latent_size = model.latent_size;
    info->batch = engine->options.batch;
    info->threads = engine->options.threads;
    info->backend = facts.backend.c_str();
    info->backend_version = facts.version.c_str();
    info->device = facts.device.c_str();
    info->precision = facts.precision.c_str();
    info->why_precision = facts.why_precision.c_str();
    info->recipe = model.recipe.c_str();
    info->source_contrast = model.source_contrast.c_str();
    info->target_contrast = model.target_contrast.c_str();
    info->graph_sha256 = model.graph_sha256.c_str();
  });
}

int fmg_run(fmg_engine* engine, const float* in, int64_t n, float* out) {
  return guarded("fmg_run", [&] {
    need(engine != nullptr, "fmg_run: engine is NULL");
    need(in != nullptr, "fmg_run: in is NULL");
    need(out != nullptr, "fmg_run: out is NULL");
    need(n >= 0, "fmg_run: n is negative");
    const fmg_slices from = dense(const_cast<float*>(in)), to = dense(out);
    const fastmrigan::ModelFacts& model = engine->model();
    const Layout source("fmg_run", "in", &from, engine->in_height(), engine->in_width(), n);
    const Layout target("fmg_run", "out", &to, model.height, model.width, n);
    run("fmg_run", *engine, source, n, target, Limits());
  });
}

int fmg_run_slices(fmg_engine* engine, const fmg_slices* in, int64_t n, const fmg_slices* out,
                   const fmg_call* call) {
  return guarded("fmg_run_slices", [&] {
    need(engine != nullptr, "fmg_run_slices: engine is NULL");
    need(n >= 0, "fmg_run_slices: n is negative");
    Limits limits;
    if (call != nullptr) {
      check_size("fmg_call.size", call->size, sizeof(fmg_call), FMG_ERROR_ARGUMENT);
      need(call->deadline_us >= 0, "fmg_run_slices: deadline_us is negative");
      limits = Limits(call->deadline_us, call->cancel);
    }
    const fastmrigan::ModelFacts& model = engine->model();
    const Layout source("fmg_run_slices", "in", in, engine->in_height(), engine->in_width(), n);
    const Layout target("fmg_run_slices", "out", out, model.height, model.width, n);
    run("fmg_run_slices", *engine, source, n, target, limits);
  });
}

int fmg_measure(const fmg_engine* engine, const fmg_slices* in, int64_t n, double* low,
                double* high) {
  return guarded("fmg_measure", [&] {
    need(engine != nullptr, "fmg_measure: engine is NULL");
    need(low != nullptr && high != nullptr, "fmg_measure: low or high is NULL");
    need(n >= 1, "fmg_measure: n is not at least 1");
    const fastmrigan::ModelFacts& model = engine->model();
    need(model.task == Task::translate, "fmg_measure: the model samples; it takes no slices");
    if (!model.rule)
      throw Error(FMG_ERROR_MODEL,
                  "fmg_measure: the model file states no grading rule that this "
                  "library knows; give low and high yourself");
    const Layout source("fmg_measure", "in", in, model.height, model.width, n, false);
    int64_t pixels = 0;
    need(!__builtin_mul_overflow(n, int64_t{model.height} * model.width, &pixels),
         "fmg_measure: n is beyond any memory");
    std::vector<float> values(static_cast<size_t>(pixels));
    if (!source.read(0, n, values.data()))
      throw Error(FMG_ERROR_INPUT,
                  "fmg_measure: the slices hold NaN or infinite values; mend them first");
    fastmrigan::measure(values, *model.rule, *low, *high);
  });
}
