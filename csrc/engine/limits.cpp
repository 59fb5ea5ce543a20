#include <algorithm>

#include "core/error.h"
#include "engine/engine.h"
#include "include/fastmrigan.h"

namespace fastmrigan {

Limits::Limits(int64_t deadline_us, const volatile int* cancel)
    : has_deadline_(deadline_us > 0), cancel_(cancel) {
  if (!has_deadline_) return;
  // A week is as good as for ever, and does not overflow the clock.
  constexpr int64_t WEEK = int64_t{7} * 24 * 3600 * 1000000;
  deadline_ = Clock::now() + std::chrono::microseconds(std::min(deadline_us, WEEK));
}

bool Limits::cancelled() const {
  return cancel_ != nullptr && __atomic_load_n(cancel_, __ATOMIC_ACQUIRE) != 0;
}

void Limits::stop() const {
  if (late() && !cancelled())
    throw Error(FMG_ERROR_DEADLINE,
                "fmg_run_slices: the deadline passed; give it more time, more threads or fewer "
                "slices");
  throw Error(FMG_ERROR_CANCELLED, "fmg_run_slices: cancelled by the caller");
}

Limits::Clock::time_point Limits::next_look() const {
  if (cancel_ == nullptr) return deadline_;
  const auto soon = Clock::now() + std::chrono::milliseconds(1);
  return has_deadline_ ? std::min(soon, deadline_) : soon;
}

}  // namespace fastmrigan
