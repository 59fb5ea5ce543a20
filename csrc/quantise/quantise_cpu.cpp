#include <limits>

#include "quantise/quantise.h"

namespace fastmrigan::FASTMRIGAN_ISA_NAME {

template <typename T>
static void quantise_to(const float* x, int64_t count, T* out) {
  constexpr float top = std::numeric_limits<T>::max();
  // A float this large has no digits after the point: adding it and taking it away rounds half to
  // even, in vectors of every instruction set, as std::lrint does not (ten times slower).
  constexpr float coarse = 3 << 22;
  for (int64_t i = 0; i < count; ++i) {
    float y = (x[i] + 1.0f) * (top / 2.0f);
    y = y > 0.0f ? y : 0.0f;  // false for NaN too
    y = y < top ? y : top;
    out[i] = static_cast<T>(static_cast<int32_t>((y + coarse) - coarse));
  }
}

void quantise(const float* x, int64_t count, uint8_t* out) { quantise_to(x, count, out); }

void quantise(const float* x, int64_t count, uint16_t* out) { quantise_to(x, count, out); }

}  // namespace fastmrigan::FASTMRIGAN_ISA_NAME
