#include <cuda_runtime.h>

#include <stdexcept>
#include <string>

#include "philox/philox.h"
#include "philox/philox_math.h"

namespace fastmrigan {

const bool cuda_compiled = true;

namespace {

// One thread makes the four numbers of one block of one latent.
__global__ void normals_kernel(uint64_t seed, uint64_t first, int64_t count, int64_t dim,
                               float* out) {
  const int64_t blocks = (dim + 3) / 4;
  const int64_t work = count * blocks;
  const int64_t stride = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t at = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; at < work;
       at += stride) {
    const int64_t i = at / blocks;
    const int64_t j = 4 * (at % blocks);
    float four[4];
    philox::normals(seed, first + static_cast<uint64_t>(i), static_cast<uint32_t>(j / 4), four);
    for (int k = 0; k < 4 && j + k < dim; ++k) out[i * dim + j + k] = four[k];
  }
}

}  // namespace

void philox_normal_cuda(uint64_t seed, uint64_t first, int64_t count, int64_t dim, void* stream,
                        float* device_out) {
  const int64_t work = count * ((dim + 3) / 4);
  if (work <= 0) return;
  const int threads = 256;
  const int64_t wanted = (work + threads - 1) / threads;
  const int grid = static_cast<int>(wanted < 65536 ? wanted : 65536);
  normals_kernel<<<grid, threads, 0, static_cast<cudaStream_t>(stream)>>>(seed, first, count, dim,
                                                                          device_out);
  const cudaError_t status = cudaGetLastError();
  if (status != cudaSuccess)
    throw std::runtime_error(std::string("philox_normal_cuda: ") + cudaGetErrorString(status));
}

}  // namespace fastmrigan
