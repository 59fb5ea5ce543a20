#include <omp.h>

#include "philox/philox.h"
#include "philox/philox_math.h"

namespace fastmrigan::FASTMRIGAN_ISA_NAME {

void philox_normal(uint64_t seed, uint64_t first, int64_t count, int64_t dim, int threads,
                   float* out) {
  // Waking threads costs more than a million numbers are worth.
  const bool parallel = count > 1 && count * dim >= (int64_t{1} << 20);
  const int team = !parallel ? 1 : threads > 0 ? threads : omp_get_max_threads();
#pragma omp parallel for num_threads(team) if (team > 1)
  for (int64_t i = 0; i < count; ++i) {
    float* row = out + i * dim;
    for (int64_t j = 0; j < dim; j += 4) {
      float four[4];
      philox::normals(seed, first + static_cast<uint64_t>(i), static_cast<uint32_t>(j / 4), four);
      for (int64_t k = 0; k < 4 && j + k < dim; ++k) row[j + k] = four[k];
    }
  }
}

}  // namespace fastmrigan::FASTMRIGAN_ISA_NAME
