// The CUDA kernels. A block makes one tile of windows of one pair: the moments of the tile's
// columns go to shared memory, then each thread merges those of its windows. The differences of a
// pair's pixels are shared out evenly over its tiles. Every block leaves its sums, and a second
// kernel adds those of a pair in order, so that the bits repeat.
#pragma once

#include "core/device.cuh"
#include "ssim/ssim.h"
#include "ssim/ssim_math.h"

namespace fastmrigan::ssim {

constexpr int tile_columns = 96;                      // three warps wide
constexpr int tile_width = tile_columns - 2 * reach;  // windows of a row of a tile
constexpr int tile_height = 16;
constexpr int group = 4;  // rows of windows a thread makes columns for
constexpr int strips = tile_height / group;
constexpr int threads = tile_columns * strips;
constexpr int warps = threads / 32;
constexpr int quantities = 4;  // mean and variance of P and M
constexpr int quantity_stride = tile_height * tile_columns;
constexpr size_t shared_bytes =
    sizeof(float) * (quantities * quantity_stride + Similarity::terms * warps);

struct Plan {
  int across;  // tiles of a row of tiles
  int tiles;   // of a pair
  int share;   // pixels whose differences a tile takes
};

inline Plan plan_of(const Similarity& call) {
  const int64_t pixels = call.height * call.width;
  Plan plan{1, 1, 0};
  if (call.with_windows) {
    const int64_t across = (call.width - 2 * reach + tile_width - 1) / tile_width;
    const int64_t down = (call.height - 2 * reach + tile_height - 1) / tile_height;
    plan.across = static_cast<int>(across);
    plan.tiles = static_cast<int>(across * down);
  } else {
    plan.tiles = static_cast<int>((pixels + 4095) / 4096);
  }
  plan.share = static_cast<int>((pixels + plan.tiles - 1) / plan.tiles);
  return plan;
}

// Indices into a slice, and into the grid, are 32 bits wide.
inline bool is_countable(const Similarity& call) {
  const int64_t most = int64_t{1} << 30;
  return call.height <= most && call.width <= most && call.height * call.width <= most &&
         call.batch <= most / plan_of(call).tiles;
}

// One column of a slice from a row on. Past the last row that is read again: those windows count
// nowhere.
struct ReadColumn {
  const float* column;
  int width, top, last;

  FASTMRIGAN_HD float operator()(int r) const {
    const int row = top + r < last ? top + r : last;
    return column[row * width];
  }
};

struct ReadShared {
  const float* first;

