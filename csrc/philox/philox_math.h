// The arithmetic of the sampler, shared by the CPU kernels and the CUDA kernel.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "core/host_device.h"

namespace fastmrigan::philox {

struct Words {
  uint32_t w[4];
};

FASTMRIGAN_HD Words rounds(Words counter, uint32_t key0, uint32_t key1) {
  for (int round = 0; round < 10; ++round) {
    const uint64_t p0 = uint64_t{0xD2511F53u} * counter.w[0];
    const uint64_t p1 = uint64_t{0xCD9E8D57u} * counter.w[2];
    counter = {{static_cast<uint32_t>(p1 >> 32) ^ counter.w[1] ^ key0, static_cast<uint32_t>(p1),
                static_cast<uint32_t>(p0 >> 32) ^ counter.w[3] ^ key1, static_cast<uint32_t>(p0)}};
    key0 += 0x9E3779B9u;
    key1 += 0xBB67AE85u;
  }
  return counter;
}

// Natural logarithm of u in (0, 1], good to about 1 ulp: u = m 2^e with m in [1/sqrt 2, sqrt 2),
// ln m = 2 atanh(s), s = (m - 1) / (m + 1), by its Taylor series (|s| <= 0.172, so the term after
// s^23 is below 2^-60).
FASTMRIGAN_HD double log_unit(double u) {
  uint64_t bits;
  memcpy(&bits, &u, sizeof bits);
  const uint64_t sqrt_half = 0x3FE6A09E667F3BCDull;
  const uint64_t shifted = bits - sqrt_half;
  const double e = static_cast<double>(static_cast<int32_t>(static_cast<int64_t>(shifted) >> 52));
  const uint64_t m_bits = (shifted & 0x000FFFFFFFFFFFFFull) + sqrt_half;
  double m;
  memcpy(&m, &m_bits, sizeof m);
  const double f = m - 1.0;
  const double s = f / (2.0 + f);
  const double z = s * s;
  double p = 2.0 / 23.0;
  p = p * z + 2.0 / 21.0;
  p = p * z + 2.0 / 19.0;
  p = p * z + 2.0 / 17.0;
  p = p * z + 2.0 / 15.0;
  p = p * z + 2.0 / 13.0;
  p = p * z + 2.0 / 11.0;
  p = p * z + 2.0 / 9.0;
  p = p * z + 2.0 / 7.0;
  p = p * z + 2.0 / 5.0;
  p = p * z + 2.0 / 3.0;
  // ln 2 in two parts: the high one has enough trailing zeros for e * ln2_high to be exact.
  const double ln2_high = 6.93147180369123816490e-01;
  const double ln2_low = 1.90821492927058770002e-10;
  return e * ln2_high + (2.0 * s + (s * z * p + e * ln2_low));
}

// cos and sin of 2 pi b / 2^32, good to about 1 ulp: the quarter turn nearest to the angle is taken
// off exactly, and the rest (at most pi / 4) goes through the Taylor series to r^17.
FASTMRIGAN_HD void cos_sin_turn(uint32_t b, double* cosine, double* sine) {
  const uint32_t quarter = (b + 0x20000000u) >> 30;
  const int32_t rest = static_cast<int32_t>(b - (quarter << 30));
  const double r = static_cast<double>(rest) * (1.57079632679489661923 / 1073741824.0);
  const double z = r * r;
  double s = 1.0 / 355687428096000.0;
  s = s * z - 1.0 / 1307674368000.0;
  s = s * z + 1.0 / 6227020800.0;
  s = s * z - 1.0 / 39916800.0;
  s = s * z + 1.0 / 362880.0;
  s = s * z - 1.0 / 5040.0;
  s = s * z + 1.0 / 120.0;
  s = s * z - 1.0 / 6.0;
  s = r + r * z * s;
  double c = 1.0 / 20922789888000.0;
  c = c * z - 1.0 / 87178291200.0;
  c = c * z + 1.0 / 479001600.0;
  c = c * z - 1.0 / 3628800.0;
  c = c * z + 1.0 / 40320.0;
  c = c * z - 1.0 / 720.0;
  c = c * z + 1.0 / 24.0;
  c = c * z - 0.5;
  c = 1.0 + z * c;
  const bool odd = (quarter & 1u) != 0;
  const double x = odd ? s : c;
  const double y = odd ? c : s;
  *cosine = ((quarter + 1u) & 2u) != 0 ? -x : x;
  *sine = (quarter & 2u) != 0 ? -y : y;
}

// The four normals of block `block` (numbers 4 block .. 4 block + 3) of latent `index`.
FASTMRIGAN_HD void normals(uint64_t seed, uint64_t index, uint32_t block, float out[4]) {
  const Words words =
      rounds({{static_cast<uint32_t>(index), static_cast<uint32_t>(index >> 32), block, 0u}},
             static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32));
  for (int pair = 0; pair < 2; ++pair) {
    const double u = (static_cast<double>(words.w[2 * pair]) + 1.0) * (1.0 / 4294967296.0);
    const double r = sqrt(-2.0 * log_unit(u));
    double c, s;
    cos_sin_turn(words.w[2 * pair + 1], &c, &s);
    out[2 * pair] = static_cast<float>(r * c);
    out[2 * pair + 1] = static_cast<float>(r * s);
  }
}

}  // namespace fastmrigan::philox
