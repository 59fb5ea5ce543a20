// Translates a stream of frames in several threads, an engine each; the results come in order.
//
//   translate_series MODEL LIBRARY WORKERS DEADLINE_MS < frames > results
//
// The range of grey values is that which the model's own grading rule finds in the first frame; all
// frames keep it, so that a series does not flicker. A frame's deadline counts from its arrival.
// LIBRARY and streams: translate_stream.c, result.h. For research, not for diagnosis.
#include <fastmrigan.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "result.h"

namespace {

using Clock = std::chrono::steady_clock;
using Pixels = std::vector<int16_t>;  // [height, width]

struct Range {
  double low, high;
};

struct Close {
  void operator()(fmg_engine* engine) const { fmg_close(engine); }
};
using Engine = std::unique_ptr<fmg_engine, Close>;

struct Refused : std::runtime_error {
  using std::runtime_error::runtime_error;
};

Engine open(const char* model, const std::string& library, int threads) {
  fmg_options options;
  fmg_options_init(&options);
  if (library != "-") options.library = library.c_str();
  options.threads = threads;
  fmg_engine* engine = nullptr;
  if (fmg_open(model, &options, &engine) != FMG_OK) throw Refused(fmg_last_error());
  return Engine(engine);
}

fmg_info info_of(const Engine& engine) {
  fmg_info info{};
  info.size = sizeof info;
  if (fmg_get_info(engine.get(), &info) != FMG_OK) throw Refused(fmg_last_error());
  return info;
}

fmg_slices frame_at(Pixels& pixels, Range range) {
  fmg_slices slices{};  // strides of 0: dense
  slices.size = sizeof slices;
  slices.data = pixels.data();
  slices.type = FMG_INT16;
  slices.scale = FMG_SCALE_RANGE;
  slices.low = range.low;
  slices.high = range.high;
  return slices;
}

struct Frame {
  uint32_t number;
  Pixels pixels;
  Clock::time_point arrived;
};

// Frames on their way to the workers. Bounded: a source faster than the workers waits.
class Queue {
 public:
  explicit Queue(size_t room) : room_(room) {}

  void put(Frame frame) {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, [&] { return frames_.size() < room_; });
    frames_.push_back(std::move(frame));
    changed_.notify_all();
  }

  bool take(Frame& frame) {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, [&] { return ended_ || !frames_.empty(); });
    if (frames_.empty()) return false;
    frame = std::move(frames_.front());
    frames_.pop_front();
    changed_.notify_all();
    return true;
  }

  void end() {
    const std::lock_guard<std::mutex> lock(mutex_);
    ended_ = true;
    changed_.notify_all();
  }

 private:
  size_t room_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Frame> frames_;
  bool ended_ = false;
};

// Results to the standard output, in the frames' order.
class Writer {
 public:
  void write(const result_header& header, Pixels pixels) {
    const std::lock_guard<std::mutex> lock(mutex_);
    waiting_[header.frame] = {header, std::move(pixels)};
    for (auto next = waiting_.begin(); next != waiting_.end() && next->first == next_;
         next = waiting_.erase(next), ++next_) {
      const auto& [head, data] = next->second;
      failed_ |= head.code != FMG_OK;
      full_ |= std::fwrite(&head, sizeof head, 1, stdout) != 1 ||
               std::fwrite(data.data(), sizeof data[0], head.pixels, stdout) != head.pixels;
    }
    full_ |= std::fflush(stdout) != 0;
  }

  int status() const { return full_ ? DISK_FULL : failed_ ? SOME_FRAMES_FAILED : DONE; }

 private:
  std::mutex mutex_;
  std::map<uint32_t, std::pair<result_header, Pixels>> waiting_;
  uint32_t next_ = 0;
  bool failed_ = false, full_ = false;
};

