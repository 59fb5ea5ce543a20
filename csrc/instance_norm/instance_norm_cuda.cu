#include <mutex>
#include <vector>

#include "instance_norm/launch.cuh"

namespace fastmrigan {

namespace {

using device::require;

// The largest cluster this device can run of the largest blocks. The attributes tell what the
// kernel in use was compiled for: code below sm_90 has no clusters, also where a newer device runs
// it from PTX.
norm::Limits ask_limits(int ordinal, const char* who) {
  const auto kernel = norm::forward_kernel<Dtype::float32, true, false, true>;
  norm::Limits limits{1024, 1};
  int major = 0;
  require(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, ordinal), who);
  cudaFuncAttributes attributes;
  require(cudaFuncGetAttributes(&attributes, kernel), who);
  if (major < 9 || attributes.ptxVersion < 90) return limits;
  for (int cluster = 8; cluster > 1; cluster /= 2) {
    cudaLaunchAttribute attribute;
    attribute.id = cudaLaunchAttributeClusterDimension;
    attribute.val.clusterDim = {static_cast<unsigned>(cluster), 1, 1};
    cudaLaunchConfig_t config{};
    config.gridDim = dim3(static_cast<unsigned>(cluster));
    config.blockDim = dim3(1024);
    config.attrs = &attribute;
    config.numAttrs = 1;
    int clusters = 0;
    require(cudaOccupancyMaxActiveClusters(&clusters, kernel, &config), who);
    if (clusters == 0) continue;
    limits.cluster = cluster;
    break;
  }
  return limits;
}

// Asked once a device.
norm::Limits limits_of_current_device(const char* who) {
  static std::mutex mutex;
  static std::vector<norm::Limits> known;  // by ordinal; threads 0 where not yet asked
  int ordinal = 0;
  require(cudaGetDevice(&ordinal), who);
  const std::lock_guard<std::mutex> lock(mutex);
  if (known.size() <= static_cast<size_t>(ordinal)) known.resize(ordinal + 1, {0, 0});
  if (known[ordinal].threads == 0) known[ordinal] = ask_limits(ordinal, who);
  return known[ordinal];
}

void require_countable(const InstanceNorm& call, const norm::Plan& plan, const char* who) {
  if (!norm::is_countable(call, plan))
    throw std::runtime_error(std::string(who) +
                             ": expected at most 2^30 planes of at most 2^30 elements, got " +
                             std::to_string(call.batch * call.channels) + " of " +
                             std::to_string(call.plane) + "; split the tensor");
}

}  // namespace

void instance_norm_forward_cuda(const InstanceNormForward& call, void* stream) {
  const char* who = "instance_norm_forward_cuda";
  if (call.batch == 0 || call.channels == 0) return;
  const norm::Plan plan = norm::plan_of(call, limits_of_current_device(who));
  require_countable(call, plan, who);
  require(norm::launch_forward(call, plan, stream), who);
}

void instance_norm_backward_cuda(const InstanceNormBackward& call, void* stream) {
  const char* who = "instance_norm_backward_cuda";
  if (call.channels == 0) return;
  if (call.batch != 0) {
    const norm::Plan plan = norm::plan_of(call, limits_of_current_device(who));
    require_countable(call, plan, who);
    require(norm::launch_backward(call, plan, stream), who);
  }
  // Also for an empty batch: the sum over no samples is zero.
  if (call.grad_weight != nullptr || call.grad_bias != nullptr)
    require(norm::launch_parameters(call, stream), who);
}

}  // namespace fastmrigan