  FASTMRIGAN_HD float operator()(int k) const { return first[k]; }
};

__device__ __forceinline__ void add_windows(const Similarity& call, const Plan& plan,
                                            const float* a, const float* b, const uint8_t* mask,
                                            int tile, float* shared,
                                            float (&sums)[Similarity::terms]) {
  const int width = static_cast<int>(call.width), height = static_cast<int>(call.height);
  const int left = tile % plan.across * tile_width, top = tile / plan.across * tile_height;
  const int column = static_cast<int>(threadIdx.x) % tile_columns;
  const int strip = static_cast<int>(threadIdx.x) / tile_columns;
  {
    const int x = left + column < width ? left + column : width - 1;
    const int y = top + strip * group;
    Pair<float> made[group];
    column_moments<group, float>(ReadColumn{a + x, width, y, height - 1},
                                 ReadColumn{b + x, width, y, height - 1}, made);
    float* at = shared + strip * group * tile_columns + column;
    FASTMRIGAN_UNROLL
    for (int w = 0; w < group; ++w, at += tile_columns) {
      at[0] = made[w].p.mean;
      at[quantity_stride] = made[w].p.variance;
      at[2 * quantity_stride] = made[w].m.mean;
      at[3 * quantity_stride] = made[w].m.variance;
    }
  }
  __syncthreads();
  const int x = left + column;
  if (column >= tile_width || x >= width - 2 * reach) return;
  for (int row = strip; row < tile_height; row += strips) {
    const int y = top + row;
    if (y >= height - 2 * reach) return;
    if (mask != nullptr && mask[(y + reach) * width + x + reach] == 0) continue;
    const float* at = shared + row * tile_columns + column;
    const Moments<float> p = merge_columns<float>(ReadShared{at}, ReadShared{at + quantity_stride});
    const Moments<float> m = merge_columns<float>(ReadShared{at + 2 * quantity_stride},
                                                  ReadShared{at + 3 * quantity_stride});
    const Losses<float> losses = losses_of<float>({p, m}, call.c1, call.c2);
    sums[Similarity::ssim_loss] += losses.ssim;
    sums[Similarity::contrast_loss] += losses.contrast;
    sums[Similarity::windows] += 1.0f;
  }
}

__device__ __forceinline__ void add_differences(const Similarity& call, const Plan& plan,
                                                const float* a, const float* b, const uint8_t* mask,
                                                int tile, float (&sums)[Similarity::terms]) {
  const int count = static_cast<int>(call.height * call.width);
  const int first = tile * plan.share;
  const int end = first + plan.share < count ? first + plan.share : count;
  for (int i = first + static_cast<int>(threadIdx.x); i < end; i += threads) {
    if (mask != nullptr && mask[i] == 0) continue;
    const float off = a[i] - b[i];
    sums[Similarity::absolute] += fabsf(off);
    sums[Similarity::squared] += off * off;
    sums[Similarity::pixels] += 1.0f;
  }
}

// workspace: [blocks, Similarity::terms].
__global__ void __launch_bounds__(threads)
    sums_kernel(Similarity call, Plan plan, double* workspace) {
  float* const shared = device::shared_memory<float>();  // [4, tile_height, tile_columns], table
  float* const table = shared + quantities * quantity_stride;  // [Similarity::terms, warps]
  const int tile = static_cast<int>(blockIdx.x % static_cast<unsigned>(plan.tiles));
  const int64_t n = blockIdx.x / static_cast<unsigned>(plan.tiles);
  const float* const a = call.a + n * call.height * call.width;
  const float* const b = call.b + n * call.height * call.width;
  const uint8_t* const mask = call.mask == nullptr ? nullptr : call.mask + n * call.mask_stride;
  float sums[Similarity::terms] = {};
  if (call.with_windows) add_windows(call, plan, a, b, mask, tile, shared, sums);
  add_differences(call, plan, a, b, mask, tile, sums);
  FASTMRIGAN_UNROLL
  for (int term = 0; term < Similarity::terms; ++term) {
    FASTMRIGAN_UNROLL
    for (int bit = 16; bit > 0; bit /= 2)
      sums[term] += __shfl_xor_sync(0xFFFFFFFFu, sums[term], bit);
    if (threadIdx.x % 32 == 0)
      table[term * warps + static_cast<int>(threadIdx.x / 32)] = sums[term];
  }
  __syncthreads();
  if (threadIdx.x >= Similarity::terms) return;
  double total = 0;
  for (int warp = 0; warp < warps; ++warp)
    total += static_cast<double>(table[static_cast<int>(threadIdx.x) * warps + warp]);
  workspace[int64_t{blockIdx.x} * Similarity::terms + threadIdx.x] = total;
}

// sums: [N, Similarity::terms]; a thread for each.
__global__ void __launch_bounds__(128)
    merge_kernel(const double* workspace, int64_t batch, int tiles, double* sums) {
  const int64_t at = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (at >= batch * Similarity::terms) return;
  const double* from = workspace + at / Similarity::terms * tiles * Similarity::terms;
  double total = 0;
  for (int tile = 0; tile < tiles; ++tile)
    total += from[tile * Similarity::terms + at % Similarity::terms];
  sums[at] = total;
}

inline auto launch_sums(const Similarity& call, const Plan& plan, double* workspace, void* stream) {
  return device::launch(sums_kernel, call.batch * plan.tiles, threads, shared_bytes, 1, stream,
                        call, plan, workspace);
}

inline auto launch_merge(const Similarity& call, const Plan& plan, const double* workspace,
                         void* stream) {
  return device::launch(merge_kernel, (call.batch * Similarity::terms + 127) / 128, 128, 0, 1,
                        stream, workspace, call.batch, plan.tiles, call.sums);
}

}  // namespace fastmrigan::ssim
