// Contiguous planes: one thread takes whole planes. A plane is read once from memory for its
// statistics and once more, from the cache where it fits, to be written; meanwhile the next one is
// on its way.
#include <algorithm>

#include "instance_norm/instance_norm_elements.h"

namespace fastmrigan::FASTMRIGAN_ISA_NAME {

namespace {

constexpr int64_t chunk = 4096;  // elements summed in float before they are merged in double
constexpr int64_t lead = 256;    // elements whose mean is the first guess of the plane's

constexpr int64_t most_ahead = 512 * 1024;  // bytes: a next plane that a cache of 2 MB has room for

// The plane that the thread takes next, brought near while the present one is written.
class Ahead {
 public:
  template <typename T>
  Ahead(const T* next, int64_t plane)
      : next_(plane * int64_t{sizeof(T)} <= most_ahead ? reinterpret_cast<const char*>(next)
                                                       : nullptr) {}

  // Of the vector at element i.
  template <typename T>
  void fetch(int64_t i) const {
    if (next_) __builtin_prefetch(next_ + i * int64_t{sizeof(T)}, 0, 2);
  }

 private:
  const char* next_;
};

template <typename T>
double mean_of(const T* x, int64_t count) {
  Floats total{};
  int64_t i = 0;
  for (; i + lanes <= count; i += lanes) total += load(x + i);
  if (i < count) total += load_some(x + i, static_cast<int>(count - i));
  return sum(total) / static_cast<double>(count);
}

// Each chunk's deviations are from the mean of what came before it. That is safe: the squared
// distance between two chunks' means, times their counts, is itself part of m2.
template <typename T>
Moments plane_moments(const T* x, int64_t plane) {
  Moments moments;
  float shift = static_cast<float>(mean_of(x, std::min(plane, lead)));
  for (int64_t begin = 0; begin < plane; begin += chunk) {
    const int64_t count = std::min(chunk, plane - begin);
    const T* at = x + begin;
    Floats sums[4] = {}, squares[4] = {};
    int64_t i = 0;
    for (; i + 4 * lanes <= count; i += 4 * lanes) {
      for (int k = 0; k < 4; ++k) {
        const Floats d = load(at + i + k * lanes) - shift;
        sums[k] += d;
        squares[k] += d * d;
      }
    }
    for (; i < count; i += lanes) {
      const int some = static_cast<int>(std::min<int64_t>(lanes, count - i));
      const Floats d = keep_some(load_some(at + i, some) - shift, some);
      sums[0] += d;
      squares[0] += d * d;
    }
    moments.merge(static_cast<double>(count), shift, sum((sums[0] + sums[1]) + (sums[2] + sums[3])),
                  sum((squares[0] + squares[1]) + (squares[2] + squares[3])));
    shift = static_cast<float>(moments.mean);
  }
  return moments;
}

template <Activation activation, typename T>
void write_plane(const T* x, const T* residual, T* y, int64_t plane, const Affine& affine,
                 float slope, const Ahead& ahead) {
  int64_t i = 0;
  if (residual) {
    for (; i + lanes <= plane; i += lanes) {
      ahead.fetch<T>(i);
      const Floats z = (load(x + i) - affine.mean) * affine.scale + affine.shift;
      store(y + i, activate<activation>(z, slope) + load(residual + i));
    }
  } else {
    for (; i + lanes <= plane; i += lanes) {
      ahead.fetch<T>(i);
      const Floats z = (load(x + i) - affine.mean) * affine.scale + affine.shift;
      store(y + i, activate<activation>(z, slope));
    }
  }
  if (i < plane) {
    const int some = static_cast<int>(plane - i);
    const Floats z = (load_some(x + i, some) - affine.mean) * affine.scale + affine.shift;
    Floats out = activate<activation>(z, slope);
    if (residual) out += load_some(residual + i, some);
    store_some(y + i, out, some);
  }
}

// x_hat = (x - mean) * rstd - mean_rest * rstd
struct Normalised {
  Affine affine;
  float rstd, rest;

