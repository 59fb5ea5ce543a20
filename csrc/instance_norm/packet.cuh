// A packet is what one load brings: 16 bytes or one element, kept as it came and unpacked to floats
// each time it is used, which is cheaper than the registers the floats would take.
#pragma once

#include "core/device.cuh"
#include "instance_norm/instance_norm_plan.h"

namespace fastmrigan::norm {

// Two elements of 16 bits, the first in the low half of the word.
template <Dtype dtype>
__device__ __forceinline__ void unpack_pair(uint32_t word, float* out) {
  if constexpr (dtype == Dtype::bfloat16) {
    out[0] = device::float_of_bits(word << 16);
    out[1] = device::float_of_bits(word & 0xFFFF0000u);
  } else {
    out[0] = device::float_of_half(static_cast<uint16_t>(word));
    out[1] = device::float_of_half(static_cast<uint16_t>(word >> 16));
  }
}

template <Dtype dtype>
__device__ __forceinline__ uint32_t pack_pair(float low, float high) {
  if constexpr (dtype == Dtype::bfloat16)
    return device::bits_of_bfloats(low, high);
  else
    return device::bits_of_halves(low, high);
}

template <Dtype dtype, bool wide>
struct Packet;

template <Dtype dtype>
struct Packet<dtype, true> {
  using Raw = uint4;
  static constexpr int width = packet_width(dtype, true);

  static __device__ __forceinline__ void unpack(Raw raw, float (&out)[width]) {
    const uint32_t words[4] = {raw.x, raw.y, raw.z, raw.w};
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      if constexpr (dtype == Dtype::float32)
        out[k] = device::float_of_bits(words[k]);
      else
        unpack_pair<dtype>(words[k], out + 2 * k);
    }
  }

  static __device__ __forceinline__ Raw pack(const float (&in)[width]) {
    uint32_t words[4];
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      if constexpr (dtype == Dtype::float32)
        words[k] = device::bits_of_float(in[k]);
      else
        words[k] = pack_pair<dtype>(in[2 * k], in[2 * k + 1]);
    }
    return {words[0], words[1], words[2], words[3]};
  }
};

template <>
struct Packet<Dtype::float32, false> {
  using Raw = uint32_t;
  static constexpr int width = 1;
  static __device__ __forceinline__ void unpack(Raw raw, float (&out)[1]) {
    out[0] = device::float_of_bits(raw);
  }
  static __device__ __forceinline__ Raw pack(const float (&in)[1]) {
    return device::bits_of_float(in[0]);
  }
};

template <Dtype dtype>
struct Packet<dtype, false> {
  using Raw = uint16_t;
  static constexpr int width = 1;
  static __device__ __forceinline__ void unpack(Raw raw, float (&out)[1]) {
    float pair[2];
    unpack_pair<dtype>(raw, pair);
    out[0] = pair[0];
  }
  static __device__ __forceinline__ Raw pack(const float (&in)[1]) {
    return static_cast<uint16_t>(pack_pair<dtype>(in[0], 0.0f));
  }
};

}  // namespace fastmrigan::norm
