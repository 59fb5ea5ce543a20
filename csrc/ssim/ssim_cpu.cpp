// A slice is cut into bands of rows, which the threads share; a band into tiles of columns. Of a
// tile, the moments of the columns of a few rows of windows are made first, then the windows;
// meanwhile the pixels of the next band are on their way. The cut depends on the shape alone, so
// the bits do not depend on the threads.
#include <algorithm>
#include <limits>
#include <memory>
#include <type_traits>

#include "core/vector.h"
#include "ssim/ssim.h"
#include "ssim/ssim_math.h"

namespace fastmrigan::FASTMRIGAN_ISA_NAME {

namespace {

using ssim::reach;

constexpr int64_t band = 32;                // rows of a task
constexpr int group = lanes == 16 ? 4 : 2;  // rows of windows made together: what registers hold
constexpr int64_t tile = 256;               // windows of a row made together: what L1 holds
constexpr int64_t pitch = tile + 2 * 16;    // columns of those windows, and room for a last vector
constexpr int half = lanes / 2;

typedef double Doubles __attribute__((vector_size(lanes * 4)));  // half of the lanes
typedef int64_t Longs __attribute__((vector_size(lanes * 4)));

inline Doubles widen(const float* at) {
  typedef float Half __attribute__((vector_size(half * 4)));
  Half floats;
  std::memcpy(&floats, at, sizeof floats);
  return __builtin_convertvector(floats, Doubles);
}

inline Doubles widen(Floats v) {
  float floats[lanes];
  store(floats, v);
  return widen(floats) + widen(floats + half);
}

inline double sum(Doubles v) {
  double total = 0;
  for (int k = 0; k < half; ++k) total += v[k];
  return total;
}

// v where the mask holds the pixel, 0 elsewhere, also in place of a NaN. `some` of the mask's bytes
// may be read.
inline Floats keep_counted(Floats v, const uint8_t* mask, int some) {
  int32_t counted[lanes] = {};
  for (int k = 0; k < some; ++k) counted[k] = mask[k];
  Ints lane;
  std::memcpy(&lane, counted, sizeof lane);
  return lane != 0 ? v : Floats{};
}

inline Doubles keep_counted(Doubles v, const uint8_t* mask) {
  int64_t counted[half];
  for (int k = 0; k < half; ++k) counted[k] = mask[k];
  Longs lane;
  std::memcpy(&lane, counted, sizeof lane);
  return lane != 0 ? v : Doubles{};
}

inline int64_t count_of(const uint8_t* mask, int64_t count) {
  int64_t total = 0;
  for (int64_t i = 0; i < count; ++i) total += mask[i];
  return total;
}

// Of a band. Rows are summed in float, or half a row in double; rows together in double.
struct Sums {
  Doubles ssim_loss{}, contrast_loss{}, absolute[2] = {}, squared[2] = {};
  int64_t windows = 0, pixels = 0;