  Normalised(const Statistics& s, float weight, float bias)
      : affine(s, weight, bias), rstd(s.rstd), rest(-s.mean_rest * s.rstd) {}
};

struct Gradients {
  double dz = 0, dz_x_hat = 0;  // sums over the plane
};

template <Activation activation, typename T>
Gradients plane_gradients(const T* x, const T* grad_y, int64_t plane, const Normalised& norm,
                          float slope) {
  Gradients gradients;
  for (int64_t begin = 0; begin < plane; begin += chunk) {
    const int64_t end = std::min(plane, begin + chunk);
    Floats sums[2] = {}, products[2] = {};
    int64_t i = begin;
    for (; i + 2 * lanes <= end; i += 2 * lanes) {
      for (int k = 0; k < 2; ++k) {
        const Floats t = load(x + i + k * lanes) - norm.affine.mean;
        const Floats z = t * norm.affine.scale + norm.affine.shift;
        const Floats dz = activate_backward<activation>(load(grad_y + i + k * lanes), z, slope);
        sums[k] += dz;
        products[k] += dz * (t * norm.rstd + norm.rest);
      }
    }
    for (; i < end; i += lanes) {
      const int some = static_cast<int>(std::min<int64_t>(lanes, end - i));
      const Floats t = load_some(x + i, some) - norm.affine.mean;
      const Floats z = t * norm.affine.scale + norm.affine.shift;
      const Floats dz = activate_backward<activation>(load_some(grad_y + i, some), z, slope);
      sums[0] += keep_some(dz, some);
      products[0] += keep_some(dz * (t * norm.rstd + norm.rest), some);
    }
    gradients.dz += sum(sums[0] + sums[1]);
    gradients.dz_x_hat += sum(products[0] + products[1]);
  }
  return gradients;
}

// grad_x = rstd * weight * (dz - mean(dz) - x_hat * mean(dz * x_hat)), as (dz + t * a + b) * scale:
// in a plane of one element, dz and b cancel exactly.
template <Activation activation, typename T>
void write_grad_x(const T* x, const T* grad_y, T* grad_x, int64_t plane, const Normalised& norm,
                  const Gradients& gradients, float slope, const Ahead& x_ahead,
                  const Ahead& grad_ahead) {
  const double count = static_cast<double>(plane);
  const float a = static_cast<float>(-gradients.dz_x_hat / count * norm.rstd);
  const float b = static_cast<float>(-(gradients.dz + gradients.dz_x_hat * norm.rest) / count);
  const auto grad = [&](Floats x_i, Floats grad_y_i) {
    const Floats t = x_i - norm.affine.mean;
    const Floats z = t * norm.affine.scale + norm.affine.shift;
    const Floats dz = activate_backward<activation>(grad_y_i, z, slope);
    return (dz + (t * a + b)) * norm.affine.scale;
  };
  int64_t i = 0;
  for (; i + lanes <= plane; i += lanes) {
    x_ahead.fetch<T>(i);
    grad_ahead.fetch<T>(i);
    store(grad_x + i, grad(load(x + i), load(grad_y + i)));
  }
  if (i < plane) {
    const int some = static_cast<int>(plane - i);
    store_some(grad_x + i, grad(load_some(x + i, some), load_some(grad_y + i, some)), some);
  }
}

// The planes of one tensor by their number, n * channels + c.
template <typename T>
struct Planes {
  T* base;
  Strides strides;
  int64_t channels, count;

  template <typename Pointer>
  Planes(Pointer* data, const Strides& where, const InstanceNorm& call)
      : base(static_cast<T*>(data)),
        strides(where),
        channels(call.channels),
        count(call.batch * call.channels) {}

  T* operator[](int64_t number) const {
    return base + number / channels * strides.batch_stride + number % channels * strides.step;
  }
  T* after(int64_t number) const { return (*this)[std::min(number + 1, count - 1)]; }
};

}  // namespace

void forward_contiguous(const InstanceNormForward& call, int threads) {
  const int64_t pairs = call.batch * call.channels;
  with_types(call, [&](auto storage, auto activation) {
    using T = decltype(storage);
    const Planes<const T> x(call.x, call.x_strides, call);
    const Planes<const T> residual(call.residual, call.residual_strides, call);
    const Planes<T> y(call.y, call.y_strides, call);
#pragma omp parallel for num_threads(threads) schedule(static) if (threads > 1)
    for (int64_t pair = 0; pair < pairs; ++pair) {
      const int64_t c = pair % call.channels;
      const Statistics statistics(plane_moments(x[pair], call.plane), call.eps);
      statistics.write(call.statistics, pair, pairs);
      write_plane<activation.value>(x[pair], call.residual ? residual[pair] : nullptr, y[pair],
                                    call.plane,
                                    Affine(statistics, weight_of(call, c), bias_of(call, c)),
                                    call.slope, Ahead(x.after(pair), call.plane));
    }
  });
}

void backward_contiguous(const InstanceNormBackward& call, int threads) {
  const int64_t pairs = call.batch * call.channels;
  with_types(call, [&](auto storage, auto activation) {
    using T = decltype(storage);
    const Planes<const T> x(call.x, call.x_strides, call);
    const Planes<const T> grad_y(call.grad_y, call.grad_y_strides, call);
    const Planes<T> grad_x(call.grad_x, call.grad_x_strides, call);
#pragma omp parallel for num_threads(threads) schedule(static) if (threads > 1)
    for (int64_t pair = 0; pair < pairs; ++pair) {
      const int64_t c = pair % call.channels;
      const Normalised norm(Statistics(call.statistics, pair, pairs), weight_of(call, c),
                            bias_of(call, c));
      const Gradients gradients =
          plane_gradients<activation.value>(x[pair], grad_y[pair], call.plane, norm, call.slope);
      call.sums[pair] = static_cast<float>(gradients.dz);
      call.sums[pairs + pair] = static_cast<float>(gradients.dz_x_hat);
      if (call.grad_x)
        write_grad_x<activation.value>(x[pair], grad_y[pair], grad_x[pair], call.plane, norm,
                                       gradients, call.slope, Ahead(x.after(pair), call.plane),
                                       Ahead(grad_y.after(pair), call.plane));
    }
  });
}

void instance_norm_forward(const InstanceNormForward& call, int threads) {
  if (call.channels_last)
    forward_channels_last(call, threads);
  else
    forward_contiguous(call, threads);
}

void instance_norm_backward(const InstanceNormBackward& call, int threads) {
  if (call.channels_last)
    backward_channels_last(call, threads);
  else
    backward_contiguous(call, threads);
  sum_over_batch(call);
}

}  // namespace fastmrigan::FASTMRIGAN_ISA_NAME
