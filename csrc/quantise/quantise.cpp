#include "quantise/quantise.h"

namespace fastmrigan {

void quantise(const float* x, int64_t count, uint8_t* out) {
  FASTMRIGAN_CALL_PER_ISA(quantise(x, count, out))
}

void quantise(const float* x, int64_t count, uint16_t* out) {
  FASTMRIGAN_CALL_PER_ISA(quantise(x, count, out))
}

}  // namespace fastmrigan
