#include "ssim/ssim.h"

#include <omp.h>

#include <algorithm>

namespace fastmrigan {

void similarity(const Similarity& call, int threads) {
  // Waking a thread costs about as much as the pixels it would have to do.
  const int64_t pixels_a_thread = 16384;
  const int64_t useful = call.batch * call.height * call.width / pixels_a_thread;
  const int most = threads > 0 ? threads : omp_get_max_threads();
  threads = static_cast<int>(std::clamp<int64_t>(useful, 1, most));
  FASTMRIGAN_CALL_PER_ISA(similarity(call, threads))
}

}  // namespace fastmrigan
