// Ends a synchronous run at its limits, from a thread of its own.
#pragma once

#include <condition_variable>
#include <functional>
#include <mutex>
#include <thread>

#include "engine/engine.h"

namespace fastmrigan {

class Watch {
 public:
  // stop: asks the run to end; called in the watching thread, at most once a run.
  explicit Watch(std::function<void()> stop);
  ~Watch();

  // Around a run. `limits` must live until end(), which is true where the run was asked to end.
  void begin(const Limits& limits);
  bool end();

  Watch(const Watch&) = delete;
  Watch& operator=(const Watch&) = delete;

 private:
  void watch();

  const std::function<void()> stop_;
  std::mutex mutex_;
  std::condition_variable changed_;
  const Limits* limits_ = nullptr;  // of the run under way
  bool stopped_ = false, quit_ = false;
  std::thread thread_;
};

}  // namespace fastmrigan
