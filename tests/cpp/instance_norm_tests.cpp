// Instance norm's CPU kernels without Python, so that the sanitizers see our memory accesses alone:
// every buffer is exactly as large as the tensor in it.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <vector>

#include "check.h"
#include "instance_norm/instance_norm.h"

namespace {

using fastmrigan::Activation;
using fastmrigan::Dtype;
using fastmrigan::InstanceNormBackward;
using fastmrigan::InstanceNormForward;
using fastmrigan::Isa;

struct Kernels {
  const char* name;
  void (*forward)(const InstanceNormForward&, int);
  void (*backward)(const InstanceNormBackward&, int);
};

struct Case {
  int64_t batch, channels, plane;
  bool channels_last;
  Dtype dtype;
  Activation activation;
  bool affine, residual;

  int64_t size() const { return batch * channels * plane; }
  int64_t at(int64_t n, int64_t c, int64_t i) const {
    return n * channels * plane + (channels_last ? i * channels + c : c * plane + i);
  }
  fastmrigan::Strides strides() const {
    return {channels * plane, channels_last ? channels : plane};
  }
};

// A tensor in the storage of its case, exactly sized, and the values it holds.
struct Stored {
  std::vector<char> bytes;
  Dtype dtype;

  Stored(Dtype storage, int64_t size) : bytes(size * (storage == Dtype::float32 ? 4 : 2)) {
    dtype = storage;
  }

  void* data() { return bytes.data(); }

  double get(int64_t i) const {
    float value;
    if (dtype == Dtype::float32) {
      std::memcpy(&value, &bytes[4 * i], 4);
    } else {
      char word[4] = {0, 0, bytes[2 * i], bytes[2 * i + 1]};
      std::memcpy(&value, word, 4);
    }
    return value;
  }

