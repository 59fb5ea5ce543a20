// Slices for storage: float in [-1, 1] to unsigned integers.
#pragma once

#include <cstdint>

#include "core/isa.h"

namespace fastmrigan {

// out = rint((x + 1) * top / 2), clamped to 0 .. top (255 or 65535); ties go to the even number,
// and NaN becomes 0. All arithmetic in float.
void quantise(const float* x, int64_t count, uint8_t* out);
void quantise(const float* x, int64_t count, uint16_t* out);

FASTMRIGAN_DECLARE_PER_ISA(void quantise(const float* x, int64_t count, uint8_t* out))
FASTMRIGAN_DECLARE_PER_ISA(void quantise(const float* x, int64_t count, uint16_t* out))

}  // namespace fastmrigan
