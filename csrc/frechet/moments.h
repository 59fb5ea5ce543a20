// Moments of feature rows, streamed: sums of the rows' deviations from a shift, and of the products
// of those deviations, in double. With a shift near the mean (the first chunk's, say) nothing
// cancels when they become a covariance:
//
//   mean = shift + sums / n,   covariance = (products - sums sumsᵀ / n) / (n - 1)
//
// (Chan, Golub, LeVeque: Algorithms for computing the sample variance, 1983, section 3). Pointers
// and shapes only; every field is checked at the Python face, inside it is assumed.
#pragma once

#include <cstdint>

#include "core/isa.h"

namespace fastmrigan {

template <typename T>  // float or double
struct MomentsUpdate {
  const T* x;          // row i begins at x + i * row_stride, its d features lie beside each other
  int64_t row_stride;  // elements
  int64_t rows, d;
  const double* shift;  // [d]
  double* sums;         // [d], added to
  double* products;     // [d, d] of which the elements on and above the diagonal are added to;
                        // those below hold nothing of use
};

// On the CPU. threads: 0 lets OpenMP choose; the bits do not depend on it. Beside the arrays it
// takes 8 d bytes for each of at most 384 rows.
void moments_update(const MomentsUpdate<float>& call, int threads);
void moments_update(const MomentsUpdate<double>& call, int threads);

FASTMRIGAN_DECLARE_PER_ISA(void moments_update(const MomentsUpdate<float>& call, int threads))
FASTMRIGAN_DECLARE_PER_ISA(void moments_update(const MomentsUpdate<double>& call, int threads))

// The covariance [d, d], both triangles, of n >= 2 rows.
void moments_covariance(const double* sums, const double* products, int64_t n, int64_t d,
                        int threads, double* covariance);

// The same update on the current CUDA device, all pointers on that device. Enqueues on `stream` (a
// cudaStream_t) and returns; no synchronisation, no allocation, no atomics.
// Throws std::runtime_error where the build has no CUDA or the launch fails.
void moments_update_cuda(const MomentsUpdate<float>& call, void* stream);
void moments_update_cuda(const MomentsUpdate<double>& call, void* stream);

}  // namespace fastmrigan
