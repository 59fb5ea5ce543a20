// What both layouts' CPU kernels do to a vector of elements. Compiled once per instruction set.
#pragma once

#include <cmath>
#include <type_traits>

#include "core/vector.h"
#include "instance_norm/instance_norm.h"

namespace fastmrigan::FASTMRIGAN_ISA_NAME {

// Sums of deviations from a value near the mean: exact enough in float, where sums of squares of
// the values themselves are not. Merged in double (Chan, Golub, LeVeque 1983).
struct Moments {
  double count = 0, mean = 0, m2 = 0;  // m2: the sum of squared deviations from the mean

  void merge(double n, double shift, double sum, double squares) {
    const double n_mean = shift + sum / n;
    const double n_m2 = squares - sum * sum / n;
    const double delta = n_mean - mean;
    const double total = count + n;
    mean += delta * n / total;
    m2 += n_m2 + delta * delta * count * n / total;
    count = total;
  }
};

// Statistics of one (n, c), as they are stored for the backward.
struct Statistics {
  float mean, mean_rest, rstd;

  Statistics(const Moments& moments, double eps) {
    const double variance = moments.m2 / moments.count;
    mean = static_cast<float>(moments.mean);
    mean_rest = static_cast<float>(moments.mean - mean);
    rstd = static_cast<float>(1 / std::sqrt((variance < 0 ? 0 : variance) + eps));
  }

  Statistics(const float* statistics, int64_t pair, int64_t pairs)
      : mean(statistics[pair]),
        mean_rest(statistics[pairs + pair]),
        rstd(statistics[2 * pairs + pair]) {}

  void write(float* statistics, int64_t pair, int64_t pairs) const {
    statistics[pair] = mean;
    statistics[pairs + pair] = mean_rest;
    statistics[2 * pairs + pair] = rstd;
  }
};

// z = (x - mean) * scale + shift, in forward and backward alike, so that both see the same sign.
struct Affine {
  float mean, scale, shift;

  Affine(const Statistics& s, float weight, float bias)
      : mean(s.mean), scale(s.rstd * weight), shift(bias - s.mean_rest * scale) {}
};

template <Activation activation>
inline Floats activate(Floats z, float slope) {
  if constexpr (activation == Activation::relu) return z < 0 ? Floats{} : z;  // NaN stays
  if constexpr (activation == Activation::leaky_relu) return z > 0 ? z : z * slope;
  return z;
}

// grad * act'(z), as PyTorch defines it at 0 and at NaN.
template <Activation activation>
inline Floats activate_backward(Floats grad, Floats z, float slope) {
  if constexpr (activation == Activation::relu) return z <= 0 ? Floats{} : grad;
  if constexpr (activation == Activation::leaky_relu) return z > 0 ? grad : grad * slope;
  return grad;
}

inline float weight_of(const InstanceNorm& call, int64_t c) {
  return call.weight ? call.weight[c] : 1.0f;
}

inline float bias_of(const InstanceNorm& call, int64_t c) {
  return call.bias ? call.bias[c] : 0.0f;
}

// The sums over N of what each plane found, in order.
inline void sum_over_batch(const InstanceNormBackward& call) {
  const int64_t pairs = call.batch * call.channels;
  for (int64_t c = 0; c < call.channels; ++c) {
    double weight = 0, bias = 0;
    for (int64_t n = 0; n < call.batch; ++n) {
      bias += call.sums[n * call.channels + c];
      weight += call.sums[pairs + n * call.channels + c];
    }
    if (call.grad_weight) call.grad_weight[c] = static_cast<float>(weight);
    if (call.grad_bias) call.grad_bias[c] = static_cast<float>(bias);
  }
}

void forward_contiguous(const InstanceNormForward& call, int threads);
void backward_contiguous(const InstanceNormBackward& call, int threads);
void forward_channels_last(const InstanceNormForward& call, int threads);
void backward_channels_last(const InstanceNormBackward& call, int threads);

// run(storage type, activation) of a call, chosen once.
template <typename T, typename Call, typename Run>
void with_activation(const Call& call, Run run) {
  switch (call.activation) {
    case Activation::none:
      return run(T{}, std::integral_constant<Activation, Activation::none>{});
    case Activation::relu:
      return run(T{}, std::integral_constant<Activation, Activation::relu>{});
    case Activation::leaky_relu:
      return run(T{}, std::integral_constant<Activation, Activation::leaky_relu>{});
  }
}

template <typename Call, typename Run>
void with_types(const Call& call, Run run) {
  if (call.dtype == Dtype::float32)
    with_activation<float>(call, run);
  else
    with_activation<Bfloat16>(call, run);
}

}  // namespace fastmrigan::FASTMRIGAN_ISA_NAME
