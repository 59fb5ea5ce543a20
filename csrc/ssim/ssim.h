// SSIM, PSNR and MAE of pairs of slices: one pass that makes no temporary image. SSIM is that of
// Wang, Bovik, Sheikh, Simoncelli (2004): an 11x11 Gaussian window of sigma 1.5 and population
// covariances, only where the window lies inside the slice. Pointers and shapes only; every field
// is checked at the Python face, inside it is assumed. What comes out are sums; the Python face
// turns them into means and decibels.
#pragma once

#include <cstdint>

#include "core/isa.h"

namespace fastmrigan {

struct Similarity {
  // What is summed of a pair. A pixel counts where there is no mask or the mask holds it; a window
  // counts where its middle pixel does.
  enum Term : int {
    ssim_loss,      // 1 - SSIM of a window: kept as the loss, since SSIM lies near 1
    contrast_loss,  // 1 - contrast and structure of a window, for multi-scale SSIM
    absolute,       // |a - b| of a pixel
    squared,        // (a - b)² of a pixel
    windows,        // that count
    pixels,         // that count
    terms           // how many there are
  };

  int64_t batch;   // N
  int64_t height;  // H, at least 1; at least 11 with windows
  int64_t width;   // W, the same
  const float* a;  // [N, H, W], contiguous
  const float* b;
  const uint8_t* mask;  // 0 or 1 a pixel, [H, W] a slice, or null: everything counts
  int64_t mask_stride;  // from one slice's mask to the next's: H * W, or 0 for one mask for all
  float c1, c2;         // SSIM's stabilising constants, (0.01 R)² and (0.03 R)² for data range R
  bool with_windows;    // false: the terms of windows stay 0
  double* sums;         // [N, terms]
};

// On the CPU. threads: 0 lets OpenMP choose; the bits do not depend on it.
void similarity(const Similarity& call, int threads);

FASTMRIGAN_DECLARE_PER_ISA(void similarity(const Similarity& call, int threads))

// On the current CUDA device, all pointers on that device. Enqueues on `stream` (a cudaStream_t)
// and returns; no synchronisation, no allocation, no atomics. workspace: as many doubles as
// similarity_cuda_workspace says.
// Throws std::runtime_error with CUDA's words where a launch fails, and where there are more than
// 2^30 pixels a slice or tiles.
void similarity_cuda(const Similarity& call, double* workspace, void* stream);
int64_t similarity_cuda_workspace(const Similarity& call);

}  // namespace fastmrigan
