// Fused instance normalisation: statistics, affine, activation and residual in one read and one
// write of x, forward and backward. Pointers, shapes and strides only; every field is checked at
// the Python face, inside it is assumed.
//
//   t = x - mean          over the `plane` elements of one (n, c)
//   z = t * rstd * weight + bias
//   y = act(z) + residual
#pragma once

#include <cstdint>

#include "core/isa.h"

namespace fastmrigan {

enum class Dtype : int { float32 = 0, bfloat16 = 1, float16 = 2 };
enum class Activation : int { none = 0, relu = 1, leaky_relu = 2 };

// Where the elements of a [N, C, plane] tensor stand. One of the two holds, for every tensor of a
// call alike:
//   channels_last false: element (n, c, i) is at n * batch_stride + c * step + i
//   channels_last true:  element (n, c, i) is at n * batch_stride + i * step + c
// so that slices of a larger tensor along N and C need no copy.
struct Strides {
  int64_t batch_stride;
  int64_t step;
};

struct InstanceNorm {
  int64_t batch;     // N
  int64_t channels;  // C, at least 1
  int64_t plane;     // H * W or D * H * W, at least 1
  bool channels_last;
  Dtype dtype;  // storage of x, residual, y, grad_y and grad_x; arithmetic is in float
  Activation activation;
  float slope;  // of leaky_relu
  double eps;
  const float* weight;  // [C] or null: ones
  const float* bias;    // [C] or null: zeros
  const void* x;
  Strides x_strides;
};

struct InstanceNormForward : InstanceNorm {
  const void* residual;  // or null
  Strides residual_strides;
  void* y;  // may be x or residual itself
  Strides y_strides;
  // [3, N, C], for the backward: the mean rounded to float, what the rounding left (mean = sum of
  // the two; a mean of 1e4 would otherwise move the result by 5e-4 standard deviations), and
  // 1 / sqrt(var + eps).
  float* statistics;
};

// The gradient of the residual is grad_y itself.
struct InstanceNormBackward : InstanceNorm {
  const float* statistics;  // [3, N, C], from the forward
  const void* grad_y;
  Strides grad_y_strides;
  void* grad_x;  // or null; with null, only the sums are made
  Strides grad_x_strides;
  // [2, N, C]: the sums over the plane of dz and of dz * t * rstd, where dz = grad_y * act'(z).
  float* sums;
  float* grad_weight;  // [C] or null: the sum over N of sums[1]
  float* grad_bias;    // [C] or null: the sum over N of sums[0]
};

// On the CPU: float32 and bfloat16. threads: at least 1; the bits do not depend on it.
// Throws std::invalid_argument for another dtype.
void instance_norm_forward(const InstanceNormForward& call, int threads);
void instance_norm_backward(const InstanceNormBackward& call, int threads);

FASTMRIGAN_DECLARE_PER_ISA(void instance_norm_forward(const InstanceNormForward& call, int threads))
FASTMRIGAN_DECLARE_PER_ISA(void instance_norm_backward(const InstanceNormBackward& call,
                                                       int threads))

// On the current CUDA device: float32, bfloat16 and float16, all pointers on that device. Enqueues
// on `stream` (a cudaStream_t) and returns; no synchronisation, no allocation, no atomics.
// Throws std::runtime_error with CUDA's words where a launch fails.
void instance_norm_forward_cuda(const InstanceNormForward& call, void* stream);
void instance_norm_backward_cuda(const InstanceNormBackward& call, void* stream);

}  // namespace fastmrigan
