#include "engine/watch.h"

#include <utility>

namespace fastmrigan {

Watch::Watch(std::function<void()> stop) : stop_(std::move(stop)), thread_([this] { watch(); }) {}

Watch::~Watch() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    quit_ = true;
  }
  changed_.notify_one();
  thread_.join();
}

void Watch::begin(const Limits& limits) {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    limits_ = &limits;
    stopped_ = false;
  }
  changed_.notify_one();
}

bool Watch::end() {
  const std::lock_guard<std::mutex> lock(mutex_);
  limits_ = nullptr;  // the thread finds out when it next looks
  return stopped_;
}

void Watch::watch() {
  std::unique_lock<std::mutex> lock(mutex_);
  while (!quit_) {
    if (limits_ == nullptr) {
      changed_.wait(lock);
    } else if (limits_->reached()) {
      stopped_ = true;
      limits_ = nullptr;
      stop_();
    } else {
      changed_.wait_until(lock, limits_->next_look());
    }
  }
}

}  // namespace fastmrigan
