#include <algorithm>
#include <cstring>

#include "finite/finite.h"

namespace fastmrigan::FASTMRIGAN_ISA_NAME {

bool all_finite(const float* x, int64_t count) {
  // Without their signs, the bits of floats are in the floats' order; infinity and NaN come last.
  constexpr uint32_t magnitude = 0x7fffffff, infinity = 0x7f800000;
  uint32_t largest = 0;
  for (int64_t i = 0; i < count; ++i) {
    uint32_t bits;
    std::memcpy(&bits, x + i, sizeof bits);
    largest = std::max(largest, bits & magnitude);
  }
  return largest < infinity;
}

}  // namespace fastmrigan::FASTMRIGAN_ISA_NAME
