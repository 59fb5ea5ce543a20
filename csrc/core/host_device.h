// FASTMRIGAN_HD before a function: compiled for the host, and by nvcc for the device as well, so
// that the host can test the arithmetic of kernels.
#pragma once

#ifdef __CUDACC__
#define FASTMRIGAN_HD __host__ __device__ __forceinline__
#else
#define FASTMRIGAN_HD inline __attribute__((always_inline))
#endif
