// Linked where CUDA is absent.
#include "frechet/moments.h"

#include <stdexcept>

namespace fastmrigan {

static void refuse() {
  throw std::runtime_error(
      "moments: this build has no CUDA kernels; build with FASTMRIGAN_CUDA=ON");
}

void moments_update_cuda(const MomentsUpdate<float>&, void*) { refuse(); }

void moments_update_cuda(const MomentsUpdate<double>&, void*) { refuse(); }

}  // namespace fastmrigan
