// Whether slices are numbers, ahead of an engine and behind it.
#pragma once

#include <cstdint>

#include "core/isa.h"

namespace fastmrigan {

// True unless one of x[0 .. count - 1] is NaN or infinite.
bool all_finite(const float* x, int64_t count);

FASTMRIGAN_DECLARE_PER_ISA(bool all_finite(const float* x, int64_t count))

}  // namespace fastmrigan
