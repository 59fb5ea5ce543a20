// Runs CUDA kernels on the host, for tests of their index arithmetic, barriers and reductions where
// no GPU is at hand. It takes the place of csrc/core/device.cuh, and the kernels' own
// source is compiled against it by the host's compiler.
//
// Every thread is a fiber that runs until it waits at a barrier; the blocks of a cluster run
// together, clusters one after another. What this shows is that the right elements are read, merged
// and written, that every barrier is reached by all who must reach it, and that the bits do not
// depend on the order in which threads run (`backwards` turns it round). It says nothing of a real
// GPU's memory order, speed or rounding of fast instructions (none are used).
#pragma once

#include <ucontext.h>

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <vector>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/common_interface_defs.h>
#endif

#define __global__
#define __device__
#define __forceinline__ inline
#define __launch_bounds__(threads)

struct uint4 {
  uint32_t x, y, z, w;
};

namespace cuda_on_host {

struct Index {
  unsigned x;
};

struct Barrier {
  int expected = 0, arrived = 0, generation = 0;
};

struct Warp {
  Barrier barrier;
  float value[32];
};

struct Cluster;

struct Block {
  Cluster* cluster = nullptr;
  Index index{};
  int running = 0;  // threads that have not returned
  Barrier barrier;
  std::vector<Warp> warps;
  std::unique_ptr<unsigned char[]>
      shared;  // of its exact size, so that the sanitizer sees its ends
  size_t shared_bytes = 0;
};

struct Cluster {
  Barrier barrier;
  std::vector<Block> blocks;
};

struct Fiber {
  ucontext_t context;
  Block* block = nullptr;
  Index thread{};
  int cluster_generation = 0;  // the one it arrived in
  bool owes_wait = false;      // arrived at the cluster's barrier, but has not waited there
  bool done = false;
  std::vector<unsigned char> stack;
};

constexpr size_t stack_bytes = 128 << 10;

struct Machine {
  ucontext_t scheduler;
  std::vector<std::unique_ptr<Fiber>> fibers;
  Fiber* running = nullptr;
  std::function<void()> kernel;
  Index block_dim{}, grid_dim{};
  bool backwards = false;  // the threads take their turns in the opposite order
  int64_t events = 0;      // arrivals and returns: a round without one is a deadlock
  const void* scheduler_stack = nullptr;
  size_t scheduler_stack_bytes = 0;
};

inline Machine machine;

// AddressSanitizer must be told of every change of stack.
inline void before_switch(void** saved, const void* stack, size_t bytes) {
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_start_switch_fiber(saved, stack, bytes);
#else
  (void)saved, (void)stack, (void)bytes;
#endif
}

inline void after_switch(void* saved, const void** stack, size_t* bytes) {
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_finish_switch_fiber(saved, stack, bytes);
#else
  (void)saved, (void)stack, (void)bytes;
#endif
}

inline void leave_fiber() {
  Fiber* self = machine.running;
  void* saved = nullptr;
  before_switch(self->done ? nullptr : &saved, machine.scheduler_stack,
                machine.scheduler_stack_bytes);
  swapcontext(&self->context, &machine.scheduler);
  after_switch(saved, &machine.scheduler_stack, &machine.scheduler_stack_bytes);
}

inline void enter_fiber(Fiber* fiber) {
  machine.running = fiber;
  void* saved = nullptr;
  before_switch(&saved, fiber->stack.data(), fiber->stack.size());
  swapcontext(&machine.scheduler, &fiber->context);
  after_switch(saved, nullptr, nullptr);
}

inline void arrive(Barrier& barrier) {
  ++machine.events;
  if (++barrier.arrived < barrier.expected) return;
  barrier.arrived = 0;
  ++barrier.generation;
}

inline void wait_past(const Barrier& barrier, int generation) {
  while (barrier.generation == generation) leave_fiber();
}

inline void arrive_and_wait(Barrier& barrier) {
  const int generation = barrier.generation;
  arrive(barrier);
  wait_past(barrier, generation);
}

inline float exchange(float value, unsigned lane) {
  Warp& warp = machine.running->block->warps[machine.running->thread.x / 32];
  warp.value[machine.running->thread.x % 32] = value;
  arrive_and_wait(warp.barrier);
  const float got = warp.value[lane];
  arrive_and_wait(warp.barrier);
  return got;
}

inline void fiber_main() {
  after_switch(nullptr, &machine.scheduler_stack, &machine.scheduler_stack_bytes);
  machine.kernel();
  Fiber* self = machine.running;
  if (self->owes_wait) {
    std::fprintf(stderr, "cuda_on_host: a thread returns that has not waited for its cluster\n");
    std::abort();
  }
  self->done = true;
  ++machine.events;
  // The shared memory of a block that has returned is no longer there for the others.
  Block& block = *self->block;
  if (--block.running == 0 && block.shared_bytes > 0)
    std::memset(block.shared.get(), 0xFF, block.shared_bytes);
  leave_fiber();
}

inline void start(Fiber& fiber, Block& block, int thread) {
  fiber.block = &block;
  fiber.thread.x = static_cast<unsigned>(thread);
  fiber.done = fiber.owes_wait = false;
  getcontext(&fiber.context);
  fiber.context.uc_stack.ss_sp = fiber.stack.data();
  fiber.context.uc_stack.ss_size = fiber.stack.size();
  fiber.context.uc_link = nullptr;
  makecontext(&fiber.context, fiber_main, 0);
}

inline void run_cluster(Cluster& cluster, unsigned first_block, int threads, size_t shared_bytes) {
  const size_t blocks = cluster.blocks.size();
  cluster.barrier = {static_cast<int>(blocks) * threads, 0, 0};
  while (machine.fibers.size() < blocks * static_cast<size_t>(threads)) {
    machine.fibers.push_back(std::make_unique<Fiber>());
    machine.fibers.back()->stack.resize(stack_bytes);
  }
  for (size_t rank = 0; rank < blocks; ++rank) {
    Block& block = cluster.blocks[rank];
    block.cluster = &cluster;
    block.index.x = first_block + static_cast<unsigned>(rank);
    block.running = threads;
    block.barrier = {threads, 0, 0};
    block.warps.assign(static_cast<size_t>(threads) / 32, Warp());
    for (Warp& warp : block.warps) warp.barrier.expected = 32;
    block.shared_bytes = shared_bytes;
    block.shared.reset(shared_bytes > 0 ? new unsigned char[shared_bytes] : nullptr);
    if (shared_bytes > 0) std::memset(block.shared.get(), 0xFF, shared_bytes);  // NaN everywhere
    for (int thread = 0; thread < threads; ++thread)
      start(*machine.fibers[rank * static_cast<size_t>(threads) + static_cast<size_t>(thread)],
            block, thread);
  }
  const size_t count = blocks * static_cast<size_t>(threads);
  for (size_t alive = count; alive > 0;) {
    const int64_t events = machine.events;
    for (size_t k = 0; k < count; ++k) {
      Fiber* fiber = machine.fibers[machine.backwards ? count - 1 - k : k].get();
      if (fiber->done) continue;
      enter_fiber(fiber);
      if (fiber->done) --alive;
    }
    if (alive > 0 && machine.events == events) {
      std::fprintf(stderr, "cuda_on_host: threads wait at a barrier that others never reach\n");
      std::abort();
    }
  }
}

}  // namespace cuda_on_host

