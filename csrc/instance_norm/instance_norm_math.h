// The arithmetic of the CUDA kernels that knows nothing of CUDA, so that the host can test it.
#pragma once

#include <cmath>
#include <cstdint>

#include "core/host_device.h"
#include "instance_norm/instance_norm.h"

namespace fastmrigan::norm {

// What an activation does below zero. Without one, the slope there is 1.
struct Slope {
  float below;
  bool relu;
};

FASTMRIGAN_HD Slope slope_of(Activation activation, float slope) {
  return {activation == Activation::leaky_relu ? slope : 1.0f, activation == Activation::relu};
}

// relu(NaN) is NaN, as in PyTorch.
FASTMRIGAN_HD float activate(float z, Slope slope) {
  return z < 0.0f ? (slope.relu ? 0.0f : z * slope.below) : z;
}

// Where z is NaN, PyTorch's ReLU hands the gradient on and its leaky ReLU multiplies it.
FASTMRIGAN_HD float activate_backward(float z, float grad, Slope slope) {
  const bool passes = slope.relu ? !(z <= 0.0f) : z > 0.0f;
  return passes ? grad : (slope.relu ? 0.0f : grad * slope.below);
}

// Count, mean and sum of squared deviations of a set of numbers.
struct Moments {
  float count, mean, m2;
};

// Chan, Golub, LeVeque: Updating formulae and a pairwise algorithm for computing sample variances
// (1979). In a fixed order of merges the bits are fixed too.
// `share` is b's part of both counts.
FASTMRIGAN_HD float share_of(float a, float b) { return b == 0.0f ? 0.0f : b / (a + b); }

FASTMRIGAN_HD Moments merge(Moments a, Moments b, float share) {
  const float step = b.mean - a.mean;
  return {a.count + b.count, a.mean + step * share, a.m2 + b.m2 + step * step * (a.count * share)};
}

// The sums of the backward over a set of elements: of dz and of dz * t, t = x - mean_high.
struct Sums {
  float dz, dz_t;
};

struct Statistics {
  float mean_high, mean_low, rstd;
};

// The moments are those of x - anchor, where the anchor is one element of the plane. That keeps
// the mean to a small part of the standard deviation whatever its size: an anchor that lies D from
// the others makes the deviation of P elements at least about D / sqrt(P) itself.
FASTMRIGAN_HD Statistics statistics_of(Moments moments, float anchor, float eps) {
  const float high = anchor + moments.mean;
  const float moved = high - anchor;
  const float low = (anchor - (high - moved)) + (moments.mean - moved);
  return {high, low, 1.0f / sqrtf(moments.m2 / moments.count + eps)};
}

// z = t * scale + shift with t = x - mean. Forward and backward make z by this one expression, so
// that they agree to the bit on which side of zero it lies.
struct Affine {
  float mean, scale, shift;
};

FASTMRIGAN_HD Affine affine_of(Statistics s, float weight, float bias) {
  const float scale = s.rstd * weight;
  return {s.mean_high, scale, fmaf(-s.mean_low, scale, bias)};
}

FASTMRIGAN_HD float affine(float t, Affine a) { return fmaf(t, a.scale, a.shift); }

// What the sums over a plane come to: those the caller wants, and the two numbers that turn dz into
// grad_x = scale * (dz - constant - t * linear)
//        = rstd * weight * (dz - mean(dz) - xhat * mean(dz * xhat)).
// In a plane of one element dz and the constant cancel exactly.
struct Gradient {
  float sum_dz, sum_dz_xhat, constant, linear;
};

FASTMRIGAN_HD Gradient gradient_of(Sums sums, Statistics s, float plane) {
  const float dz_xhat = s.rstd * (sums.dz_t - s.mean_low * sums.dz);
  const float linear = s.rstd * (dz_xhat / plane);
  return {sums.dz, dz_xhat, sums.dz / plane - s.mean_low * linear, linear};
}

FASTMRIGAN_HD float input_gradient(float dz, float t, float scale, Gradient g) {
  return scale * fmaf(-t, g.linear, dz - g.constant);
}

}  // namespace fastmrigan::norm