void work(fmg_engine* engine, Queue& queue, Writer& writer, Range range, int64_t deadline_us) {
  Frame frame;
  while (queue.take(frame)) {
    using std::chrono::duration_cast, std::chrono::microseconds;
    const auto start = Clock::now();
    const int64_t waited = duration_cast<microseconds>(start - frame.arrived).count();
    Pixels translated(frame.pixels.size());
    const fmg_slices from = frame_at(frame.pixels, range), to = frame_at(translated, range);
    const int64_t left = deadline_us > waited ? deadline_us - waited : 1;
    const fmg_call call{sizeof(fmg_call), left, nullptr};
    result_header header{frame.number, FMG_OK, 0, static_cast<uint32_t>(translated.size())};
    header.code = fmg_run_slices(engine, &from, 1, &to, &call);
    header.microseconds =
        static_cast<uint32_t>(duration_cast<microseconds>(Clock::now() - start).count());
    if (header.code != FMG_OK) {
      std::fprintf(stderr, "frame %u: %s\n", frame.number, fmg_last_error());
      header.pixels = 0;
    }
    writer.write(header, std::move(translated));
  }
}

// False at the end of the stream; cut_off is set where that is in the middle of a frame.
bool read_frame(Pixels& pixels, bool& cut_off) {
  const size_t got = std::fread(pixels.data(), sizeof pixels[0], pixels.size(), stdin);
  cut_off = got != 0 && got != pixels.size();
  if (cut_off)
    std::fprintf(stderr, "translate_series: the last frame is cut off after %zu pixels\n", got);
  return got == pixels.size();
}

Range measure(fmg_engine* engine, Pixels& first) {
  const fmg_slices slices = frame_at(first, {0, 1});
  Range range{};
  if (fmg_measure(engine, &slices, 1, &range.low, &range.high) != FMG_OK)
    throw Refused(fmg_last_error());
  return range;
}

int run(const char* model, const std::string& library, int workers, int64_t deadline_us) {
  const int cores = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  std::vector<Engine> engines;
  for (int i = 0; i < workers; ++i)
    engines.push_back(open(model, library, std::max(1, cores / workers)));
  const fmg_info info = info_of(engines[0]);
  if (info.task != FMG_TRANSLATE)
    throw Refused(std::string(model) + ": samples slices and cannot translate them");
  Pixels pixels(static_cast<size_t>(info.height) * static_cast<size_t>(info.width));
  bool cut_off = false;
  if (!read_frame(pixels, cut_off)) return cut_off ? SOME_FRAMES_FAILED : DONE;
  const Range range = measure(engines[0].get(), pixels);
  std::fprintf(stderr, "%s %s, %d workers of %d threads, grey values %g to %g\n", info.backend,
               info.precision, workers, info.threads, range.low, range.high);

  Queue queue(static_cast<size_t>(2 * workers));
  Writer writer;
  std::vector<std::thread> threads;
  for (const Engine& engine : engines)
    threads.emplace_back(work, engine.get(), std::ref(queue), std::ref(writer), range, deadline_us);
  uint32_t number = 0;
  do queue.put({number++, pixels, Clock::now()});
  while (read_frame(pixels, cut_off));
  queue.end();
  for (std::thread& thread : threads) thread.join();
  return writer.status() == DONE && cut_off ? SOME_FRAMES_FAILED : writer.status();
}

}  // namespace

int main(int argc, char** argv) {
  const int workers = argc == 5 ? std::atoi(argv[3]) : 0;
  const double deadline_ms = argc == 5 ? std::atof(argv[4]) : 0;
  if (workers < 1 || !(deadline_ms > 0 && deadline_ms < 1e9)) {
    std::fputs("usage: translate_series MODEL LIBRARY WORKERS DEADLINE_MS < frames > results\n",
               stderr);
    return USAGE;
  }
  try {
    return run(argv[1], argv[2], workers, static_cast<int64_t>(deadline_ms * 1000));
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return MODEL_REFUSED;
  }
}
