#include "philox/philox.h"

#include <stdexcept>

#include "philox/philox_math.h"

namespace fastmrigan {

void philox_normal(uint64_t seed, uint64_t first, int64_t count, int64_t dim, int threads,
                   float* out) {
  if (count < 0 || dim < 0 || threads < 0)
    throw std::invalid_argument("philox_normal: count, dim and threads must not be negative");
  if (dim / 4 > int64_t{0xFFFFFFFF})
    throw std::invalid_argument("philox_normal: dim must stay under 2^34");
  FASTMRIGAN_CALL_PER_ISA(philox_normal(seed, first, count, dim, threads, out))
}

void philox_words(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4]) {
  const philox::Words words =
      philox::rounds({{counter[0], counter[1], counter[2], counter[3]}}, key[0], key[1]);
  for (int k = 0; k < 4; ++k) out[k] = words.w[k];
}

}  // namespace fastmrigan
