// What both libraries bind: the functions, their argument names and their docstrings, once.
//
// The first has the signature of the core's instance_norm: pointers as integers, shapes, strides
// and options. It does no arithmetic worth timing, but what it writes depends on the value and the
// place of every argument, so that a binding which loses or swaps one is caught.
#pragma once

#include <cstdint>
#include <cstring>
#include <optional>

namespace comparison {

inline constexpr char forward_doc[] = "Write to *y one number that depends on every argument.";
inline constexpr char array_sum_doc[] = "The sum of a contiguous float32 array.";

// `_a` is the literal of either library.
#define FORWARD_ARGUMENTS                                                                      \
  "batch"_a, "channels"_a, "plane"_a, "channels_last"_a, "dtype"_a, "activation"_a, "slope"_a, \
      "eps"_a, "weight"_a, "bias"_a, "x"_a, "x_batch_stride"_a, "x_step"_a, "residual"_a,      \
      "residual_batch_stride"_a, "residual_step"_a, "y"_a, "y_batch_stride"_a, "y_step"_a,     \
      "statistics"_a, "stream"_a, "threads"_a

class Digest {
 public:
  template <typename T>
  Digest& operator<<(T value) {
    return add(static_cast<uint64_t>(value));
  }
  Digest& operator<<(double value) {
    uint64_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    return add(bits);
  }
  Digest& operator<<(std::optional<uintptr_t> value) {
    return add(value.has_value()).add(value.value_or(0));
  }
  uint64_t value() const { return value_; }

 private:
  Digest& add(uint64_t word) {
    value_ = value_ * 31 + word;
    return *this;
  }
  uint64_t value_ = 0;
};

inline void forward(int64_t batch, int64_t channels, int64_t plane, bool channels_last, int dtype,
                    int activation, double slope, double eps, std::optional<uintptr_t> weight,
                    std::optional<uintptr_t> bias, uintptr_t x, int64_t x_batch_stride,
                    int64_t x_step, std::optional<uintptr_t> residual,
                    int64_t residual_batch_stride, int64_t residual_step, uintptr_t y,
                    int64_t y_batch_stride, int64_t y_step, uintptr_t statistics,
                    std::optional<uintptr_t> stream, int threads) {
  Digest digest;
  digest << batch << channels << plane << channels_last << dtype << activation << slope << eps
         << weight << bias << x << x_batch_stride << x_step << residual << residual_batch_stride
         << residual_step << y << y_batch_stride << y_step << statistics << stream << threads;
  *reinterpret_cast<uint64_t*>(y) = digest.value();
}

inline double array_sum(const float* x, int64_t count) {
  double sum = 0.0;
  for (int64_t i = 0; i < count; ++i) sum += x[i];
  return sum;
}

}  // namespace comparison
