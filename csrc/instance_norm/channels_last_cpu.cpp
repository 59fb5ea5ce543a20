// channels_last: a row holds all channels of one position. The rows of one n are cut into chunks,
// which threads share in three steps: sums of each chunk, their merge, the writing of each chunk.
// The cut depends on the shape alone, so the bits do not depend on the threads.
#include <algorithm>
#include <memory>

#include "instance_norm/instance_norm_elements.h"

namespace fastmrigan::FASTMRIGAN_ISA_NAME {

namespace {

constexpr int64_t chunk_elements = 32768;  // with grad_y beside it, half of a small L2 cache
constexpr int64_t most_rows = 1024;        // summed in float before they are merged in double
constexpr int64_t lead = 16;               // of so many rows, one goes into the first guess
constexpr int group = 4;                   // rows summed before an accumulator is touched

// The cut of a tensor into chunks of rows, numbered through the samples.
struct Chunks {
  int64_t plane, rows, a_plane, total;

  explicit Chunks(const InstanceNorm& call)
      : plane(call.plane),
        rows(std::clamp<int64_t>(chunk_elements / call.channels, 64, most_rows)),
        a_plane((plane + rows - 1) / rows),
        total(call.batch * a_plane) {}

  int64_t rows_of(int64_t number) const { return std::min(rows, plane - number % a_plane * rows); }

  // The first element of a chunk.
  template <typename T>
  T* at(T* base, const Strides& strides, int64_t number) const {
    return base + number / a_plane * strides.batch_stride + number % a_plane * rows * strides.step;
  }
};

// run(lanes in use, first channel) over the channels; whole vectors first.
template <typename Run>
inline void over_channels(int64_t channels, Run run) {
  int64_t c = 0;
  for (; c + lanes <= channels; c += lanes) run(std::integral_constant<int, lanes>{}, c);
  if (c < channels) run(static_cast<int>(channels - c), c);
}

template <typename T>
inline Floats read(const T* at, std::integral_constant<int, lanes>) {
  return load(at);
}

template <typename T>
inline Floats read(const T* at, int some) {
  return load_some(at, some);
}

template <typename T>
inline void write(T* at, Floats v, std::integral_constant<int, lanes>) {
  store(at, v);
}

template <typename T>
inline void write(T* at, Floats v, int some) {
  store_some(at, v, some);
}

// Of one chunk, for every channel: the sums of deviations and of their squares, and from what.
template <typename T>
void chunk_moments(const T* x, int64_t step, int64_t rows, int64_t channels, float* shift,
                   float* sums, float* squares) {
  const int64_t first = std::min(rows, std::max<int64_t>(rows / lead, 8));
  over_channels(channels, [&](auto some, int64_t c) {
    Floats total{};
    for (int64_t r = 0; r < first; ++r) total += read(x + r * step + c, some);
    write(shift + c, total / static_cast<float>(first), some);
    write(sums + c, Floats{}, some);
    write(squares + c, Floats{}, some);
  });
  int64_t r = 0;
  for (; r + group <= rows; r += group) {
    const T* row = x + r * step;
    over_channels(channels, [&](auto some, int64_t c) {
      const Floats from = read(shift + c, some);
      Floats d[group];
      for (int k = 0; k < group; ++k) d[k] = read(row + k * step + c, some) - from;
      write(sums + c, read(sums + c, some) + ((d[0] + d[1]) + (d[2] + d[3])), some);
      write(squares + c,
            read(squares + c, some) + ((d[0] * d[0] + d[1] * d[1]) + (d[2] * d[2] + d[3] * d[3])),
            some);
    });
  }
  for (; r < rows; ++r) {
    const T* row = x + r * step;
    over_channels(channels, [&](auto some, int64_t c) {
      const Floats d = read(row + c, some) - read(shift + c, some);
      write(sums + c, read(sums + c, some) + d, some);
      write(squares + c, read(squares + c, some) + d * d, some);
    });
  }
}

// Per channel of one n, what a row is multiplied and added with.
struct Rows {
  std::unique_ptr<float[]> memory;
  float *mean, *scale, *shift, *rstd, *rest;

