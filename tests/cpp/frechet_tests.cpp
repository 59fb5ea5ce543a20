// The moments kernels against sums in long double: each instruction set, and the CUDA kernel's own
// source on the host's emulation of it. Buffers have their exact size, so that the sanitizers see
// every access outside of them.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <random>
#include <vector>

#include "check.h"
#include "core/isa.h"
#include "frechet/moments.h"
#include "frechet/moments_kernel.cuh"

namespace {

using fastmrigan::MomentsUpdate;

template <typename T>
struct Rows {
  int64_t rows, d, stride;
  std::vector<T> x;
  std::vector<double> shift;

  Rows(int64_t rows, int64_t d, int64_t gap, double mean, unsigned seed)
      : rows(rows), d(d), stride(d + gap), x(rows > 0 ? (rows - 1) * stride + d : 0), shift(d) {
    std::mt19937 random(seed);
    std::normal_distribution<double> normal;
    for (T& value : x) value = static_cast<T>(mean + normal(random));
    for (double& value : shift) value = mean + 0.1 * normal(random);
  }
};

struct Found {
  std::vector<double> sums, products;

  explicit Found(int64_t d) : sums(d, 0.25), products(d * d, -0.5) {}  // what was there stays
};

template <typename T, typename Update>
Found run(const Rows<T>& in, Update update) {
  Found found(in.d);
  update(MomentsUpdate<T>{in.x.data(), in.stride, in.rows, in.d, in.shift.data(), found.sums.data(),
                          found.products.data()});
  return found;
}

template <typename T>
void compare(const Rows<T>& in, const Found& found) {
  for (int64_t i = 0; i < in.d; ++i) {
    const auto apart = [&](int64_t row, int64_t column) {
      return static_cast<long double>(in.x[row * in.stride + column]) - in.shift[column];
    };
    long double sum = 0.25L, size = 1;
    for (int64_t row = 0; row < in.rows; ++row) {
      sum += apart(row, i);
      size += std::fabs(apart(row, i));
    }
    CHECK(std::fabs(static_cast<double>(found.sums[i] - sum)) <= 1e-14 * size);
    for (int64_t j = i; j < in.d; ++j) {
      long double product = -0.5L;
      size = 1;
      for (int64_t row = 0; row < in.rows; ++row) {
        product += apart(row, i) * apart(row, j);
        size += std::fabs(apart(row, i) * apart(row, j));
      }
      CHECK(std::fabs(static_cast<double>(found.products[i * in.d + j] - product)) <= 1e-14 * size);
    }
  }
}

// Above the diagonal; below it the kernels may leave anything.
bool same_bits(const Found& a, const Found& b, int64_t d) {
  bool same = a.sums == b.sums;
  for (int64_t i = 0; i < d; ++i)
    for (int64_t j = i; j < d; ++j) same = same && a.products[i * d + j] == b.products[i * d + j];
  return same;
}

template <typename T>
void table(void (*update)(const MomentsUpdate<T>&, int)) {
  const auto on_one = [&](const MomentsUpdate<T>& call) { update(call, 1); };
  for (int64_t d : {1, 2, 3, 7, 8, 9, 17, 24, 25, 31, 70})
    for (int64_t rows : {0, 1, 2, 7, 9, 40}) {
      const Rows<T> in(rows, d, d % 3, rows % 2 ? 0.5 : 1000.0, static_cast<unsigned>(d + rows));
      compare(in, run(in, on_one));
    }
  for (int64_t rows : {384, 385, 800}) {  // more than are packed at a time
    const Rows<T> in(rows, 13, 1, 0.5, 3);
    compare(in, run(in, on_one));
  }
  const Rows<T> large(300, 131, 0, 2.0, 4);
  const Found one = run(large, on_one);
  for (int threads : {2, 3, 5})
    CHECK(same_bits(one, run(large, [&](const MomentsUpdate<T>& call) { update(call, threads); }),
                    large.d));
}

template <typename T>
void emulated() {
  const auto on_device = [](const MomentsUpdate<T>& call) {
    fastmrigan::moments::launch_update(call, nullptr);
  };
  for (int64_t d : {1, 5, 64, 65, 130})
    for (int64_t rows : {0, 1, 15, 16, 33}) {
      const Rows<T> in(rows, d, d % 3, 10.0, static_cast<unsigned>(d + rows));
      const Found found = run(in, on_device);
      compare(in, found);
      cuda_on_host::machine.backwards = true;  // the threads in the opposite order
      CHECK(same_bits(found, run(in, on_device), d));
      cuda_on_host::machine.backwards = false;
    }
}

void tiles() {
  using namespace fastmrigan::moments;
  int64_t number = 0;
  for (int64_t column = 0; column < 300; ++column)
    for (int64_t row = 0; row <= column; ++row, ++number) {
      const Tile tile = tile_of(number);
      CHECK(tile.row == row && tile.column == column);
    }
  for (int64_t column : {1000000, 30000001}) {  // where the square root is no longer exact
    const int64_t first = column * (column + 1) / 2;
    CHECK(tile_of(first).column == column && tile_of(first).row == 0);
    CHECK(tile_of(first - 1).column == column - 1 && tile_of(first - 1).row == column - 1);
  }
  CHECK(tiles_of(1) == 1 && tiles_of(64) == 1 && tiles_of(65) == 3 && tiles_of(2048) == 528);
}

void covariance() {
  for (int64_t d : {1, 31, 32, 33, 100}) {
    std::vector<double> sums(d), products(d * d, std::numeric_limits<double>::quiet_NaN());
    for (int64_t i = 0; i < d; ++i) {
      sums[i] = 0.5 * static_cast<double>(i % 7);
      for (int64_t j = i; j < d; ++j) products[i * d + j] = static_cast<double>(i + 3 * j);
    }
    std::vector<double> found(d * d);
    for (int threads : {1, 3}) {
      fastmrigan::moments_covariance(sums.data(), products.data(), 5, d, threads, found.data());
      for (int64_t i = 0; i < d; ++i)
        for (int64_t j = i; j < d; ++j) {
          const double expected = (products[i * d + j] - sums[i] * sums[j] / 5) / 4;
          CHECK(std::fabs(found[i * d + j] - expected) < 1e-12);
          CHECK(found[j * d + i] == found[i * d + j]);
        }
    }
  }
}

}  // namespace

int main() {
  using fastmrigan::Isa;
  table<float>(fastmrigan::baseline::moments_update);
  table<double>(fastmrigan::baseline::moments_update);
#ifdef FASTMRIGAN_X86
  if (fastmrigan::isa_supported(Isa::avx2)) {
    table<float>(fastmrigan::avx2::moments_update);
    table<double>(fastmrigan::avx2::moments_update);
  }
  if (fastmrigan::isa_supported(Isa::avx512)) {
    table<float>(fastmrigan::avx512::moments_update);
    table<double>(fastmrigan::avx512::moments_update);
  }
#endif
  table<float>(fastmrigan::moments_update);
  emulated<float>();
  emulated<double>();
  tiles();
  covariance();
  std::printf("frechet_tests on %s: %d failed\n", fastmrigan::isa_name(fastmrigan::active_isa()),
              failures);
  return failures == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
