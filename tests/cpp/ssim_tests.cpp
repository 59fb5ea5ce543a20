// SSIM, PSNR and MAE: the CPU kernels of every instruction set this processor has, and the CUDA
// kernels emulated on the host (cuda_on_host.h), against the definition in double.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "core/isa.h"
#include "ssim/ssim_kernels.cuh"

namespace {

using fastmrigan::Similarity;

int failures = 0;

void check(bool holds, const std::string& what, int line) {
  if (holds) return;
  std::fprintf(stderr, "ssim_tests.cpp:%d: %s\n", line, what.c_str());
  ++failures;
}

#define CHECK(condition) check((condition), #condition, __LINE__)

// Of exactly the size of its data, so that the sanitizers see a read past an end.
struct Case {
  std::string name;
  int64_t batch, height, width;
  double range = 2;
  std::vector<float> a, b;
  std::vector<uint8_t> mask;  // empty, one for all, or one a slice
  bool with_windows = true;

  Similarity call(std::vector<double>& sums) const {
    sums.assign(static_cast<size_t>(batch) * Similarity::terms, -1);
    Similarity call{};
    call.batch = batch;
    call.height = height;
    call.width = width;
    call.a = a.data();
    call.b = b.data();
    call.mask = mask.empty() ? nullptr : mask.data();
    call.mask_stride = static_cast<int64_t>(mask.size()) == height * width ? 0 : height * width;
    call.c1 = static_cast<float>(0.01 * range * 0.01 * range);
    call.c2 = static_cast<float>(0.03 * range * 0.03 * range);
    call.with_windows = with_windows;
    call.sums = sums.data();
    return call;
  }
  bool counts(int64_t n, int64_t y, int64_t x) const {
    if (mask.empty()) return true;
    const bool one = static_cast<int64_t>(mask.size()) == height * width;
    return mask[static_cast<size_t>(((one ? 0 : n) * height + y) * width + x)] != 0;
  }
};

// Wang et al. 2004, equation 13, over the whole 11x11 window at once; sums as the kernels make
// them.
std::vector<double> reference(const Case& c) {
  double weight[11][11], total = 0;
  for (int i = 0; i < 11; ++i)
    for (int j = 0; j < 11; ++j)
      total += weight[i][j] = std::exp(-((i - 5) * (i - 5) + (j - 5) * (j - 5)) / 4.5);
  const double c1 = std::pow(0.01 * c.range, 2), c2 = std::pow(0.03 * c.range, 2);
  std::vector<double> all;
  for (int64_t n = 0; n < c.batch; ++n) {
    double sums[Similarity::terms] = {};
    const float* a = c.a.data() + n * c.height * c.width;
    const float* b = c.b.data() + n * c.height * c.width;
    for (int64_t y = 0; y < c.height; ++y)
      for (int64_t x = 0; x < c.width; ++x) {
        if (!c.counts(n, y, x)) continue;
        const double off = static_cast<double>(a[y * c.width + x]) - b[y * c.width + x];
        sums[Similarity::absolute] += std::fabs(off);
        sums[Similarity::squared] += off * off;
        sums[Similarity::pixels] += 1;
        if (!c.with_windows || y < 5 || x < 5 || y >= c.height - 5 || x >= c.width - 5) continue;
        double mean_a = 0, mean_b = 0, var_a = 0, var_b = 0, cov = 0;
        const auto over_window = [&](auto add) {
          for (int i = 0; i < 11; ++i)
            for (int j = 0; j < 11; ++j) {
              const int64_t at = (y + i - 5) * c.width + x + j - 5;
              add(weight[i][j] / total, a[at], b[at]);
            }
        };
        over_window([&](double w, double p, double q) { mean_a += w * p, mean_b += w * q; });
        over_window([&](double w, double p, double q) {
          var_a += w * (p - mean_a) * (p - mean_a);
          var_b += w * (q - mean_b) * (q - mean_b);
          cov += w * (p - mean_a) * (q - mean_b);
        });
        const double luminance =
            (2 * mean_a * mean_b + c1) / (mean_a * mean_a + mean_b * mean_b + c1);
        const double contrast = (2 * cov + c2) / (var_a + var_b + c2);
        sums[Similarity::ssim_loss] += 1 - luminance * contrast;
        sums[Similarity::contrast_loss] += 1 - contrast;
        sums[Similarity::windows] += 1;
      }
    all.insert(all.end(), sums, sums + Similarity::terms);
  }
  return all;
}

using Run = std::function<void(const Similarity&)>;

struct Side {
  std::string name;
  Run run, again;      // again: on other threads, or in another order; the bits must be the same
  double differences;  // relative tolerance of |a - b| and its square
};

void emulated(const Similarity& call, bool backwards) {
  namespace ssim = fastmrigan::ssim;
  cuda_on_host::machine.backwards = backwards;
  CHECK(ssim::is_countable(call));
  const ssim::Plan plan = ssim::plan_of(call);
  std::vector<double> workspace(
      static_cast<size_t>(call.batch * plan.tiles * int{Similarity::terms}));
  ssim::launch_sums(call, plan, workspace.data(), nullptr);
  ssim::launch_merge(call, plan, workspace.data(), nullptr);
}

std::vector<Side> sides() {
  using fastmrigan::Isa;
  std::vector<Side> all;
  const auto add = [&](const char* name, void (*kernel)(const Similarity&, int)) {
    all.push_back({name, [=](const Similarity& call) { kernel(call, 1); },
                   [=](const Similarity& call) { kernel(call, 3); }, 1e-13});
  };
  add("baseline", fastmrigan::baseline::similarity);
#ifdef FASTMRIGAN_X86
  if (fastmrigan::isa_supported(Isa::avx2)) add("avx2", fastmrigan::avx2::similarity);
  if (fastmrigan::isa_supported(Isa::avx512)) add("avx512", fastmrigan::avx512::similarity);
#endif
  all.push_back({"cuda", [](const Similarity& call) { emulated(call, false); },
                 [](const Similarity& call) { emulated(call, true); }, 1e-6});
  return all;
}

void one_case(const Case& c, const std::vector<Side>& sides) {
  const std::vector<double> expected = reference(c);
  for (const Side& side : sides) {
    std::vector<double> sums, again;
    side.run(c.call(sums));
    side.again(c.call(again));
    const std::string who = side.name + ", " + c.name;
    check(c.batch == 0 || std::memcmp(sums.data(), again.data(), sums.size() * sizeof(double)) == 0,
          who + ": other bits on other threads", __LINE__);
    for (int64_t n = 0; n < c.batch; ++n) {
      const double* got = sums.data() + n * Similarity::terms;
      const double* want = expected.data() + n * Similarity::terms;
      const auto near = [&](int term, double tolerance) {
        const bool same = std::isnan(want[term]) ? std::isnan(got[term])
                                                 : std::fabs(got[term] - want[term]) <= tolerance;
        check(same,
              who + ": slice " + std::to_string(n) + ", term " + std::to_string(term) + ": got " +
                  std::to_string(got[term]) + ", expected " + std::to_string(want[term]),
              __LINE__);
      };
      near(Similarity::windows, 0);
      near(Similarity::pixels, 0);
      near(Similarity::ssim_loss, 1e-6 * want[Similarity::windows]);
      near(Similarity::contrast_loss, 1e-6 * want[Similarity::windows]);
      near(Similarity::absolute, side.differences * want[Similarity::absolute]);
      near(Similarity::squared, side.differences * want[Similarity::squared]);
    }
  }
}

using Value = std::function<float(int64_t y, int64_t x)>;

Case make(std::string name, int64_t batch, int64_t height, int64_t width, double noise,
          const Value& value) {
  Case c;
  c.name = name + " " + std::to_string(height) + "x" + std::to_string(width);
  c.batch = batch, c.height = height, c.width = width;
  c.a.reserve(static_cast<size_t>(batch * height * width));  // and not more
  c.b.reserve(c.a.capacity());
  std::mt19937 random(7);
  std::normal_distribution<double> normal;
  for (int64_t n = 0; n < batch; ++n)
    for (int64_t y = 0; y < height; ++y)
      for (int64_t x = 0; x < width; ++x) {
        const double v = value(y, x) + 0.2 * noise * normal(random);
        c.a.push_back(static_cast<float>(v));
        c.b.push_back(static_cast<float>(v + noise * (normal(random) + 0.1)));
      }
  return c;
}

float wave(int64_t y, int64_t x) {
  return static_cast<float>(0.8 * std::sin(0.3 * static_cast<double>(y)) *
                            std::cos(0.2 * static_cast<double>(x)));
}

void table() {
  const std::vector<Side> all = sides();
  // One window; less than a vector; odd; several tiles and bands of the CPU's and the GPU's.
  const struct {
    int64_t batch, height, width;
  } shapes[] = {{1, 11, 11}, {3, 12, 15}, {2, 13, 26}, {1, 37, 53}, {2, 43, 97}, {1, 70, 285}};
  for (const auto& s : shapes) {
    Case c = make("wave", s.batch, s.height, s.width, 0.1, wave);
    one_case(c, all);
    std::mt19937 random(3);
    for (const bool each : {false, true}) {
      c.mask.resize(static_cast<size_t>((each ? s.batch : 1) * s.height * s.width));
      for (uint8_t& m : c.mask) m = random() % 3 == 0;
      c.name = each ? "a mask a slice" : "one mask";
      one_case(c, all);
    }
    // What the mask keeps out may be NaN; windows in the mask see it all the same.
    c.name = "NaN outside the mask";
    c.with_windows = false;
    for (size_t i = 0; i < c.a.size(); ++i)
      if (!c.mask[i]) c.a[i] = std::numeric_limits<float>::quiet_NaN();
    one_case(c, all);
    c.name = "NaN";
    c.mask.clear();
    c.with_windows = true;
    one_case(c, all);
  }
  for (const auto& [height, width] : {std::pair<int64_t, int64_t>{1, 1}, {3, 7}, {70, 100}}) {
    Case c = make("without windows", 2, height, width, 0.1, wave);
    c.with_windows = false;
    one_case(c, all);
  }
  one_case(make("empty batch", 0, 16, 16, 0, wave), all);
}

// Where E[x²] - E[x]² in float fails: bright constant areas, edges between them, a far mean,
// outliers that a column or window may be measured from.
void hard_values() {
  const std::vector<Side> all = sides();
  const auto both = [&](const char* name, double noise, const Value& value, double range = 2) {
    Case c = make(name, 1, 45, 110, noise, value);
    c.range = range;
    one_case(c, all);
  };
  both("constant, equal", 0, [](int64_t, int64_t) { return 0.93f; });
  both("constant, hardly noisy", 1e-4, [](int64_t, int64_t) { return -0.97f; });
  both("blocks", 1e-5, [](int64_t y, int64_t x) { return (y / 14 + x / 14) % 2 ? 0.93f : -0.97f; });
  both("stripes", 1e-3, [](int64_t y, int64_t) { return y / 3 % 2 ? 0.93f : -0.97f; });
  both("outliers", 1e-3, [](int64_t y, int64_t x) { return (7 * y + 5 * x) % 31 ? -0.9f : 0.99f; });
  both("far mean", 0.1, [](int64_t y, int64_t x) { return 1000 + wave(y, x); });
  both("16 bits", 300, [](int64_t y, int64_t x) { return 60000 + 2000 * wave(y, x); }, 65535);
  Case c = make("constant, another constant", 1, 45, 110, 0, [](int64_t, int64_t) { return 0.9f; });
  for (float& b : c.b) b = 0.87f;
  one_case(c, all);
  for (const Side& side : all) {  // and equal slices have a loss of nothing at all
    Case equal = make("equal", 1, 45, 110, 0.1, wave);
    equal.b = equal.a;
    std::vector<double> sums;
    side.run(equal.call(sums));
    for (int term : {Similarity::ssim_loss, Similarity::contrast_loss, Similarity::squared})
      check(sums[static_cast<size_t>(term)] == 0, side.name + ": equal slices lose", __LINE__);
  }
}

void weights_are_the_gaussian() {
  double total = 0;
  for (int k = 0; k < 11; ++k) total += std::exp(-(k - 5) * (k - 5) / 4.5);
  for (int k = 0; k < 11; ++k)
    CHECK(fastmrigan::ssim::weight(k) ==
          static_cast<float>(std::exp(-(k - 5) * (k - 5) / 4.5) / total));
}

void what_cuda_cannot_count() {
  Similarity call{};
  call.with_windows = true;
  call.batch = 1, call.height = 1 << 15, call.width = 1 << 15;
  CHECK(fastmrigan::ssim::is_countable(call));
  call.width = (1 << 15) + 1;
  CHECK(!fastmrigan::ssim::is_countable(call));
  call.batch = int64_t{1} << 30, call.height = call.width = 256;
  CHECK(!fastmrigan::ssim::is_countable(call));
}

}  // namespace

int main() {
  weights_are_the_gaussian();
  what_cuda_cannot_count();
  table();
  hard_values();
  std::printf("ssim_tests: %d failed\n", failures);
  return failures == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