  Rows(const InstanceNorm& call, const float* statistics, int64_t n)
      : memory(new float[5 * call.channels]),
        mean(memory.get()),
        scale(mean + call.channels),
        shift(scale + call.channels),
        rstd(shift + call.channels),
        rest(rstd + call.channels) {
    const int64_t pairs = call.batch * call.channels;
    for (int64_t c = 0; c < call.channels; ++c) {
      const Statistics s(statistics, n * call.channels + c, pairs);
      const Affine affine(s, weight_of(call, c), bias_of(call, c));
      mean[c] = affine.mean;
      scale[c] = affine.scale;
      shift[c] = affine.shift;
      rstd[c] = s.rstd;
      rest[c] = -s.mean_rest * s.rstd;
    }
  }
};

template <Activation activation, typename T>
void write_chunk(const T* x, int64_t x_step, const T* residual, int64_t residual_step, T* y,
                 int64_t y_step, int64_t rows, int64_t channels, const Rows& by, float slope) {
  for (int64_t r = 0; r < rows; ++r, x += x_step, residual += residual_step, y += y_step) {
    over_channels(channels, [&](auto some, int64_t c) {
      const Floats t = read(x + c, some) - read(by.mean + c, some);
      const Floats z = t * read(by.scale + c, some) + read(by.shift + c, some);
      Floats out = activate<activation>(z, slope);
      if (residual_step) out += read(residual + c, some);
      write(y + c, out, some);
    });
  }
}

// Of one chunk, for every channel: the sums of dz and of dz * x_hat.
template <Activation activation, typename T>
void chunk_gradients(const T* x, int64_t x_step, const T* grad_y, int64_t grad_step, int64_t rows,
                     int64_t channels, const Rows& by, float slope, float* sums, float* products) {
  std::fill(sums, sums + channels, 0.0f);
  std::fill(products, products + channels, 0.0f);
  const auto add = [&](const T* x_row, const T* grad_row, auto count) {
    over_channels(channels, [&](auto some, int64_t c) {
      const Floats mean = read(by.mean + c, some), scale = read(by.scale + c, some);
      const Floats shift = read(by.shift + c, some), rstd = read(by.rstd + c, some);
      const Floats rest = read(by.rest + c, some);
      Floats sum{}, product{};
      for (int k = 0; k < count.value; ++k) {
        const Floats t = read(x_row + k * x_step + c, some) - mean;
        const Floats g = read(grad_row + k * grad_step + c, some);
        const Floats dz = activate_backward<activation>(g, t * scale + shift, slope);
        sum += dz;
        product += dz * (t * rstd + rest);
      }
      write(sums + c, read(sums + c, some) + sum, some);
      write(products + c, read(products + c, some) + product, some);
    });
  };
  int64_t r = 0;
  for (; r + group <= rows; r += group)
    add(x + r * x_step, grad_y + r * grad_step, std::integral_constant<int, group>{});
  for (; r < rows; ++r)
    add(x + r * x_step, grad_y + r * grad_step, std::integral_constant<int, 1>{});
}

template <Activation activation, typename T>
void write_chunk_grad_x(const T* x, int64_t x_step, const T* grad_y, int64_t grad_step, T* grad_x,
                        int64_t out_step, int64_t rows, int64_t channels, const Rows& by,
                        const float* a, const float* b, float slope) {
  for (int64_t r = 0; r < rows; ++r, x += x_step, grad_y += grad_step, grad_x += out_step) {
    over_channels(channels, [&](auto some, int64_t c) {
      const Floats t = read(x + c, some) - read(by.mean + c, some);
      const Floats scale = read(by.scale + c, some);
      const Floats z = t * scale + read(by.shift + c, some);
      const Floats dz = activate_backward<activation>(read(grad_y + c, some), z, slope);
      write(grad_x + c, (dz + (t * read(a + c, some) + read(b + c, some))) * scale, some);
    });
  }
}

}  // namespace

void forward_channels_last(const InstanceNormForward& call, int threads) {
  const Chunks chunks(call);
  const int64_t channels = call.channels, pairs = call.batch * channels;
  // [total, 3, C]: shift, sums and squares of each chunk
  const std::unique_ptr<float[]> partial(new float[chunks.total * 3 * channels]);
  with_types(call, [&](auto storage, auto activation) {
    using T = decltype(storage);
    const T* x = static_cast<const T*>(call.x);
    const T* residual = static_cast<const T*>(call.residual);
    T* y = static_cast<T*>(call.y);
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
#pragma omp for schedule(static)
      for (int64_t number = 0; number < chunks.total; ++number) {
        float* sums = partial.get() + number * 3 * channels;
        chunk_moments(chunks.at(x, call.x_strides, number), call.x_strides.step,
                      chunks.rows_of(number), channels, sums, sums + channels, sums + 2 * channels);
      }
#pragma omp for schedule(static)
      for (int64_t pair = 0; pair < pairs; ++pair) {
        const int64_t n = pair / channels, c = pair % channels;
        Moments moments;
        for (int64_t k = 0; k < chunks.a_plane; ++k) {
          const float* sums = partial.get() + (n * chunks.a_plane + k) * 3 * channels + c;
          moments.merge(static_cast<double>(chunks.rows_of(k)), sums[0], sums[channels],
                        sums[2 * channels]);
        }
        Statistics(moments, call.eps).write(call.statistics, pair, pairs);
      }
#pragma omp for schedule(static)
      for (int64_t number = 0; number < chunks.total; ++number) {
        const Rows by(call, call.statistics, number / chunks.a_plane);
        const int64_t residual_step = residual ? call.residual_strides.step : 0;
        write_chunk<activation.value>(
            chunks.at(x, call.x_strides, number), call.x_strides.step,
            residual ? chunks.at(residual, call.residual_strides, number) : nullptr, residual_step,
            chunks.at(y, call.y_strides, number), call.y_strides.step, chunks.rows_of(number),
            channels, by, call.slope);
      }
    }
  });
}