  void write(double* out) const {
    out[Similarity::ssim_loss] = sum(ssim_loss);
    out[Similarity::contrast_loss] = sum(contrast_loss);
    out[Similarity::absolute] = sum(absolute[0] + absolute[1]);
    out[Similarity::squared] = sum(squared[0] + squared[1]);
    out[Similarity::windows] = static_cast<double>(windows);
    out[Similarity::pixels] = static_cast<double>(pixels);
  }
};

// Adds the differences of one row of the slice.
template <bool masked>
void add_differences(const float* a, const float* b, const uint8_t* mask, int64_t count,
                     Sums& sums) {
  const auto add = [&](Doubles off, int to) {
    const Longs magnitude = reinterpret_cast<Longs>(off) & std::numeric_limits<int64_t>::max();
    sums.absolute[to] += reinterpret_cast<Doubles>(magnitude);
    sums.squared[to] += off * off;
  };
  const auto difference = [&](int64_t c) {
    const Doubles off = widen(a + c) - widen(b + c);
    if constexpr (masked) return keep_counted(off, mask + c);
    return off;
  };
  int64_t c = 0;
  for (; c + lanes <= count; c += lanes) {
    add(difference(c), 0);
    add(difference(c + half), 1);
  }
  for (; c < count; ++c) {
    if (masked && !mask[c]) continue;
    add(Doubles{static_cast<double>(a[c]) - static_cast<double>(b[c])}, 0);
  }
  sums.pixels += masked ? count_of(mask, count) : count;
}

// The moments of the columns of `group` rows of windows.
struct Columns {
  alignas(64) float mean_p[group][pitch] = {}, variance_p[group][pitch] = {};
  alignas(64) float mean_m[group][pitch] = {}, variance_m[group][pitch] = {};
};

// a, b: the first pixel of the first window; count: columns, at least 11.
template <int rows>
void make_columns(const float* a, const float* b, int64_t width, int64_t count, Columns& columns) {
  const auto make = [&](int64_t c, auto read) {
    ssim::Pair<Floats> made[rows];
    ssim::column_moments<rows, Floats>([&](int r) { return read(a + r * width + c); },
                                       [&](int r) { return read(b + r * width + c); }, made);
    for (int r = 0; r < rows; ++r) {
      store(columns.mean_p[r] + c, made[r].p.mean);
      store(columns.variance_p[r] + c, made[r].p.variance);
      store(columns.mean_m[r] + c, made[r].m.mean);
      store(columns.variance_m[r] + c, made[r].m.variance);
    }
  };
  if (count < lanes)
    return make(0, [&](const float* at) { return load_some(at, static_cast<int>(count)); });
  for (int64_t c = 0; c < count; c += lanes)  // the last one begins early
    make(std::min(c, count - lanes), [](const float* at) { return load(at); });
}

// mask: of the middle pixel of the first window; count: windows of a row; next_a, next_b: pixels to
// bring near, as many as windows.
template <bool masked>
void add_windows(const Columns& columns, int rows, int64_t count, const uint8_t* mask,
                 int64_t width, float c1, float c2, const float* next_a, const float* next_b,
                 Sums& sums) {
  for (int r = 0; r < rows; ++r) {
    Floats ssim_loss{}, contrast_loss{};
    for (int64_t c = 0; c < count; c += lanes) {
      __builtin_prefetch(next_a + r * width + c);
      __builtin_prefetch(next_b + r * width + c);
      const auto merge = [&](const float* mean, const float* variance) {
        return ssim::merge_columns<Floats>([&](int k) { return load(mean + c + k); },
                                           [&](int k) { return load(variance + c + k); });
      };
      auto losses = ssim::losses_of<Floats>({merge(columns.mean_p[r], columns.variance_p[r]),
                                             merge(columns.mean_m[r], columns.variance_m[r])},
                                            c1, c2);
      const int some = static_cast<int>(std::min<int64_t>(lanes, count - c));
      if constexpr (masked) {
        losses.ssim = keep_counted(losses.ssim, mask + r * width + c, some);
        losses.contrast = keep_counted(losses.contrast, mask + r * width + c, some);
      } else if (some < lanes) {
        losses.ssim = keep_some(losses.ssim, some);
        losses.contrast = keep_some(losses.contrast, some);
      }
      ssim_loss += losses.ssim;
      contrast_loss += losses.contrast;
    }
    sums.ssim_loss += widen(ssim_loss);
    sums.contrast_loss += widen(contrast_loss);
    sums.windows += masked ? count_of(mask + r * width, count) : count;
  }
}

// Rows `first` to `end` of slice n: their pixels, and the windows whose middle lies in them.
template <bool masked>
void add_band(const Similarity& call, int64_t n, int64_t first, int64_t end, Sums& sums) {
  const int64_t width = call.width;
  const float* a = call.a + n * call.height * width;
  const float* b = call.b + n * call.height * width;
  const auto mask_at = [&](int64_t y, int64_t x) -> const uint8_t* {
    return masked ? call.mask + n * call.mask_stride + y * width + x : nullptr;
  };
  for (int64_t y = first; y < end; ++y)
    add_differences<masked>(a + y * width, b + y * width, mask_at(y, 0), width, sums);
  if (!call.with_windows) return;
  const int64_t last = std::min(end, call.height - reach);
  const int64_t last_row = call.batch * call.height - group;  // that pixels are fetched from
  Columns columns;
  for (int64_t x = 0; x < width - 2 * reach; x += tile) {
    const int64_t count = std::min(tile, width - 2 * reach - x);
    const auto add_rows = [&](int64_t y, auto rows) {
      const int64_t corner = (y - reach) * width + x;
      make_columns<rows.value>(a + corner, b + corner, width, count + 2 * reach, columns);
      const int64_t next = std::min(n * call.height + y + band, last_row) * width + x;
      add_windows<masked>(columns, rows.value, count, mask_at(y, x + reach), width, call.c1,
                          call.c2, call.a + next, call.b + next, sums);
    };
    int64_t y = std::max<int64_t>(first, reach);
    for (; y + group <= last; y += group) add_rows(y, std::integral_constant<int, group>{});
    for (; y < last; ++y) add_rows(y, std::integral_constant<int, 1>{});
  }
}

}  // namespace

void similarity(const Similarity& call, int threads) {
  const int64_t bands = (call.height + band - 1) / band, tasks = call.batch * bands;
  // A thread that takes bands in a row finds them fetched.
  const int64_t in_a_row = std::clamp<int64_t>(tasks / (8 * threads), 1, bands);
  const std::unique_ptr<double[]> partial(new double[tasks * Similarity::terms]);
#pragma omp parallel for num_threads(threads) schedule(dynamic, in_a_row) if (threads > 1)
  for (int64_t task = 0; task < tasks; ++task) {
    const int64_t n = task / bands, first = task % bands * band;
    const int64_t end = std::min(first + band, call.height);
    Sums sums;
    if (call.mask)
      add_band<true>(call, n, first, end, sums);
    else
      add_band<false>(call, n, first, end, sums);
    sums.write(partial.get() + task * Similarity::terms);
  }
  for (int64_t n = 0; n < call.batch; ++n)
    for (int term = 0; term < Similarity::terms; ++term) {
      double total = 0;
      for (int64_t k = 0; k < bands; ++k)
        total += partial[(n * bands + k) * Similarity::terms + term];
      call.sums[n * Similarity::terms + term] = total;
    }
}

}  // namespace fastmrigan::FASTMRIGAN_ISA_NAME