#define threadIdx (cuda_on_host::machine.running->thread)
#define blockIdx (cuda_on_host::machine.running->block->index)
#define blockDim (cuda_on_host::machine.block_dim)
#define gridDim (cuda_on_host::machine.grid_dim)

inline void __syncthreads() {
  cuda_on_host::arrive_and_wait(cuda_on_host::machine.running->block->barrier);
}

inline float __shfl_xor_sync(unsigned, float value, int bits) {
  return cuda_on_host::exchange(value, threadIdx.x % 32 ^ static_cast<unsigned>(bits));
}

namespace fastmrigan::device {

// A misaligned access is an error on the device, so it is one here.
template <typename Raw>
void require_aligned(const void* at) {
  if (reinterpret_cast<uintptr_t>(at) % sizeof(Raw) == 0) return;
  std::fprintf(stderr, "cuda_on_host: misaligned access of %zu bytes\n", sizeof(Raw));
  std::abort();
}

template <typename Raw>
Raw load(const void* at) {
  require_aligned<Raw>(at);
  Raw raw;
  std::memcpy(&raw, at, sizeof raw);
  return raw;
}

template <typename Raw>
void store(void* at, Raw raw) {
  require_aligned<Raw>(at);
  std::memcpy(at, &raw, sizeof raw);
}

inline float float_of_bits(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

inline uint32_t bits_of_float(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}

inline float float_of_half(uint16_t bits) {
  _Float16 half;
  std::memcpy(&half, &bits, sizeof half);
  return static_cast<float>(half);
}

inline uint32_t bits_of_halves(float low, float high) {
  const _Float16 pair[2] = {static_cast<_Float16>(low), static_cast<_Float16>(high)};
  uint32_t bits;
  std::memcpy(&bits, pair, sizeof bits);
  return bits;
}

// To nearest, ties to even; a NaN stays one.
inline uint32_t bits_of_bfloat(float value) {
  const uint32_t bits = bits_of_float(value);
  if (value != value) return 0x7FFFu;
  return (bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16;
}

inline uint32_t bits_of_bfloats(float low, float high) {
  return bits_of_bfloat(low) | (bits_of_bfloat(high) << 16);
}

template <typename T>
T* shared_memory() {
  return reinterpret_cast<T*>(cuda_on_host::machine.running->block->shared.get());
}

inline void cluster_arrive() {
  cuda_on_host::Fiber* self = cuda_on_host::machine.running;
  cuda_on_host::Barrier& barrier = self->block->cluster->barrier;
  self->cluster_generation = barrier.generation;
  self->owes_wait = true;
  cuda_on_host::arrive(barrier);
}

inline void cluster_wait() {
  cuda_on_host::Fiber* self = cuda_on_host::machine.running;
  cuda_on_host::wait_past(self->block->cluster->barrier, self->cluster_generation);
  self->owes_wait = false;
}

template <typename T>
T* cluster_map(T* at, int rank) {
  cuda_on_host::Block* mine = cuda_on_host::machine.running->block;
  const size_t offset =
      static_cast<size_t>(reinterpret_cast<unsigned char*>(at) - mine->shared.get());
  return reinterpret_cast<T*>(mine->cluster->blocks[static_cast<size_t>(rank)].shared.get() +
                              offset);
}

template <typename... Arguments>
void launch(void (*kernel)(Arguments...), int64_t blocks, int threads, size_t shared_bytes,
            int cluster, void*, const Arguments&... arguments) {
  auto& machine = cuda_on_host::machine;
  machine.kernel = [&] { kernel(arguments...); };
  machine.block_dim.x = static_cast<unsigned>(threads);
  machine.grid_dim.x = static_cast<unsigned>(blocks);
  for (int64_t first = 0; first < blocks; first += cluster) {
    cuda_on_host::Cluster together;
    together.blocks.resize(static_cast<size_t>(cluster));
    cuda_on_host::run_cluster(together, static_cast<unsigned>(first), threads, shared_bytes);
  }
}

}  // namespace fastmrigan::device