void backward_channels_last(const InstanceNormBackward& call, int threads) {
  const Chunks chunks(call);
  const int64_t channels = call.channels, pairs = call.batch * channels;
  // [total, 2, C]: sums of dz and of dz * x_hat of each chunk
  const std::unique_ptr<float[]> partial(new float[chunks.total * 2 * channels]);
  with_types(call, [&](auto storage, auto activation) {
    using T = decltype(storage);
    const T* x = static_cast<const T*>(call.x);
    const T* grad_y = static_cast<const T*>(call.grad_y);
    T* grad_x = static_cast<T*>(call.grad_x);
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
#pragma omp for schedule(static)
      for (int64_t number = 0; number < chunks.total; ++number) {
        const Rows by(call, call.statistics, number / chunks.a_plane);
        float* sums = partial.get() + number * 2 * channels;
        chunk_gradients<activation.value>(chunks.at(x, call.x_strides, number), call.x_strides.step,
                                          chunks.at(grad_y, call.grad_y_strides, number),
                                          call.grad_y_strides.step, chunks.rows_of(number),
                                          channels, by, call.slope, sums, sums + channels);
      }
#pragma omp for schedule(static)
      for (int64_t pair = 0; pair < pairs; ++pair) {
        const int64_t n = pair / channels, c = pair % channels;
        double dz = 0, dz_x_hat = 0;
        for (int64_t k = 0; k < chunks.a_plane; ++k) {
          const float* sums = partial.get() + (n * chunks.a_plane + k) * 2 * channels + c;
          dz += sums[0];
          dz_x_hat += sums[channels];
        }
        call.sums[pair] = static_cast<float>(dz);
        call.sums[pairs + pair] = static_cast<float>(dz_x_hat);
      }
      if (call.grad_x) {
#pragma omp for schedule(static)
        for (int64_t number = 0; number < chunks.total; ++number) {
          const int64_t n = number / chunks.a_plane;
          const Rows by(call, call.statistics, n);
          const std::unique_ptr<float[]> line(
              new float[2 * channels]);  // a and b, as contiguous_cpu
          const float* dz = call.sums + n * channels;
          const float* dz_x_hat = dz + pairs;
          for (int64_t c = 0; c < channels; ++c) {
            const float count = static_cast<float>(call.plane);
            line[c] = -dz_x_hat[c] * by.rstd[c] / count;
            line[channels + c] = -(dz[c] + dz_x_hat[c] * by.rest[c]) / count;
          }
          write_chunk_grad_x<activation.value>(
              chunks.at(x, call.x_strides, number), call.x_strides.step,
              chunks.at(grad_y, call.grad_y_strides, number), call.grad_y_strides.step,
              chunks.at(grad_x, call.grad_x_strides, number), call.grad_x_strides.step,
              chunks.rows_of(number), channels, by, line.get(), line.get() + channels, call.slope);
        }
      }
    }
  });
}

}  // namespace fastmrigan::FASTMRIGAN_ISA_NAME
