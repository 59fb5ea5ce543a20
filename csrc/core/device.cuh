// What the kernels need of a CUDA device beyond the language: packets of elements, clusters and the
// launch. The tests put their emulation in its place, to run the same kernels on the host.
#pragma once

#ifdef FASTMRIGAN_CUDA_ON_HOST
#include "cuda_on_host.h"
#else

#include <cooperative_groups.h>
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>
#include <stdexcept>
#include <string>

namespace fastmrigan::device {

template <typename Raw>
__device__ __forceinline__ Raw load(const void* at) {
  return *static_cast<const Raw*>(at);
}

template <typename Raw>
__device__ __forceinline__ void store(void* at, Raw raw) {
  *static_cast<Raw*>(at) = raw;
}

__device__ __forceinline__ float float_of_bits(uint32_t bits) { return __uint_as_float(bits); }
__device__ __forceinline__ uint32_t bits_of_float(float value) { return __float_as_uint(value); }

__device__ __forceinline__ float float_of_half(uint16_t bits) {
  return __half2float(__ushort_as_half(bits));
}

// Two floats rounded to nearest, the first in the low half.
__device__ __forceinline__ uint32_t bits_of_halves(float low, float high) {
  const __half2 pair = __floats2half2_rn(low, high);
  return __half_as_ushort(__low2half(pair)) |
         (static_cast<uint32_t>(__half_as_ushort(__high2half(pair))) << 16);
}

__device__ __forceinline__ uint32_t bits_of_bfloats(float low, float high) {
#if __CUDA_ARCH__ < 800
  // No instruction rounds to bfloat16 there, and the header's way costs a spill.
  const auto round = [](float value) {
    const uint32_t bits = __float_as_uint(value);
    return value != value ? 0x7FFFu : (bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16;
  };
  return round(low) | (round(high) << 16);
#else
  const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
  return __bfloat16_as_ushort(__low2bfloat16(pair)) |
         (static_cast<uint32_t>(__bfloat16_as_ushort(__high2bfloat16(pair))) << 16);
#endif
}

extern __shared__ float4 shared_float4[];

template <typename T>
__device__ __forceinline__ T* shared_memory() {
  return reinterpret_cast<T*>(shared_float4);
}

// The cluster of blocks. Below sm_90 there is none, and the host asks for none.
__device__ __forceinline__ void cluster_arrive() {
#if __CUDA_ARCH__ >= 900
  cooperative_groups::this_cluster().barrier_arrive();
#endif
}

__device__ __forceinline__ void cluster_wait() {
#if __CUDA_ARCH__ >= 900
  cooperative_groups::this_cluster().barrier_wait();
#endif
}

// The same place in the shared memory of another block of the cluster.
template <typename T>
__device__ __forceinline__ T* cluster_map(T* at, int rank) {
#if __CUDA_ARCH__ >= 900
  return cooperative_groups::this_cluster().map_shared_rank(at, rank);
#else
  return at;
#endif
}

inline void require(cudaError_t status, const char* who) {
  if (status == cudaSuccess) return;
  cudaGetLastError();  // the next call must not find this failure
  throw std::runtime_error(std::string(who) + ": " + cudaGetErrorString(status));
}

template <typename... Arguments>
cudaError_t launch(void (*kernel)(Arguments...), int64_t blocks, int threads, size_t shared_bytes,
                   int cluster, void* stream, const Arguments&... arguments) {
  cudaLaunchAttribute attribute;
  attribute.id = cudaLaunchAttributeClusterDimension;
  attribute.val.clusterDim.x = static_cast<unsigned>(cluster);
  attribute.val.clusterDim.y = attribute.val.clusterDim.z = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>(blocks));
  config.blockDim = dim3(static_cast<unsigned>(threads));
  config.dynamicSmemBytes = shared_bytes;
  config.stream = static_cast<cudaStream_t>(stream);
  config.attrs = &attribute;
  config.numAttrs = cluster > 1 ? 1 : 0;
  return cudaLaunchKernelEx(&config, kernel, arguments...);
}

}  // namespace fastmrigan::device

#endif
