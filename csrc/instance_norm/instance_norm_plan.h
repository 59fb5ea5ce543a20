// How a call is laid out over a CUDA device: a pure function of its shape, strides and pointers and
// of the device's limits, tested on the host.
//
// A packet is what one load brings: 16 bytes where all pointers, strides and lengths allow it, one
// element elsewhere. A thread holds `held` packets of each tensor in registers. A set is what
// shares its statistics: one plane of a contiguous tensor, or a tile of channels of a channels_last
// one. A set goes to
//   a part of a warp   (small contiguous planes, several a block),
//   one block,
//   a cluster of 2, 4 or 8 blocks that read each other's shared memory (from sm_90 on),
// the first in which it fits into registers, so that it is read once. What fits nowhere goes in
// several chunks: the sums are made chunk by chunk, then the output, from the last chunk, which is
// still held, back to the first, whose neighbours are the likeliest to have stayed in L2.
#pragma once

#include <algorithm>
#include <cstdint>
#include <initializer_list>

#include "instance_norm/instance_norm.h"
#include "instance_norm/instance_norm_math.h"

namespace fastmrigan::norm {

struct Limits {
  int threads;  // most threads in a block: a power of two, at least 32
  int cluster;  // most blocks in a cluster; 1 where the device or the build has none
};

struct Plan {
  bool wide;          // packets of 16 bytes
  int lanes;          // contiguous: threads to a plane; channels_last: packets of a row in a tile
  int threads;        // to a block
  int cluster;        // blocks to a set
  int part;           // packets (contiguous) or rows (channels_last) of a set for each block
  int chunks;         // times a thread fills its registers; 1 where x is read once
  int64_t blocks;     // in the grid
  int planes;         // contiguous: planes to a block, or to a cluster
  int tiles;          // channels_last: tiles to a sample
  int table_columns;  // partial results to a channel in shared memory: warps; 0 where none is used
  int table_rows;     // channels of a set
  int lane_shift;     // log2 of lanes; 31, past any thread, where a block has one plane
  int cluster_shift;  // log2 of cluster
};

FASTMRIGAN_HD constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
FASTMRIGAN_HD constexpr int element_bytes(Dtype dtype) { return dtype == Dtype::float32 ? 4 : 2; }
FASTMRIGAN_HD constexpr int packet_width(Dtype dtype, bool wide) {
  return wide ? 16 / element_bytes(dtype) : 1;
}

// Packets of each tensor a thread keeps. Where x is read once, wide ones make 128 bytes in the
// forward and 2 x 64 in the backward, which leaves room for two blocks of 512 threads an SM. The
// chunks of a contiguous plane are half of that: their bookkeeping needs the registers.
FASTMRIGAN_HD constexpr int held_packets(bool wide, bool channels_last, bool backward, bool once) {
  const int forward = !wide ? 16 : channels_last || once ? 8 : 4;
  return backward ? forward / 2 : forward;
}

// Whether the kernels come in a variant of their own for sets that are read once.
FASTMRIGAN_HD constexpr bool has_once(bool wide, bool channels_last) {
  return wide && !channels_last;
}

struct Tensor {
  const void* data;  // null: the call has none
  Strides strides;
};

// The kernels count blocks, planes, channels and the elements of a plane in 32 bits, with room for
// a whole chunk past the end.
inline bool is_countable(const InstanceNorm& call, const Plan& plan) {
  const int64_t most = int64_t{1} << 30;
  return plan.blocks <= most && call.batch * call.channels <= most && call.plane <= most;
}

inline bool is_wide(const InstanceNorm& call, std::initializer_list<Tensor> tensors) {
  const int64_t width = packet_width(call.dtype, true);
  if ((call.channels_last ? call.channels : call.plane) % width != 0) return false;
  const bool steps = (call.channels_last ? call.plane : call.channels) > 1;
  for (const Tensor& tensor : tensors) {
    if (tensor.data == nullptr) continue;
    if (reinterpret_cast<uintptr_t>(tensor.data) % 16 != 0) return false;
    if (call.batch > 1 && tensor.strides.batch_stride % width != 0) return false;
    if (steps && tensor.strides.step % width != 0) return false;
  }
  return true;
}

inline int log2_of(int power) {
  int log = 0;
  while ((1 << log) < power) ++log;
  return log;
}

// Threads of `held` packets each for `rows` rows of `lanes` packets, in whole warps.
inline int64_t threads_for(int64_t rows, int lanes, int held) {
  return ceil_div(ceil_div(rows, held) * lanes, 32) * 32;
}

// Fits `rows` rows of `lanes` packets into one block or a cluster of blocks of at most `threads`.
inline bool fit(Plan& plan, int64_t rows, int lanes, int held, int threads, int most_cluster) {
  for (int cluster = 1; cluster <= most_cluster; cluster *= 2) {
    const int64_t needed = threads_for(ceil_div(rows, cluster), lanes, held);
    if (needed > threads) continue;
    plan.lanes = lanes;
    plan.threads = static_cast<int>(needed);
    plan.cluster = cluster;
    plan.part = static_cast<int>(ceil_div(rows, cluster));
    plan.chunks = 1;
    return true;
  }
  return false;
}

// Spreads what fits nowhere over the largest cluster.
inline void spread(Plan& plan, int64_t rows, int lanes, int held, int threads, int cluster) {
  plan.lanes = lanes;
  plan.threads = threads;
  plan.cluster = cluster;
  plan.part = static_cast<int>(ceil_div(rows, cluster));
  plan.chunks = static_cast<int>(ceil_div(int64_t{plan.part} * lanes, int64_t{threads} * held));
}

inline Plan plan_contiguous(const InstanceNorm& call, bool wide, bool backward, Limits limits) {
  Plan plan{};
  plan.wide = wide;
  const int held = held_packets(wide, false, backward, true);
  const int64_t packets = call.plane / packet_width(call.dtype, wide);
  const int64_t planes = call.batch * call.channels;
  if (packets <= 32 * held) {
    const int a_thread = std::min(4, held / 2);
    plan.lanes = 1;
    while (plan.lanes < 32 && plan.lanes * a_thread < packets) plan.lanes *= 2;
    plan.threads = std::min(128, limits.threads);
    plan.cluster = 1;
    plan.part = static_cast<int>(packets);
    plan.chunks = 1;
    plan.planes = plan.threads / plan.lanes;
    plan.blocks = ceil_div(planes, plan.planes);
    plan.lane_shift = log2_of(plan.lanes);
    return plan;
  }
  // Two blocks of 512 threads an SM overlap the reading of one with the writing of the other.
  if (!fit(plan, packets, 1, held, std::min(512, limits.threads), limits.cluster) &&
      !fit(plan, packets, 1, held, limits.threads, limits.cluster))
    spread(plan, packets, 1, held_packets(wide, false, backward, false), limits.threads,
           limits.cluster);
  plan.lanes = plan.threads;
  plan.planes = 1;
  plan.blocks = planes * plan.cluster;
  plan.lane_shift = 31;
  plan.cluster_shift = log2_of(plan.cluster);
  plan.table_rows = 1;
  plan.table_columns = plan.threads / 32;
  return plan;
}

inline Plan plan_channels_last(const InstanceNorm& call, bool wide, bool backward, Limits limits) {
  Plan plan{};
  plan.wide = wide;
  const int held = held_packets(wide, true, backward, false);
  const int width = packet_width(call.dtype, wide);
  const int64_t packets = ceil_div(call.channels, width);  // of a row
  const int most_threads = std::min(512, limits.threads);
  // Packets that make up so many bytes of a row, but no more than a warp or than the row has.
  const auto lanes_of = [&](int bytes) {
    const int64_t most = std::min<int64_t>(bytes / (width * element_bytes(call.dtype)), packets);
    int lanes = 1;
    while (lanes < 32 && lanes < most) lanes *= 2;
    return lanes;
  };
  // Few rows: a wide tile in one block. More: 64 bytes, two sectors, of each row, or one sector.
  const int small = std::min(256, most_threads);
  if (!fit(plan, call.plane, lanes_of(512), held, small, 1) &&
      !fit(plan, call.plane, lanes_of(256), held, small, 1) &&
      !fit(plan, call.plane, lanes_of(128), held, small, 1) &&
      !fit(plan, call.plane, lanes_of(64), held, small, limits.cluster) &&
      !fit(plan, call.plane, lanes_of(64), held, most_threads, limits.cluster) &&
      !fit(plan, call.plane, lanes_of(32), held, most_threads, limits.cluster))
    spread(plan, call.plane, lanes_of(64), held, most_threads, limits.cluster);
  plan.lane_shift = log2_of(plan.lanes);
  plan.cluster_shift = log2_of(plan.cluster);
  plan.tiles = static_cast<int>(ceil_div(packets, plan.lanes));
  plan.blocks = call.batch * plan.tiles * plan.cluster;
  plan.table_rows = plan.lanes * width;
  plan.table_columns = plan.threads / 32;
  return plan;
}

inline Plan plan_of(const InstanceNorm& call, bool wide, bool backward, Limits limits) {
  return call.channels_last ? plan_channels_last(call, wide, backward, limits)
                            : plan_contiguous(call, wide, backward, limits);
}

inline Plan plan_of(const InstanceNormForward& call, Limits limits) {
  const bool wide = is_wide(
      call,
      {{call.x, call.x_strides}, {call.residual, call.residual_strides}, {call.y, call.y_strides}});
  return plan_of(call, wide, false, limits);
}

inline Plan plan_of(const InstanceNormBackward& call, Limits limits) {
  const bool wide = is_wide(call, {{call.x, call.x_strides},
                                   {call.grad_y, call.grad_y_strides},
                                   {call.grad_x, call.grad_x_strides}});
  return plan_of(call, wide, true, limits);
}

}  // namespace fastmrigan::norm
