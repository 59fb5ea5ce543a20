// The arithmetic of a window, shared by the CPU kernels, where T is a vector of neighbouring
// windows, and the CUDA kernel, where T is a float.
//
// P = a + b and M = a - b stand in for a and b. With var a + var b = (var P + var M) / 2 and
// cov(a, b) = (var P - var M) / 4,
//   1 - luminance              = mean_M² / L,  L = (mean_P² + mean_M²) / 2 + C1
//   1 - contrast and structure = var_M / D,    D = (var_P + var_M) / 2 + C2
// so that means and variances of two images are all there is to make.
//
// No variance is E[x²] - E[x]² of the values: on a bright constant area that leaves nothing but
// rounding, which C2 (9e-4 of the squared data range) does not hide in float. The window is made
// in two steps. Of each of its columns: mean and variance, from deviations from one of its pixels.
// Of the columns: the mean of their variances plus the variance of their means, from deviations
// from the middle one's (the law of total variance). A variance is then as exact, relatively, as
// float is, give or take the weight of the pixel that stood for the mean.
#pragma once

#include "core/host_device.h"

#ifdef __CUDACC__
#define FASTMRIGAN_UNROLL _Pragma("unroll")
#else
#define FASTMRIGAN_UNROLL _Pragma("GCC unroll 32")
#endif

namespace fastmrigan::ssim {

constexpr int window = 11;
constexpr int reach = window / 2;  // pixels from the middle to the rim: the border without windows

// exp(-d² / (2 1.5²)) at distance d from the middle, over the sum of all 11.
FASTMRIGAN_HD constexpr float weight(int k) {
  const int d = k < reach ? reach - k : k - reach;
  return d == 0   ? 0.2660117248617943f
         : d == 1 ? 0.2130055377112537f
         : d == 2 ? 0.1093606895097000f
         : d == 3 ? 0.0360007721284308f
         : d == 4 ? 0.0075987581352392f
                  : 0.0010283800844791f;
}

template <typename T>
struct Moments {
  T mean, variance;
};

// Of P and of M, over a column of a window or over the window.
template <typename T>
struct Pair {
  Moments<T> p, m;
};

// One column of `rows` windows, each one row below the one before: a(r) and b(r) are the pixels of
// row r, r < rows + 10, of the column.
template <int rows, typename T, typename ReadA, typename ReadB>
FASTMRIGAN_HD void column_moments(ReadA a, ReadB b, Pair<T> (&out)[rows]) {
  constexpr int shared = reach + (rows - 1) / 2;  // a row near the middle of every window
  const T from_a = a(shared), from_b = b(shared);
  T p_sum[rows] = {}, p_square[rows] = {}, m_sum[rows] = {}, m_square[rows] = {};
  FASTMRIGAN_UNROLL
  for (int r = 0; r < rows + 2 * reach; ++r) {
    const T off_a = a(r) - from_a, off_b = b(r) - from_b;
    const T p = off_a + off_b, m = off_a - off_b;
    const T pp = p * p, mm = m * m;
    FASTMRIGAN_UNROLL
    for (int w = 0; w < rows; ++w) {
      if (r < w || r > w + 2 * reach) continue;
      p_sum[w] += weight(r - w) * p;
      m_sum[w] += weight(r - w) * m;
      p_square[w] += weight(r - w) * pp;
      m_square[w] += weight(r - w) * mm;
    }
  }
  FASTMRIGAN_UNROLL
  for (int w = 0; w < rows; ++w) {
    out[w].p = {(from_a + from_b) + p_sum[w], p_square[w] - p_sum[w] * p_sum[w]};
    out[w].m = {(from_a - from_b) + m_sum[w], m_square[w] - m_sum[w] * m_sum[w]};
  }
}

// A window from the moments of its columns: mean(k) and variance(k), k < 11.
template <typename T, typename ReadMean, typename ReadVariance>
FASTMRIGAN_HD Moments<T> merge_columns(ReadMean mean, ReadVariance variance) {
  const T from = mean(reach);
  T sum = {}, square = weight(reach) * variance(reach);
  FASTMRIGAN_UNROLL
  for (int k = 0; k < window; ++k) {
    if (k == reach) continue;
    const T off = mean(k) - from;
    sum += weight(k) * off;
    square += weight(k) * (variance(k) + off * off);
  }
  return {from + sum, square - sum * sum};
}

// 1 - luminance, 1 - contrast and structure, 1 - SSIM.
template <typename T>
struct Losses {
  T luminance, contrast, ssim;
};

template <typename T>
FASTMRIGAN_HD Losses<T> losses_of(Pair<T> whole, float c1, float c2) {
  const T mean_pp = whole.p.mean * whole.p.mean, mean_mm = whole.m.mean * whole.m.mean;
  const T luminance = mean_mm / (0.5f * (mean_pp + mean_mm) + c1);
  const T contrast = whole.m.variance / (0.5f * (whole.p.variance + whole.m.variance) + c2);
  return {luminance, contrast, luminance + contrast - luminance * contrast};
}

}  // namespace fastmrigan::ssim
