// Linked where CUDA is absent.
#include "philox/philox.h"

#include <stdexcept>

namespace fastmrigan {

const bool cuda_compiled = false;

void philox_normal_cuda(uint64_t, uint64_t, int64_t, int64_t, void*, float*) {
  throw std::runtime_error(
      "philox_normal_cuda: this build has no CUDA kernels; build with FASTMRIGAN_CUDA=ON");
}

}  // namespace fastmrigan
