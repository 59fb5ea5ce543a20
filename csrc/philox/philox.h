// Latents: standard normal numbers from the counter-based generator Philox4x32-10 (Salmon, Moraes,
// Dror, Shaw: Parallel random numbers: as easy as 1, 2, 3; SC 2011) and the Box-Muller transform.
//
// Number j of latent i under a seed depends on (seed, i, j) alone: counter (i low, i high, j / 4,
// 0) under key (seed low, seed high) gives four 32-bit words a, b, c, d; the pairs (a, b) and (c,
// d) each give two normals r cos t and r sin t with
//   r = sqrt(-2 ln((a + 1) / 2^32)),  t = 2 pi b / 2^32.
// Only + - * / and sqrt of IEEE doubles are used, so the bits are the same on every instruction
// set, thread count and on CUDA; the result is rounded to float once, at the end.
#pragma once

#include <cstdint>

#include "core/isa.h"

namespace fastmrigan {

// out: [count, dim] row-major float, latents first .. first + count - 1 of the seed.
// threads: 0 lets OpenMP choose.
void philox_normal(uint64_t seed, uint64_t first, int64_t count, int64_t dim, int threads,
                   float* out);

// The raw words of one counter under one key, for known-answer tests.
void philox_words(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4]);

// The same numbers into device memory, on the given cudaStream_t; does not synchronise.
// Throws std::runtime_error where the build has no CUDA or the launch fails.
void philox_normal_cuda(uint64_t seed, uint64_t first, int64_t count, int64_t dim, void* stream,
                        float* device_out);

extern const bool cuda_compiled;

FASTMRIGAN_DECLARE_PER_ISA(void philox_normal(uint64_t seed, uint64_t first, int64_t count,
                                              int64_t dim, int threads, float* out))

}  // namespace fastmrigan
