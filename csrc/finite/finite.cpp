#include "finite/finite.h"

namespace fastmrigan {

bool all_finite(const float* x, int64_t count) {
  FASTMRIGAN_CALL_PER_ISA(all_finite(x, count))
  return false;  // no instruction set is left
}

}  // namespace fastmrigan
