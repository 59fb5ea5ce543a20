// Float vectors as wide as the instruction set that the including file is compiled for, and the
// storage types that load into them. For <kernel>_cpu.cpp files only, which are compiled once per
// instruction set: the namespace keeps their copies of these functions apart.
#pragma once

#include <cstdint>
#include <cstring>

#ifdef __AVX2__
#include <immintrin.h>
#endif

namespace fastmrigan::FASTMRIGAN_ISA_NAME {

#if defined(__AVX512F__)
constexpr int lanes = 16;
#elif defined(__AVX__)
constexpr int lanes = 8;
#else
constexpr int lanes = 4;
#endif

typedef float Floats __attribute__((vector_size(lanes * 4)));
typedef int32_t Ints __attribute__((vector_size(lanes * 4)));
typedef uint32_t Words __attribute__((vector_size(lanes * 4)));
typedef uint16_t Halves __attribute__((vector_size(lanes * 2)));

// The upper half of a float; stored with rounding to nearest, ties to even.
struct Bfloat16 {
  uint16_t bits;
};

inline Floats load(const float* at) {
  Floats v;
  std::memcpy(&v, at, sizeof v);
  return v;
}

// Between 16 and 32 bits a lane. By name where the compiler would take vectors apart for it.
inline Words widen(Halves half) {
#if defined(__AVX512F__)
  return reinterpret_cast<Words>(_mm512_cvtepu16_epi32(reinterpret_cast<__m256i>(half)));
#elif defined(__AVX2__)
  return reinterpret_cast<Words>(_mm256_cvtepu16_epi32(reinterpret_cast<__m128i>(half)));
#else
  return __builtin_convertvector(half, Words);
#endif
}

inline Halves narrow(Words word) {
#if defined(__AVX512F__)
  return reinterpret_cast<Halves>(_mm512_cvtepi32_epi16(reinterpret_cast<__m512i>(word)));
#elif defined(__AVX2__)
  const __m256i doubled = _mm256_packus_epi32(reinterpret_cast<__m256i>(word), __m256i{});
  return reinterpret_cast<Halves>(_mm256_castsi256_si128(_mm256_permute4x64_epi64(doubled, 8)));
#else
  return __builtin_convertvector(word, Halves);
#endif
}

inline Floats load(const Bfloat16* at) {
  Halves half;
  std::memcpy(&half, at, sizeof half);
  return reinterpret_cast<Floats>(widen(half) << 16);
}

inline void store(float* at, Floats v) { std::memcpy(at, &v, sizeof v); }

inline void store(Bfloat16* at, Floats v) {
  const Words word = reinterpret_cast<Words>(v);
  const Words rounded = (word + 0x7fff + ((word >> 16) & 1)) >> 16;
  const Halves half = narrow(v == v ? rounded : Words{} + 0x7fc0);  // a NaN must not round to inf
  std::memcpy(at, &half, sizeof half);
}

// The first `count` lanes from memory, zeros behind them; nothing past `count` is touched.
template <typename T>
inline Floats load_some(const T* at, int count) {
  T padded[lanes] = {};
  std::memcpy(padded, at, count * sizeof(T));
  return load(padded);
}

template <typename T>
inline void store_some(T* at, Floats v, int count) {
  T padded[lanes];
  store(padded, v);
  std::memcpy(at, padded, count * sizeof(T));
}

inline Floats all(float value) { return Floats{} + value; }

// v where the lane's number is under `count`, 0 elsewhere.
inline Floats keep_some(Floats v, int count) {
  Ints lane;
  for (int k = 0; k < lanes; ++k) lane[k] = k;
  return lane < count ? v : Floats{};
}

inline double sum(Floats v) {
  double total = 0;
  for (int k = 0; k < lanes; ++k) total += v[k];
  return total;
}

}  // namespace fastmrigan::FASTMRIGAN_ISA_NAME
