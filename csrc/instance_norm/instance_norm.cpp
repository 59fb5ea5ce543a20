#include "instance_norm/instance_norm.h"

#include <algorithm>
#include <stdexcept>

namespace fastmrigan {

static void require_cpu_dtype(const InstanceNorm& call) {
  if (call.dtype != Dtype::float32 && call.dtype != Dtype::bfloat16)
    throw std::invalid_argument("instance_norm: the CPU kernels take float32 and bfloat16 alone");
}

// Waking a thread costs about as much as the elements it would have to do.
static int useful_threads(const InstanceNorm& call, int threads) {
  const int64_t elements_a_thread = 16384;
  const int64_t useful = call.batch * call.channels * call.plane / elements_a_thread;
  return static_cast<int>(std::clamp<int64_t>(useful, 1, threads));
}

void instance_norm_forward(const InstanceNormForward& call, int threads) {
  require_cpu_dtype(call);
  threads = useful_threads(call, threads);
  FASTMRIGAN_CALL_PER_ISA(instance_norm_forward(call, threads))
}

void instance_norm_backward(const InstanceNormBackward& call, int threads) {
  require_cpu_dtype(call);
  threads = useful_threads(call, threads);
  FASTMRIGAN_CALL_PER_ISA(instance_norm_backward(call, threads))
}

}  // namespace fastmrigan
