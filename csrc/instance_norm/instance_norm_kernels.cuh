// The kernels. One template serves both layouts: a thread walks down rows of one packet each. Of a
// contiguous plane a row is the next packet of the same channel; of a channels_last one it is the
// same channels of the next pixel, with a result for each. instance_norm_plan.h says which threads
// take which rows. With `once` a thread holds all of its rows, and the kernel none of the
// bookkeeping of chunks.
#pragma once

#include <type_traits>

#include "instance_norm/packet.cuh"
#include "instance_norm/reduce.cuh"

namespace fastmrigan::norm {

// Where a thread stands: sample n, first channel c, and the rows it takes of its block's part.
struct Place {
  int n, c;
  int row, end;  // its first row, and one past the last of its block
  int stride;    // rows between its rows
  bool inside;   // false past the last plane or channel: it takes no rows
  bool writes;   // the one thread of a set that writes a channel's sums
};

template <bool channels_last, int width>
__device__ __forceinline__ Place place_of(const InstanceNorm& call, const Plan& plan) {
  const int rank = static_cast<int>(blockIdx.x & ((1u << plan.cluster_shift) - 1));
  const unsigned set = blockIdx.x >> plan.cluster_shift;
  const unsigned major = threadIdx.x >> plan.lane_shift;
  const unsigned minor = threadIdx.x & ((1u << plan.lane_shift) - 1);
  Place place;
  int first, rows;
  if constexpr (channels_last) {
    const unsigned tiles = static_cast<unsigned>(plan.tiles);
    place.n = static_cast<int>(set / tiles);
    place.c = static_cast<int>(((set % tiles << plan.lane_shift) + minor) * width);
    place.inside = place.c < call.channels;
    place.stride = static_cast<int>(blockDim.x >> plan.lane_shift);
    first = static_cast<int>(major);
    rows = static_cast<int>(call.plane);
  } else {
    const unsigned plane = set * static_cast<unsigned>(plan.planes) + major;
    const unsigned channels = static_cast<unsigned>(call.channels);
    place.n = static_cast<int>(plane / channels);
    place.c = static_cast<int>(plane % channels);
    place.inside = place.n < call.batch;
    place.stride = plan.lanes;
    first = static_cast<int>(minor);
    rows = static_cast<int>(call.plane / width);
  }
  const int start = rank * plan.part;
  place.row = start + first;
  place.end = !place.inside ? 0 : rows - start < plan.part ? rows : start + plan.part;
  place.writes = place.inside && rank == 0 && first == 0;
  return place;
}

// A tensor from a place's channel on: `at` is its row 0, `step` the bytes between a thread's rows.
// Those of a contiguous plane fit into 32 bits, which saves registers.
template <typename Byte, bool channels_last>
struct Column {
  Byte* at;
  int64_t pitch;  // bytes from row to row
  std::conditional_t<channels_last, int64_t, int> step;
};

template <bool channels_last, Dtype dtype, bool wide, typename Byte>
__device__ __forceinline__ Column<Byte, channels_last> column_of(Byte* data, Strides strides,
                                                                 const Place& place) {
  constexpr int bytes = element_bytes(dtype);
  const int64_t across = channels_last ? 1 : strides.step;
  Column<Byte, channels_last> column;
  column.at =
      data + (static_cast<int64_t>(place.n) * strides.batch_stride + place.c * across) * bytes;
  if constexpr (channels_last) {
    column.pitch = strides.step * bytes;
    column.step = column.pitch * place.stride;
  } else {
    constexpr int packet = packet_width(dtype, wide) * bytes;
    column.pitch = packet;
    column.step = packet * place.stride;
  }
  return column;
}

// The rows of one chunk: the thread's first, and how many it has, at most `held`.
struct Chunk {
  int row;
  int count;
};

template <int held>
__device__ __forceinline__ Chunk chunk_of(const Place& place, int index) {
  const unsigned stride = static_cast<unsigned>(place.stride);
  const int row = place.row + index * held * place.stride;
  if (row >= place.end) return {row, 0};
  const unsigned count = (static_cast<unsigned>(place.end - row) - 1) / stride + 1;
  return {row, count < held ? static_cast<int>(count) : held};
}

template <typename Raw, int held, bool channels_last>
__device__ __forceinline__ void load_rows(Raw (&raw)[held],
                                          const Column<const char, channels_last>& column,
                                          const Chunk& chunk) {
  const char* at = column.at + chunk.row * column.pitch;
#pragma unroll
  for (int k = 0; k < held; ++k, at += column.step)
    if (k < chunk.count) raw[k] = device::load<Raw>(at);
}

// The statistics of a channel, as the forward left them: [3, N, C].
__device__ __forceinline__ Statistics statistics_at(const InstanceNormBackward& call, int64_t at) {
  const int64_t all = call.batch * call.channels;
  return {call.statistics[at], call.statistics[all + at], call.statistics[2 * all + at]};
}

template <Dtype dtype, bool wide, bool channels_last, bool once>
__global__ void __launch_bounds__(channels_last ? 512 : 1024)
    forward_kernel(const InstanceNormForward call, const Plan plan) {
  using P = Packet<dtype, wide>;
  using Raw = typename P::Raw;
  constexpr int held = held_packets(wide, channels_last, false, once);
  constexpr int own = channels_last ? P::width : 1;  // channels of a thread
  const int chunks = once ? 1 : plan.chunks;
  const Place place = place_of<channels_last, P::width>(call, plan);
  const auto x = column_of<channels_last, dtype, wide>(static_cast<const char*>(call.x),
                                                       call.x_strides, place);
  Raw raw[held] = {};
  float value[P::width];
  float anchor[own] = {};
  if (place.inside) {
    P::unpack(device::load<Raw>(x.at), value);
#pragma unroll
    for (int c = 0; c < own; ++c) anchor[c] = value[c];
  }

  Moments moments[own] = {};
#pragma unroll 1
  for (int index = 0; index < chunks; ++index) {
    const Chunk chunk = chunk_of<held>(place, index);
    load_rows(raw, x, chunk);
    float sum[own] = {}, m2[own] = {};
#pragma unroll
    for (int k = 0; k < held; ++k) {
      if (k >= chunk.count) continue;
      P::unpack(raw[k], value);
#pragma unroll
      for (int j = 0; j < P::width; ++j) sum[j % own] += value[j] - anchor[j % own];
    }
    if (chunk.count == 0) continue;
    const float count = static_cast<float>(chunk.count * (P::width / own));
    const float inverse = 1.0f / count;
#pragma unroll
    for (int c = 0; c < own; ++c) sum[c] *= inverse;
#pragma unroll
    for (int k = 0; k < held; ++k) {
      if (k >= chunk.count) continue;
      P::unpack(raw[k], value);
#pragma unroll
      for (int j = 0; j < P::width; ++j) {
        const float apart = (value[j] - anchor[j % own]) - sum[j % own];
        m2[j % own] = fmaf(apart, apart, m2[j % own]);
      }
    }
#pragma unroll
    for (int c = 0; c < own; ++c) {
      const Moments found{count, sum[c], m2[c]};
      moments[c] = once ? found : merge(moments[c], found, share_of(moments[c].count, count));
    }
  }
  reduce<channels_last>(moments, plan);

  const Slope slope = slope_of(call.activation, call.slope);
  Affine to[own] = {};
  if (place.inside) {
    const int64_t all = call.batch * call.channels;
    const int64_t at = static_cast<int64_t>(place.n) * call.channels + place.c;
#pragma unroll
    for (int c = 0; c < own; ++c) {
      const Statistics s = statistics_of(moments[c], anchor[c], static_cast<float>(call.eps));
      if (place.writes) {
        call.statistics[at + c] = s.mean_high;
        call.statistics[all + at + c] = s.mean_low;
        call.statistics[2 * all + at + c] = s.rstd;
      }
      to[c] = affine_of(s, call.weight != nullptr ? call.weight[place.c + c] : 1.0f,
                        call.bias != nullptr ? call.bias[place.c + c] : 0.0f);
    }
  }

  const bool adds = call.residual != nullptr;
  Column<const char, channels_last> residual{};
  if (adds)
    residual = column_of<channels_last, dtype, wide>(static_cast<const char*>(call.residual),
                                                     call.residual_strides, place);
  const auto y =
      column_of<channels_last, dtype, wide>(static_cast<char*>(call.y), call.y_strides, place);
  // y may be the residual, so the compiler must not load past a store: a few loads go first.
  constexpr int ahead = wide ? 2 : 4;
#pragma unroll 1
  for (int index = chunks - 1; index >= 0; --index) {
    const Chunk chunk = chunk_of<held>(place, index);
    if (index != chunks - 1) load_rows(raw, x, chunk);
    const char* from = adds ? residual.at + chunk.row * residual.pitch : nullptr;
    char* out = y.at + chunk.row * y.pitch;
#pragma unroll
    for (int first = 0; first < held; first += ahead) {
      Raw added[ahead];
      if (adds) {
#pragma unroll
        for (int k = 0; k < ahead; ++k)
          if (first + k < chunk.count) added[k] = device::load<Raw>(from + k * residual.step);
        from += ahead * residual.step;
      }
#pragma unroll
      for (int k = 0; k < ahead; ++k) {
        if (first + k >= chunk.count) continue;
        P::unpack(raw[first + k], value);
#pragma unroll
        for (int j = 0; j < P::width; ++j)
          value[j] = activate(affine(value[j] - to[j % own].mean, to[j % own]), slope);
        if (adds) {
          float other[P::width];
          P::unpack(added[k], other);
#pragma unroll
          for (int j = 0; j < P::width; ++j) value[j] += other[j];
        }
        device::store(out + k * y.step, P::pack(value));
      }
      out += ahead * y.step;
    }
  }
  if (plan.cluster > 1) device::cluster_wait();
}

template <Dtype dtype, bool wide, bool channels_last, bool once>
__global__ void __launch_bounds__(channels_last ? 512 : 1024)
    backward_kernel(const InstanceNormBackward call, const Plan plan) {
  using P = Packet<dtype, wide>;
  using Raw = typename P::Raw;
  constexpr int held = held_packets(wide, channels_last, true, once);
  constexpr int own = channels_last ? P::width : 1;
  const int chunks = once ? 1 : plan.chunks;
  const Place place = place_of<channels_last, P::width>(call, plan);
  const auto x = column_of<channels_last, dtype, wide>(static_cast<const char*>(call.x),
                                                       call.x_strides, place);
  const auto grad_y = column_of<channels_last, dtype, wide>(static_cast<const char*>(call.grad_y),
                                                            call.grad_y_strides, place);
  const Slope slope = slope_of(call.activation, call.slope);
  const int64_t at = static_cast<int64_t>(place.n) * call.channels + place.c;
  Affine to[own] = {};
  if (place.inside) {
#pragma unroll
    for (int c = 0; c < own; ++c)
      to[c] = affine_of(statistics_at(call, at + c),
                        call.weight != nullptr ? call.weight[place.c + c] : 1.0f,
                        call.bias != nullptr ? call.bias[place.c + c] : 0.0f);
  }
  Raw raw[held] = {}, raw_grad[held] = {};
  float t[P::width], dz[P::width];
  const auto unpack = [&](int k) {
    P::unpack(raw[k], t);
    P::unpack(raw_grad[k], dz);
#pragma unroll
    for (int j = 0; j < P::width; ++j) {
      t[j] -= to[j % own].mean;
      dz[j] = activate_backward(affine(t[j], to[j % own]), dz[j], slope);
    }
  };

  Sums sums[own] = {};
#pragma unroll 1
  for (int index = 0; index < chunks; ++index) {
    const Chunk chunk = chunk_of<held>(place, index);
    load_rows(raw, x, chunk);
    load_rows(raw_grad, grad_y, chunk);
#pragma unroll
    for (int k = 0; k < held; ++k) {
      if (k >= chunk.count) continue;
      unpack(k);
#pragma unroll
      for (int j = 0; j < P::width; ++j) {
        sums[j % own].dz += dz[j];
        sums[j % own].dz_t = fmaf(dz[j], t[j], sums[j % own].dz_t);
      }
    }
  }
  reduce<channels_last>(sums, plan);

  Gradient gradient[own] = {};
  if (place.inside) {
#pragma unroll
    for (int c = 0; c < own; ++c) {
      gradient[c] =
          gradient_of(sums[c], statistics_at(call, at + c), static_cast<float>(call.plane));
      if (place.writes) {
        call.sums[at + c] = gradient[c].sum_dz;
        call.sums[call.batch * call.channels + at + c] = gradient[c].sum_dz_xhat;
      }
    }
  }

  if (call.grad_x != nullptr) {
    const auto grad_x = column_of<channels_last, dtype, wide>(static_cast<char*>(call.grad_x),
                                                              call.grad_x_strides, place);
#pragma unroll 1
    for (int index = chunks - 1; index >= 0; --index) {
      const Chunk chunk = chunk_of<held>(place, index);
      if (index != chunks - 1) {
        load_rows(raw, x, chunk);
        load_rows(raw_grad, grad_y, chunk);
      }
      char* out = grad_x.at + chunk.row * grad_x.pitch;
#pragma unroll
      for (int k = 0; k < held; ++k, out += grad_x.step) {
        if (k >= chunk.count) continue;
        unpack(k);
#pragma unroll
        for (int j = 0; j < P::width; ++j)
          dz[j] = input_gradient(dz[j], t[j], to[j % own].scale, gradient[j % own]);
        device::store(out, P::pack(dz));
      }
    }
  }
  if (plan.cluster > 1) device::cluster_wait();
}

// The gradients of weight and bias: a thread sums one channel over the samples, in their order.
__global__ void __launch_bounds__(128)
    parameter_kernel(const float* sums, int64_t batch, int64_t channels, float* grad_weight,
                     float* grad_bias) {
  const int64_t c = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (c >= channels) return;
  float weight = 0.0f, bias = 0.0f;
  for (int64_t n = 0; n < batch; ++n) {
    bias += sums[n * channels + c];
    weight += sums[(batch + n) * channels + c];
  }
  if (grad_weight != nullptr) grad_weight[c] = weight;
  if (grad_bias != nullptr) grad_bias[c] = bias;
}

}  // namespace fastmrigan::norm
