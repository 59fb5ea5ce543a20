// What every backend offers the C library: a model ready for one batch size, run synchronously.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include "model_file/model_file.h"

namespace fastmrigan {

struct EngineOptions {
  std::string library;    // path of the backend's C library; empty: its plain name
  std::string precision;  // fp32, bf16, fp16, int8 or auto
  int threads;            // at least 1
  // Whether they are as many as the process may use. Else they are not pinned: each process counts
  // its cores from the first, and two of one thread would share a core.
  bool all_cores;
  int batch;  // at least 1
};

// The whole of a model file. Of a TensorRT engine the name alone: it is read piece by piece, as far
// as its checks hold.
struct ModelBytes {
  std::string name;  // what messages call it: its path where it has one
  bool has_path;
  const uint8_t* data;  // nullptr: not read
  size_t size;
};

// What ends a call early.
class Limits {
 public:
  using Clock = std::chrono::steady_clock;

  Limits() = default;
  Limits(int64_t deadline_us, const volatile int* cancel);

  bool none() const { return !has_deadline_ && cancel_ == nullptr; }
  bool reached() const { return cancelled() || late(); }
  // Throws Error FMG_ERROR_DEADLINE or, even where the flag has been taken back since,
  // FMG_ERROR_CANCELLED.
  [[noreturn]] void stop() const;
  void check() const {
    if (reached()) stop();
  }
  // When to look again: at the deadline, or in a millisecond where a flag must be watched.
  Clock::time_point next_look() const;

 private:
  bool cancelled() const;
  bool late() const { return has_deadline_ && Clock::now() >= deadline_; }

  bool has_deadline_ = false;
  Clock::time_point deadline_{};
  const volatile int* cancel_ = nullptr;
};

struct EngineFacts {
  std::string backend, version, device, precision, why_precision;
};

// One compiled model. Its calls must not overlap.
class Engine {
 public:
  virtual ~Engine() = default;

  virtual float* input() = 0;         // [batch, latent] or [batch, 1, H, W]
  virtual const float* output() = 0;  // [batch, 1, H, W]

  // Throws Error FMG_ERROR_BACKEND, FMG_ERROR_DEADLINE, FMG_ERROR_CANCELLED.
  virtual void run(const Limits& limits) = 0;

  const ModelFacts& model() const { return model_; }
  const EngineFacts& facts() const { return facts_; }

 protected:
  explicit Engine(ModelFacts model) : model_(std::move(model)) {}

  const ModelFacts model_;
  EngineFacts facts_;
};

// Each checks the model and opens it. Throws Error FMG_ERROR_OPTIONS, FMG_ERROR_FILE,
// FMG_ERROR_MODEL, FMG_ERROR_BACKEND_MISSING (the backend was not built in, too),
// FMG_ERROR_BACKEND_VERSION, FMG_ERROR_BACKEND.
std::unique_ptr<Engine> open_openvino(const ModelBytes& file, const EngineOptions& options);
std::unique_ptr<Engine> open_onnxruntime(const ModelBytes& file, const EngineOptions& options);
std::unique_ptr<Engine> open_tensorrt(const ModelBytes& file, const EngineOptions& options);

}  // namespace fastmrigan
