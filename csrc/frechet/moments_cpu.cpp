// The sum of products as a blocked product of a matrix with itself. Of a block of rows the
// deviations are packed as doubles into panels, a vector of columns wide; a tile is the product of
// three panels beside each other with one other, held in registers over all rows of the block, and
// then added to where it belongs. A few tiles side by side go down the matrix together, so that a
// panel fetched for one serves them all: the panels of a block do not fit into a core's cache. A
// tile belongs to one thread, and sums over rows in their order, so the bits do not depend on the
// number of threads.
#include <algorithm>
#include <cstring>
#include <memory>
#include <new>
#include <type_traits>

#include "frechet/moments.h"

namespace fastmrigan::FASTMRIGAN_ISA_NAME {

namespace {

#if defined(__AVX512F__)
constexpr int width = 8;  // columns of a panel
#elif defined(__AVX__)
constexpr int width = 4;
#else
constexpr int width = 2;
#endif
constexpr int across = 3;         // panels of a tile beside each other
constexpr int64_t depth = 384;    // rows packed at a time: 6 MB at 2,048 features
constexpr int64_t beside = 4;     // tiles side by side, at most: their panels fill 0.3 MB
constexpr int64_t together = 8;   // rows packed between two turns to the next panel
constexpr int64_t pack_part = 8;  // panels packed by one thread at a time

typedef double Doubles __attribute__((vector_size(width * 8)));
typedef float Floats __attribute__((vector_size(width * 4)));

inline Doubles load(const double* at) {
  Doubles v;
  std::memcpy(&v, at, sizeof v);
  return v;
}

inline Doubles load(const float* at) {
  Floats v;
  std::memcpy(&v, at, sizeof v);
  return __builtin_convertvector(v, Doubles);
}

inline void store(double* at, Doubles v) { std::memcpy(at, &v, sizeof v); }

template <typename T>
inline Doubles load_some(const T* at, int count) {
  T padded[width] = {};
  std::memcpy(padded, at, count * sizeof(T));
  return load(padded);
}

inline void add(double* to, Doubles v, int count) {
  if (count == width) return store(to, load(to) + v);
  for (int k = 0; k < count; ++k) to[k] += v[k];
}

inline int filled(int64_t d, int64_t panel) {
  return static_cast<int>(std::min<int64_t>(width, d - panel * width));
}

// A few rows of one panel: [rows, width] to `out`, zeros past the last column. Returns their sum.
template <typename T>
Doubles pack(const MomentsUpdate<T>& call, int64_t first, int64_t rows, int64_t panel,
             double* out) {
  const int64_t column = panel * width;
  const int count = filled(call.d, panel);
  const T* from = call.x + first * call.row_stride + column;
  Doubles total{};
  if (count == width) {
    const Doubles shift = load(call.shift + column);
    for (int64_t row = 0; row < rows; ++row) {
      const Doubles apart = load(from + row * call.row_stride) - shift;
      store(out + row * width, apart);
      total += apart;
    }
  } else {
    const Doubles shift = load_some(call.shift + column, count);
    for (int64_t row = 0; row < rows; ++row) {
      const Doubles apart = load_some(from + row * call.row_stride, count) - shift;
      store(out + row * width, apart);
      total += apart;
    }
  }
  return total;
}

// The panels from `begin` to `end`, at most pack_part; the sums of a block are added to `sums` as
// one, so that many rows lose no more than a few.
template <typename T>
void pack_panels(const MomentsUpdate<T>& call, int64_t first, int64_t rows, int64_t begin,
                 int64_t end, double* packed) {
  Doubles totals[pack_part] = {};
  for (int64_t row = 0; row < rows; row += together)
    for (int64_t panel = begin; panel < end; ++panel)
      totals[panel - begin] += pack(call, first + row, std::min(together, rows - row), panel,
                                    packed + (panel * depth + row) * width);
  for (int64_t panel = begin; panel < end; ++panel)
    add(call.sums + panel * width, totals[panel - begin], filled(call.d, panel));
}

// Adds the products of `count` panels beside each other with the panel `other`.
template <int count, typename T>
void multiply(const MomentsUpdate<T>& call, const double* packed, int64_t rows, int64_t panel,
              int64_t other) {
  const int64_t size = depth * width;
  const double* left = packed + panel * size;
  const double* right = packed + other * size;
  double* out = call.products + other * width * call.d + panel * width;
  const int lines = filled(call.d, other);
  for (int line = 0; line < lines; ++line)  // on its way while the products are made
    for (int k = 0; k < count; ++k)
      __builtin_prefetch(out + line * call.d + std::min(k * width, filled(call.d, panel) - 1), 1);
  Doubles sums[count][width] = {};
  for (int64_t row = 0; row < rows; ++row) {
    Doubles columns[count];
#pragma GCC unroll 3
    for (int k = 0; k < count; ++k) columns[k] = load(left + k * size + row * width);
#pragma GCC unroll 8
    for (int line = 0; line < width; ++line) {
      const double one = right[row * width + line];
#pragma GCC unroll 3
      for (int k = 0; k < count; ++k) sums[k][line] += columns[k] * one;
    }
  }
  for (int line = 0; line < lines; ++line)
    for (int k = 0; k < count; ++k)
      add(out + line * call.d + k * width, sums[k][line], filled(call.d, panel + k));
}

template <typename T>
void update(const MomentsUpdate<T>& call, int threads) {
  const int64_t panels = (call.d + width - 1) / width;
  const int64_t tiles = (panels + across - 1) / across;
  // Enough groups for every thread to have several, since they differ in size.
  const int64_t stride = across * std::clamp<int64_t>(tiles / (8 * threads), 1, beside);
  const int64_t groups = (panels + stride - 1) / stride;
  const std::align_val_t line{64};
  auto release = [line](double* p) { operator delete[](p, line); };
  const std::unique_ptr<double[], decltype(release)> owner(
      static_cast<double*>(operator new[](sizeof(double) * panels * depth * width, line)), release);
  double* packed = owner.get();
#pragma omp parallel num_threads(threads) if (threads > 1)
  for (int64_t first = 0; first < call.rows; first += depth) {
    const int64_t rows = std::min(depth, call.rows - first);
#pragma omp for schedule(static)
    for (int64_t part = 0; part < panels; part += pack_part)
      pack_panels(call, first, rows, part, std::min(part + pack_part, panels), packed);
#pragma omp for schedule(dynamic, 1)
    for (int64_t turn = 0; turn < groups; ++turn) {
      const int64_t begin = (groups - 1 - turn) * stride;  // those with most to do go first
      const int64_t end = std::min(begin + stride, panels);
      for (int64_t other = 0; other < end; ++other) {
        const int64_t below = std::max<int64_t>(0, other - begin) / across;  // tiles not to be made
        for (int64_t panel = begin + below * across; panel < end; panel += across) {
          const int64_t count = std::min<int64_t>(across, panels - panel);
          if (count == 3)
            multiply<3>(call, packed, rows, panel, other);
          else if (count == 2)
            multiply<2>(call, packed, rows, panel, other);
          else
            multiply<1>(call, packed, rows, panel, other);
        }
      }
    }
  }
}

}  // namespace

void moments_update(const MomentsUpdate<float>& call, int threads) { update(call, threads); }

void moments_update(const MomentsUpdate<double>& call, int threads) { update(call, threads); }

}  // namespace fastmrigan::FASTMRIGAN_ISA_NAME
