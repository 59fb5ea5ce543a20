// One block makes one tile of the products, over all rows in their order: no atomics, and the same
// bits every time. The blocks on the diagonal make the sums as well.
#pragma once

#include "core/device.cuh"
#include "frechet/moments.h"
#include "frechet/moments_tiles.h"

namespace fastmrigan::moments {

constexpr size_t shared_bytes = 2 * step * side * sizeof(double);

// The deviations of `step` rows and `side` columns, zeros outside of x.
template <typename T>
__device__ __forceinline__ void load_deviations(const MomentsUpdate<T>& call, int64_t first,
                                                int64_t left, double* out) {
  for (int at = static_cast<int>(threadIdx.x); at < step * side; at += threads) {
    const int64_t row = first + at / side;
    const int64_t column = left + at % side;
    out[at] = row < call.rows && column < call.d
                  ? static_cast<double>(call.x[row * call.row_stride + column]) - call.shift[column]
                  : 0.0;
  }
}

template <typename T>
__global__ void __launch_bounds__(threads) moments_kernel(const MomentsUpdate<T> call) {
  double* lines = device::shared_memory<double>();  // [step, side]: of the tile's rows
  double* columns = lines + step * side;            // [step, side]: of its columns
  const Tile tile = tile_of(static_cast<int64_t>(blockIdx.x));
  const int64_t top = tile.row * side, left = tile.column * side;
  const int me = static_cast<int>(threadIdx.x);
  const int line = me / 16 * each;  // this thread: lines line .. line + 3,
  const int column = me % 16;       // columns column, column + 16, …
  const bool sums_too = tile.row == tile.column && me < side;
  double products[each][each] = {};
  double sum = 0;
  for (int64_t first = 0; first < call.rows; first += step) {
    load_deviations(call, first, top, lines);
    load_deviations(call, first, left, columns);
    __syncthreads();
#pragma unroll
    for (int row = 0; row < step; ++row) {
      double a[each], b[each];
#pragma unroll
      for (int k = 0; k < each; ++k) {
        a[k] = lines[row * side + line + k];
        b[k] = columns[row * side + column + 16 * k];
      }
#pragma unroll
      for (int i = 0; i < each; ++i)
#pragma unroll
        for (int j = 0; j < each; ++j) products[i][j] += a[i] * b[j];
    }
    if (sums_too)
      for (int row = 0; row < step; ++row) sum += columns[row * side + me];
    __syncthreads();
  }
#pragma unroll
  for (int i = 0; i < each; ++i) {
#pragma unroll
    for (int j = 0; j < each; ++j) {
      const int64_t row = top + line + i, at = left + column + 16 * j;
      if (row <= at && at < call.d) call.products[row * call.d + at] += products[i][j];
    }
  }
  if (sums_too && left + me < call.d) call.sums[left + me] += sum;
}

template <typename T>
auto launch_update(const MomentsUpdate<T>& call, void* stream) {
  return device::launch(moments_kernel<T>, tiles_of(call.d), threads, shared_bytes, 1, stream,
                        call);
}

}  // namespace fastmrigan::moments
