// The kernels without Python, so that the sanitizers see our memory accesses alone.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <vector>

#include "check.h"
#include "core/isa.h"
#include "philox/philox.h"
#include "quantise/quantise.h"

namespace {

// The known answers that Random123 publishes for philox4x32-10.
void philox_known_answers() {
  const struct {
    uint32_t counter[4], key[2], words[4];
  } table[] = {
      {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
      {{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff},
       {0xffffffff, 0xffffffff},
       {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
      {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
       {0xa4093822, 0x299f31d0},
       {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
  };
  for (const auto& row : table) {
    uint32_t words[4];
    fastmrigan::philox_words(row.counter, row.key, words);
    CHECK(std::memcmp(words, row.words, sizeof words) == 0);
  }
}

using Sampler = void (*)(uint64_t, uint64_t, int64_t, int64_t, int, float*);

// Exactly sized buffers, so that a write past the end of a row or of the whole is caught.
void philox_same_bits(Sampler sampler) {
  for (int64_t dim : {1, 2, 3, 4, 5, 100}) {
    for (int64_t count : {0, 1, 7}) {
      std::vector<float> mine(count * dim), reference(count * dim);
      sampler(0x123456789abcdef0ull, 0xfffffffeull, count, dim, 1, mine.data());
      fastmrigan::baseline::philox_normal(0x123456789abcdef0ull, 0xfffffffeull, count, dim, 1,
                                          reference.data());
      CHECK(mine == reference);
    }
  }
  // Large enough to be split over threads.
  std::vector<float> one(10500 * 100), two(10500 * 100);
  sampler(7, 0, 10500, 100, 1, one.data());
  sampler(7, 0, 10500, 100, 2, two.data());
  CHECK(one == two);
  double sum = 0, squares = 0;
  for (float z : one) sum += z, squares += static_cast<double>(z) * z;
  CHECK(std::fabs(sum / one.size()) < 0.005);
  CHECK(std::fabs(squares / one.size() - 1) < 0.01);
}

template <typename T>
void quantise_table(void (*quantise)(const float*, int64_t, T*)) {
  const float infinity = std::numeric_limits<float>::infinity();
  const float top = std::numeric_limits<T>::max();
  const std::vector<float> x = {-1,        1,   0, -2, 2, infinity, -infinity, std::nanf(""),
                                -0.99999f, 0.5f};
  for (size_t count = 0; count <= x.size(); ++count) {
    const std::vector<float> exact(x.begin(), x.begin() + count);
    std::vector<T> out(count);
    quantise(exact.data(), static_cast<int64_t>(count), out.data());
    for (size_t i = 0; i < count; ++i) {
      const float scaled = (exact[i] + 1.0f) * (top / 2.0f);
      const float expected =
          std::isnan(scaled) ? 0.0f : std::nearbyint(std::fmin(std::fmax(scaled, 0.0f), top));
      CHECK(out[i] == static_cast<T>(expected));
    }
  }
}

}  // namespace

int main() {
  using fastmrigan::Isa;
  philox_known_answers();
  philox_same_bits(fastmrigan::baseline::philox_normal);
  quantise_table<uint8_t>(fastmrigan::baseline::quantise);
  quantise_table<uint16_t>(fastmrigan::baseline::quantise);
#ifdef FASTMRIGAN_X86
  if (fastmrigan::isa_supported(Isa::avx2)) {
    philox_same_bits(fastmrigan::avx2::philox_normal);
    quantise_table<uint8_t>(fastmrigan::avx2::quantise);
    quantise_table<uint16_t>(fastmrigan::avx2::quantise);
  }
  if (fastmrigan::isa_supported(Isa::avx512)) {
    philox_same_bits(fastmrigan::avx512::philox_normal);
    quantise_table<uint8_t>(fastmrigan::avx512::quantise);
    quantise_table<uint16_t>(fastmrigan::avx512::quantise);
  }
#endif
  std::printf("kernel_tests on %s: %d failed\n", fastmrigan::isa_name(fastmrigan::active_isa()),
              failures);
  return failures == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
