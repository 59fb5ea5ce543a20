#include "ssim/ssim_kernels.cuh"

namespace fastmrigan {

void similarity_cuda(const Similarity& call, double* workspace, void* stream) {
  const char* who = "similarity_cuda";
  if (call.batch == 0) return;
  if (!ssim::is_countable(call))
    throw std::runtime_error(std::string(who) +
                             ": expected slices of at most 2^30 pixels and at most 2^30 tiles, "
                             "got " +
                             std::to_string(call.batch) + " slices of " +
                             std::to_string(call.height) + "x" + std::to_string(call.width) +
                             "; split the batch");
  const ssim::Plan plan = ssim::plan_of(call);
  device::require(ssim::launch_sums(call, plan, workspace, stream), who);
  device::require(ssim::launch_merge(call, plan, workspace, stream), who);
}

int64_t similarity_cuda_workspace(const Similarity& call) {
  return call.batch * ssim::plan_of(call).tiles * Similarity::terms;
}

}  // namespace fastmrigan
