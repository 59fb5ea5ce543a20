// Sums over a set (a plane, or each channel of a tile) in a fixed order and without atomics, so
// that the bits repeat: a tree over the lanes of a warp, over the warps of a block, over the blocks
// of a cluster. Moments and Sums go through the same trees.
#pragma once

#include "core/device.cuh"
#include "instance_norm/instance_norm_math.h"
#include "instance_norm/instance_norm_plan.h"

namespace fastmrigan::norm {

constexpr unsigned all_lanes = 0xFFFFFFFFu;

// The sum over the lanes whose numbers differ only in bits from `apart` to `together` / 2. Addition
// commutes, so all of them get the same bits.
__device__ __forceinline__ float sum_lanes(float value, int together, int apart) {
#pragma unroll 1
  for (int bit = together / 2; bit >= apart; bit /= 2)
    value += __shfl_xor_sync(all_lanes, value, bit);
  return value;
}

// The moments of all such lanes. The channels of a thread have one count between them.
template <int own>
__device__ __forceinline__ void merge_lanes(Moments (&m)[own], int together, int apart) {
  const float count = sum_lanes(m[0].count, together, apart);
  const float inverse = count > 0.0f ? 1.0f / count : 0.0f;
#pragma unroll
  for (int c = 0; c < own; ++c) {
    const float mean = sum_lanes(m[c].count * m[c].mean, together, apart) * inverse;
    const float off = m[c].mean - mean;
    m[c] = {count, mean, sum_lanes(fmaf(m[c].count * off, off, m[c].m2), together, apart)};
  }
}

template <int own>
__device__ __forceinline__ void merge_lanes(Sums (&s)[own], int together, int apart) {
#pragma unroll
  for (int c = 0; c < own; ++c)
    s[c] = {sum_lanes(s[c].dz, together, apart), sum_lanes(s[c].dz_t, together, apart)};
}

// Bytes of shared memory for the tables of S: the warps' results, then the block's, then the set's.
template <typename S>
size_t table_bytes(const Plan& plan) {
  return sizeof(S) * static_cast<size_t>(plan.table_rows) *
         static_cast<size_t>(plan.table_columns == 0 ? 0 : plan.table_columns + 2);
}

// out[row] = the merge over column < columns of in(row, column); a warp takes a row at a time.
template <typename S, typename In>
__device__ __forceinline__ void merge_columns(S* out, int rows, int columns, int width, In in) {
  const int lane = static_cast<int>(threadIdx.x % 32);
#pragma unroll 1
  for (int row = static_cast<int>(threadIdx.x / 32); row < rows;
       row += static_cast<int>(blockDim.x / 32)) {
    S sum[1] = {};
    if (lane < columns) sum[0] = in(row, lane);
    merge_lanes(sum, width, 1);
    if (lane == 0) out[row] = sum[0];
  }
}

// Every thread of a set hands in what it has summed of its `own` channels and gets the whole's.
// A cluster has arrived at its barrier afterwards: before it exits, each thread must wait there, or
// a block would go while others still read its table.
template <bool channels_last, int own, typename S>
__device__ __forceinline__ void reduce(S (&sum)[own], const Plan& plan) {
  const int lane = static_cast<int>(threadIdx.x % 32);
  const int apart = channels_last ? plan.lanes : 1;  // lanes of the same channel
  const int together = channels_last ? 32 : (plan.lanes < 32 ? plan.lanes : 32);
  merge_lanes(sum, together, apart);
  const int rows = plan.table_rows, columns = plan.table_columns;
  if (columns == 0) return;                     // a plane within a warp
  S* const table = device::shared_memory<S>();  // [rows, columns]
  S* const of_block = table + rows * columns;   // [rows]
  S* const of_set = of_block + rows;            // [rows]
  if (lane < apart) {
#pragma unroll
    for (int c = 0; c < own; ++c)
      table[(lane * own + c) * columns + static_cast<int>(threadIdx.x / 32)] = sum[c];
  }
  __syncthreads();
  merge_columns(of_block, rows, columns, 32,
                [&](int row, int column) { return table[row * columns + column]; });
  const S* whole = of_block;
  if (plan.cluster > 1) {
    device::cluster_arrive();
    device::cluster_wait();
    merge_columns(of_set, rows, plan.cluster, plan.cluster,
                  [&](int row, int rank) { return device::cluster_map(of_block, rank)[row]; });
    device::cluster_arrive();
    whole = of_set;
  }
  __syncthreads();
#pragma unroll
  for (int c = 0; c < own; ++c) sum[c] = whole[(lane & (apart - 1)) * own + c];
}

}  // namespace fastmrigan::norm
