// Linked where CUDA is absent.
#include "ssim/ssim.h"

#include <stdexcept>

namespace fastmrigan {

void similarity_cuda(const Similarity&, double*, void*) {
  throw std::runtime_error(
      "similarity: this build has no CUDA kernels; build with FASTMRIGAN_CUDA=ON");
}

int64_t similarity_cuda_workspace(const Similarity&) { return 0; }

}  // namespace fastmrigan