  // Truncated to bfloat16 where that is the storage: get() says what the kernel sees.
  void set(int64_t i, float value) {
    if (dtype == Dtype::float32) {
      std::memcpy(&bytes[4 * i], &value, 4);
    } else {
      char word[4];
      std::memcpy(word, &value, 4);
      std::memcpy(&bytes[2 * i], word + 2, 2);
    }
  }
};

Stored random_tensor(const Case& t, std::mt19937& random, float mean) {
  std::normal_distribution<float> normal(mean, 1);
  Stored tensor(t.dtype, t.size());
  for (int64_t i = 0; i < t.size(); ++i) tensor.set(i, normal(random));
  return tensor;
}

double act(const Case& t, double z) {
  if (t.activation == Activation::relu) return z < 0 ? 0 : z;
  return t.activation == Activation::leaky_relu && z < 0 ? 0.2 * z : z;
}

double act_backward(const Case& t, double z) {
  if (t.activation == Activation::relu) return z > 0;
  return t.activation == Activation::leaky_relu && z <= 0 ? 0.2 : 1;
}

bool close(double a, double b, Dtype dtype) {
  const double tolerance = dtype == Dtype::float32 ? 1e-5 : 1e-2;
  return std::fabs(a - b) <= tolerance * (1 + std::fabs(b));
}

// Sums of `size` terms of about 1.
bool close_sum(double a, double b, int64_t size) {
  return std::fabs(a - b) <= 1e-6 * static_cast<double>(size);
}

void against_double(const Kernels& kernels, const Case& t) {
  std::mt19937 random(7);
  Stored x = random_tensor(t, random, 2), residual = random_tensor(t, random, 0);
  Stored grad_y = random_tensor(t, random, 0), y(t.dtype, t.size()), grad_x(t.dtype, t.size());
  const int64_t pairs = t.batch * t.channels;
  std::vector<float> weight(t.channels), bias(t.channels), statistics(3 * pairs), sums(2 * pairs);
  std::vector<float> grad_weight(t.channels), grad_bias(t.channels);
  for (auto& w : weight) w = std::normal_distribution<float>(1, 0.3f)(random);
  for (auto& b : bias) b = std::normal_distribution<float>(0, 0.3f)(random);

  InstanceNormForward forward{};
  forward.batch = t.batch, forward.channels = t.channels, forward.plane = t.plane;
  forward.channels_last = t.channels_last, forward.dtype = t.dtype;
  forward.activation = t.activation, forward.slope = 0.2f, forward.eps = 1e-5;
  forward.weight = t.affine ? weight.data() : nullptr;
  forward.bias = t.affine ? bias.data() : nullptr;
  forward.x = x.data(), forward.x_strides = t.strides();
  forward.residual = t.residual ? residual.data() : nullptr;
  forward.residual_strides = t.strides();
  forward.y = y.data(), forward.y_strides = t.strides();
  forward.statistics = statistics.data();
  kernels.forward(forward, 1);

  InstanceNormBackward backward{};
  static_cast<fastmrigan::InstanceNorm&>(backward) = forward;
  backward.statistics = statistics.data();
  backward.grad_y = grad_y.data(), backward.grad_y_strides = t.strides();
  backward.grad_x = grad_x.data(), backward.grad_x_strides = t.strides();
  backward.sums = sums.data();
  backward.grad_weight = grad_weight.data(), backward.grad_bias = grad_bias.data();
  kernels.backward(backward, 1);

  bool forward_holds = true, backward_holds = true;
  std::vector<double> weight_sum(t.channels), bias_sum(t.channels);
  for (int64_t n = 0; n < t.batch; ++n) {
    for (int64_t c = 0; c < t.channels; ++c) {
      double mean = 0, var = 0, dz_mean = 0, dz_x_hat_mean = 0;
      for (int64_t i = 0; i < t.plane; ++i) mean += x.get(t.at(n, c, i)) / t.plane;
      for (int64_t i = 0; i < t.plane; ++i)
        var += std::pow(x.get(t.at(n, c, i)) - mean, 2) / t.plane;
      const double rstd = 1 / std::sqrt(var + 1e-5);
      const double w = t.affine ? weight[c] : 1, b = t.affine ? bias[c] : 0;
      const auto x_hat = [&](int64_t i) { return (x.get(t.at(n, c, i)) - mean) * rstd; };
      const auto dz = [&](int64_t i) {
        return grad_y.get(t.at(n, c, i)) * act_backward(t, x_hat(i) * w + b);
      };
      for (int64_t i = 0; i < t.plane; ++i) {
        const double r = t.residual ? residual.get(t.at(n, c, i)) : 0;
        forward_holds &= close(y.get(t.at(n, c, i)), act(t, x_hat(i) * w + b) + r, t.dtype);
        dz_mean += dz(i) / t.plane;
        dz_x_hat_mean += dz(i) * x_hat(i) / t.plane;
      }
      for (int64_t i = 0; i < t.plane; ++i)
        backward_holds &= close(grad_x.get(t.at(n, c, i)),
                                rstd * w * (dz(i) - dz_mean - x_hat(i) * dz_x_hat_mean), t.dtype);
      weight_sum[c] += dz_x_hat_mean * t.plane;
      bias_sum[c] += dz_mean * t.plane;
    }
  }
  for (int64_t c = 0; c < t.channels; ++c) {
    backward_holds &= close_sum(grad_weight[c], weight_sum[c], t.batch * t.plane);
    backward_holds &= close_sum(grad_bias[c], bias_sum[c], t.batch * t.plane);
  }
  if (!forward_holds || !backward_holds)
    std::fprintf(stderr, "%s: [%ld, %ld, %ld] channels_last %d dtype %d activation %d\n",
                 kernels.name, long(t.batch), long(t.channels), long(t.plane), t.channels_last,
                 int(t.dtype), int(t.activation));
  CHECK(forward_holds);
  CHECK(backward_holds);

  // The same bits with two threads, and without the gradient of x where only sums are wanted.
  const std::vector<char> y_one = y.bytes, grad_one = grad_x.bytes;
  const std::vector<float> sums_one = sums;
  kernels.forward(forward, 2);
  kernels.backward(backward, 2);
  CHECK(y.bytes == y_one && grad_x.bytes == grad_one && sums == sums_one);
  backward.grad_x = nullptr, backward.grad_weight = nullptr, backward.grad_bias = nullptr;
  kernels.backward(backward, 2);
  CHECK(sums == sums_one);
}

void table(const Kernels& kernels) {
  const struct {
    int64_t batch, channels, plane;
  } shapes[] = {{0, 3, 4},  {1, 1, 1},  {2, 3, 1},    {1, 5, 7},    {2, 33, 15},
                {1, 2, 49}, {3, 4, 63}, {1, 70, 130}, {2, 3, 4100}, {1, 3, 12345}};
  const Activation activations[] = {Activation::none, Activation::relu, Activation::leaky_relu};
  for (const auto& shape : shapes)
    for (bool channels_last : {false, true})
      for (Dtype dtype : {Dtype::float32, Dtype::bfloat16})
        for (Activation activation : activations)
          for (bool all : {false, true})
            against_double(kernels, {shape.batch, shape.channels, shape.plane, channels_last, dtype,
                                     activation, all, all});
}

}  // namespace

int main() {
  table({"baseline", fastmrigan::baseline::instance_norm_forward,
         fastmrigan::baseline::instance_norm_backward});
#ifdef FASTMRIGAN_X86
  if (fastmrigan::isa_supported(Isa::avx2))
    table({"avx2", fastmrigan::avx2::instance_norm_forward,
           fastmrigan::avx2::instance_norm_backward});
  if (fastmrigan::isa_supported(Isa::avx512))
    table({"avx512", fastmrigan::avx512::instance_norm_forward,
           fastmrigan::avx512::instance_norm_backward});
#endif
  std::printf("instance_norm_tests: %d failed\n", failures);
  return failures == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
