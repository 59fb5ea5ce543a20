// What every backend offers the C library: a model compiled for one batch size, run synchronously.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "model_file/model_file.h"

namespace fastmrigan {

struct EngineOptions {
  std::string library;    // path of the backend's C library; empty: its plain name
  std::string precision;  // fp32, bf16 or auto
  int threads;            // at least 1
  int batch;              // at least 1
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

  const EngineFacts& facts() const { return facts_; }

 protected:
  EngineFacts facts_;
};

// name: what messages call the model. Throws Error FMG_ERROR_OPTIONS, FMG_ERROR_MODEL,
// FMG_ERROR_BACKEND_MISSING, FMG_ERROR_BACKEND_VERSION, FMG_ERROR_BACKEND.
std::unique_ptr<Engine> open_openvino(const std::string& name, const uint8_t* data, size_t size,
                                      const ModelFacts& model, const EngineOptions& options);

}  // namespace fastmrigan
