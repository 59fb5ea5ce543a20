// fmg_run against a backend's own C API on the same model file and the same settings.
//
//   c_api MODEL LIBRARY PRECISION THREADS ROUNDS
//
// Both sides translate one slice of random pixels, in turn in every round; their results are
// compared to the bit first. Prints, per side, min and median of the rounds in microseconds.
// BACKEND and OPEN_BARE name the backend it is built for; c_api.py builds it, makes the models and
// knows the bars.
#include <algorithm>
#include <chrono>
#include <cstring>
#include <random>
#include <vector>

#include "bare.h"

namespace {

using Clock = std::chrono::steady_clock;

template <typename Body>
double microseconds(const Body& body) {
  const auto start = Clock::now();
  body();
  return std::chrono::duration<double, std::micro>(Clock::now() - start).count();
}

double median(std::vector<double> times) {
  std::nth_element(times.begin(), times.begin() + times.size() / 2, times.end());
  return times[times.size() / 2];
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 6) stop("usage: c_api MODEL LIBRARY PRECISION THREADS ROUNDS");
  fmg_options options;
  fmg_options_init(&options);
  options.backend = BACKEND;
  options.library = argv[2];
  options.precision = argv[3];
  options.threads = std::atoi(argv[4]);
  fmg_engine* engine = nullptr;
  if (fmg_open(argv[1], &options, &engine) != FMG_OK) stop(fmg_last_error());
  fmg_info info{};
  info.size = sizeof info;
  if (fmg_get_info(engine, &info) != FMG_OK) stop(fmg_last_error());
  void* library = dlopen(argv[2], RTLD_NOW);
  if (library == nullptr) stop(dlerror());
  const std::unique_ptr<Bare> bare = OPEN_BARE(library, argv[1], info);

  const size_t pixels = static_cast<size_t>(info.height) * static_cast<size_t>(info.width);
  std::vector<float> in(pixels), out(pixels);
  std::mt19937 random(7);
  std::uniform_real_distribution<float> uniform(-1, 1);
  for (float& pixel : in) pixel = uniform(random);

  // What each side does for its caller: pixels of the caller's in, pixels of the caller's out.
  std::vector<float> bare_out(pixels);
  const auto run_ours = [&] {
    if (fmg_run(engine, in.data(), 1, out.data()) != FMG_OK) stop(fmg_last_error());
  };
  const auto run_bare = [&] {
    std::memcpy(bare->input, in.data(), pixels * sizeof(float));
    bare->infer();
    std::memcpy(bare_out.data(), bare->output, pixels * sizeof(float));
  };
  run_ours(), run_bare();
  if (std::memcmp(out.data(), bare_out.data(), pixels * sizeof(float)) != 0)
    stop("the two sides differ");

  const int rounds = std::max(3, std::atoi(argv[5]));
  std::vector<double> ours, theirs;
  for (int i = -rounds / 10; i < rounds; ++i) {  // the first tenth warms up
    const double first = microseconds(run_ours), second = microseconds(run_bare);
    if (i >= 0) ours.push_back(first), theirs.push_back(second);
  }
  std::printf("%.2f %.2f %.2f %.2f\n", *std::min_element(ours.begin(), ours.end()), median(ours),
              *std::min_element(theirs.begin(), theirs.end()), median(theirs));
  fmg_close(engine);
  return 0;
}
