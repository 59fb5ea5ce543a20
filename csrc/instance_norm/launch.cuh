// From a call and its plan to the kernel that runs it.
#pragma once

#include <type_traits>

#include "instance_norm/instance_norm_kernels.cuh"

namespace fastmrigan::norm {

// Calls launch(dtype, wide, channels_last, once) with the four as types, so that they can name a
// kernel.
template <typename Launch>
auto for_variant(const InstanceNorm& call, const Plan& plan, Launch launch) {
  const auto with_layout = [&](auto dtype, auto wide, auto channels_last) {
    if constexpr (has_once(decltype(wide)::value, decltype(channels_last)::value))
      if (plan.chunks == 1) return launch(dtype, wide, channels_last, std::true_type());
    return launch(dtype, wide, channels_last, std::false_type());
  };
  const auto with_width = [&](auto dtype, auto wide) {
    return call.channels_last ? with_layout(dtype, wide, std::true_type())
                              : with_layout(dtype, wide, std::false_type());
  };
  const auto with_dtype = [&](auto dtype) {
    return plan.wide ? with_width(dtype, std::true_type()) : with_width(dtype, std::false_type());
  };
  switch (call.dtype) {
    case Dtype::float32:
      return with_dtype(std::integral_constant<Dtype, Dtype::float32>());
    case Dtype::bfloat16:
      return with_dtype(std::integral_constant<Dtype, Dtype::bfloat16>());
    default:
      return with_dtype(std::integral_constant<Dtype, Dtype::float16>());
  }
}

inline auto launch_forward(const InstanceNormForward& call, const Plan& plan, void* stream) {
  return for_variant(call, plan, [&](auto dtype, auto wide, auto channels_last, auto once) {
    return device::launch(forward_kernel<decltype(dtype)::value, decltype(wide)::value,
                                         decltype(channels_last)::value, decltype(once)::value>,
                          plan.blocks, plan.threads, table_bytes<Moments>(plan), plan.cluster,
                          stream, call, plan);
  });
}

inline auto launch_backward(const InstanceNormBackward& call, const Plan& plan, void* stream) {
  return for_variant(call, plan, [&](auto dtype, auto wide, auto channels_last, auto once) {
    return device::launch(backward_kernel<decltype(dtype)::value, decltype(wide)::value,
                                          decltype(channels_last)::value, decltype(once)::value>,
                          plan.blocks, plan.threads, table_bytes<Sums>(plan), plan.cluster, stream,
                          call, plan);
  });
}

inline auto launch_parameters(const InstanceNormBackward& call, void* stream) {
  const float* sums = call.sums;
  return device::launch(parameter_kernel, ceil_div(call.channels, 128), 128, 0, 1, stream, sums,
                        call.batch, call.channels, call.grad_weight, call.grad_bias);
}

}  // namespace fastmrigan::norm
