#include "frechet/moments_kernel.cuh"

namespace fastmrigan {

void moments_update_cuda(const MomentsUpdate<float>& call, void* stream) {
  if (call.rows > 0 && call.d > 0)
    device::require(moments::launch_update(call, stream), "moments_update_cuda");
}

void moments_update_cuda(const MomentsUpdate<double>& call, void* stream) {
  if (call.rows > 0 && call.d > 0)
    device::require(moments::launch_update(call, stream), "moments_update_cuda");
}

}  // namespace fastmrigan
