#include "frechet/moments.h"

#include <omp.h>

#include <algorithm>

namespace fastmrigan {

// Waking a thread costs about as much as the products it would have to make.
static int useful_threads(int64_t products, int threads) {
  const int64_t products_a_thread = int64_t{1} << 20;
  if (threads == 0) threads = omp_get_max_threads();
  return static_cast<int>(std::clamp<int64_t>(products / products_a_thread, 1, threads));
}

void moments_update(const MomentsUpdate<float>& call, int threads) {
  threads = useful_threads(call.rows * call.d * call.d / 2, threads);
  FASTMRIGAN_CALL_PER_ISA(moments_update(call, threads))
}

void moments_update(const MomentsUpdate<double>& call, int threads) {
  threads = useful_threads(call.rows * call.d * call.d / 2, threads);
  FASTMRIGAN_CALL_PER_ISA(moments_update(call, threads))
}

void moments_covariance(const double* sums, const double* products, int64_t n, int64_t d,
                        int threads, double* covariance) {
  threads = useful_threads(d * d, threads);
  const int64_t tile = 32;  // two tiles, one of them turned over, fit into the first cache
  const double count = static_cast<double>(n);
#pragma omp parallel for num_threads(threads) schedule(dynamic, 1) if (threads > 1)
  for (int64_t top = 0; top < d; top += tile) {
    for (int64_t left = top; left < d; left += tile) {
      for (int64_t i = top; i < std::min(top + tile, d); ++i) {
        const double share = sums[i] / count;
        for (int64_t j = std::max(i, left); j < std::min(left + tile, d); ++j) {
          const double value = (products[i * d + j] - share * sums[j]) / (count - 1);
          covariance[i * d + j] = covariance[j * d + i] = value;
        }
      }
    }
  }
}

}  // namespace fastmrigan
