// The formulas of GeSdA, written once: Philox, noise draws, activations and their derivatives, losses,
// optimisers. C++ (scalar and SIMD) and CUDA (NVRTC, nvcc) compile this very file, so it includes nothing.
//
// Every formula is a template over a lane type: `float` here, a vector of floats in cpp/src/variants/simd.hpp.
// A lane type F brings, found by argument-dependent lookup: + - * /, comparisons giving a mask,
// mad(a, b, c) = a * b + c, pick(mask, a, b), bits(f) / floats(u), root(f), and F(float). Its unsigned
// integers U bring + - ^ & | << >>, and mul_wide(a, b, high, low).
#pragma once

#if defined(__CUDACC__) || defined(__CUDACC_RTC__)
#define GESDA_FN __host__ __device__ __forceinline__
#else
#define GESDA_FN inline __attribute__((always_inline))
#endif

namespace gesda {

typedef unsigned int u32;
typedef unsigned long long u64;

// ---- codes, as in gesda/spec.py (tests/test_spec.py holds the two together) ----
enum Activation : int { kSigmoid = 0, kTanh = 1, kRelu = 2, kLinear = 3 };
enum Loss : int { kCrossEntropy = 0, kSquaredError = 1 };
enum Noise : int { kNone = 0, kMasking = 1, kGaussian = 2, kSaltAndPepper = 3, kSwap = 4 };
enum Optimizer : int { kSgd = 0, kMomentum = 1, kAdam = 2 };
enum Head : int { kSoftmax = 0, kLinearHead = 1 };
enum Stream : int { kCorruption = 0, kPartner = 1, kDropout = 2 };

// ---- the scalar lane ----
#if defined(__CUDACC__) || defined(__CUDACC_RTC__)
GESDA_FN float mad(float a, float b, float c) { return __fmaf_rn(a, b, c); }
GESDA_FN u32 bits(float f) { return __float_as_uint(f); }
GESDA_FN float floats(u32 u) { return __uint_as_float(u); }
GESDA_FN float root(float f) { return __fsqrt_rn(f); }
GESDA_FN void mul_wide(u32 a, u32 b, u32& high, u32& low) {
  high = __umulhi(a, b);
  low = a * b;
}
#else
GESDA_FN float mad(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
GESDA_FN u32 bits(float f) {
  u32 u;
  __builtin_memcpy(&u, &f, 4);
  return u;
}
GESDA_FN float floats(u32 u) {
  float f;
  __builtin_memcpy(&f, &u, 4);
  return f;
}
GESDA_FN float root(float f) { return __builtin_sqrtf(f); }
GESDA_FN void mul_wide(u32 a, u32 b, u32& high, u32& low) {
  const u64 product = static_cast<u64>(a) * b;
  high = static_cast<u32>(product >> 32);
  low = static_cast<u32>(product);
}
#endif
GESDA_FN float pick(bool condition, float a, float b) { return condition ? a : b; }
GESDA_FN float to_float(u32 u) { return static_cast<float>(static_cast<int>(u)); }  // u < 2^31

// ---- Philox4x32-10 (Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as easy as 1, 2, 3", SC 2011) ----
template <class U>
GESDA_FN void philox(U (&x)[4], u32 key0, u32 key1) {
  for (int round = 0; round < 10; ++round) {
    U high0, low0, high1, low1;
    mul_wide(x[0], U(0xD2511F53u), high0, low0);
    mul_wide(x[2], U(0xCD9E8D57u), high1, low1);
    x[0] = high1 ^ x[1] ^ U(key0);
    x[1] = low1;
    x[2] = high0 ^ x[3] ^ U(key1);
    x[3] = low0;
    key0 += 0x9E3779B9u;
    key1 += 0xBB67AE85u;
  }
}
// The fourth word of the counter; the others are sample id, block and epoch (ARCHITECTURE.md, "Noise").
GESDA_FN u32 stream_word(Stream purpose, int layer) {
  return static_cast<u32>(purpose) << 16 | static_cast<u32>(layer);
}
// A 16-bit draw u corrupts its component if u < threshold. Salt-and-pepper's threshold is even: a fair coin.
GESDA_FN u32 noise_threshold(Noise kind, double level) {
  return kind == kSaltAndPepper ? 2 * static_cast<u32>(level * 32768.0 + 0.5) : static_cast<u32>(level * 65536.0 + 0.5);
}
// Row that `swap` takes its value from; u is a 16-bit draw, rows the size of the minibatch.
GESDA_FN int swap_partner(int row, int rows, u32 u) {
  const int partner = row + 1 + static_cast<int>(static_cast<u64>(u) * static_cast<u32>(rows - 1) >> 16);
  return partner >= rows ? partner - rows : partner;
}

// ---- elementary functions, good to about 1e-7 ----
// |x| and -|x|.
template <class F>
GESDA_FN F magnitude(F x) {
  return floats(bits(x) & decltype(bits(x))(0x7FFFFFFFu));
}
template <class F>
GESDA_FN F minus_magnitude(F x) {
  return floats(bits(x) | decltype(bits(x))(0x80000000u));
}
// e^x for x <= 88, x from below clamped to -86: 2^n times a polynomial on [-ln2/2, ln2/2].
template <class F>
GESDA_FN F exponential(F x) {
  x = pick(x < F(-86.0f), F(-86.0f), x);  // in this order NaN stays NaN, so that a divergence is seen
  const F shifted = mad(x, F(1.44269504f), F(12582912.0f));  // 1.5 * 2^23: rounds to an integer in the low bits
  const F n = shifted - F(12582912.0f);
  F r = mad(n, F(-0.693145752f), x);
  r = mad(n, F(-1.42860677e-6f), r);
  // Estrin's order: short chains, for the result is waited for.
  const F r2 = r * r;
  const F p76 = mad(r, F(1.9875691e-4f), F(1.3981999e-3f));
  const F p54 = mad(r, F(8.3334519e-3f), F(4.1665796e-2f));
  const F p32 = mad(r, F(1.6666665e-1f), F(0.5f));
  const F p = mad(mad(mad(p76, r2, p54), r2, p32), r2, r + F(1.0f));
  return floats(bits(p) + (bits(shifted) << 23));
}
// 1 / x for x in [1, 2], to an ulp, by multiplications alone: y is the quadratic of least relative error (1 - x y is a
// Chebyshev polynomial e, 1 % at most), and 1 / x = y / (1 - e), nearly y (1 + e) (1 + e^2).
template <class F>
GESDA_FN F reciprocal(F x) {
  const F y = mad(mad(x, F(32.0f / 99.0f), F(-48.0f / 33.0f)), x, F(70.0f / 33.0f));
  const F e = mad(F(0.0f) - x, y, F(1.0f));
  const F once = mad(y, e, y);
  return mad(once, e * e, once);
}
// ln x for positive normal x: mantissa in [sqrt(1/2), sqrt(2)), atanh series of (m - 1) / (m + 1).
template <class F>
GESDA_FN F logarithm(F x) {
  const auto shifted = bits(x) - decltype(bits(x))(0x3F3504F3u);  // sqrt(1/2)
  const F wrapped = to_float(shifted >> 23);                      // the exponent, modulo 512
  const F e = pick(wrapped > F(255.0f), wrapped - F(512.0f), wrapped);
  const F m = floats((shifted & decltype(bits(x))(0x007FFFFFu)) + decltype(bits(x))(0x3F3504F3u));
  const F s = (m - F(1.0f)) / (m + F(1.0f));
  const F s2 = s * s;
  F p = mad(s2, F(0.24f), F(0.285714286f));
  p = mad(p, s2, F(0.4f));
  p = mad(p, s2, F(0.666666667f));
  const F ln_m = mad(p * s2, s, s + s);
  return mad(e, F(0.693145752f), mad(e, F(1.42860677e-6f), ln_m));
}
// cos and sin of 2 pi t, t in [0, 1).
template <class F>
GESDA_FN void cos_sin_turn(F t, F& cosine, F& sine) {
  const F quarters = mad(t, F(4.0f), F(12582912.0f));
  const F q = quarters - F(12582912.0f);              // nearest quarter turn, 0..4
  const F a = mad(q, F(-0.25f), t) * F(6.28318531f);  // [-pi/4, pi/4]
  const F a2 = a * a;
  F s = mad(a2, F(-1.9515296e-4f), F(8.3321609e-3f));
  s = mad(s, a2, F(-1.6666655e-1f));
  s = mad(s * a2, a, a);
  F c = mad(a2, F(2.4433157e-5f), F(-1.3887316e-3f));
  c = mad(c, a2, F(4.1666646e-2f));
  c = mad(c * a2, a2, mad(a2, F(-0.5f), F(1.0f)));
  const auto swapped = ((q > F(0.5f)) & (q < F(1.5f))) | ((q > F(2.5f)) & (q < F(3.5f)));
  const F cc = pick(swapped, s, c), ss = pick(swapped, c, s);
  const auto flip_cos = (q > F(0.5f)) & (q < F(2.5f));
  const auto flip_sin = (q > F(1.5f)) & (q < F(3.5f));
  cosine = pick(flip_cos, F(0.0f) - cc, cc);
  sine = pick(flip_sin, F(0.0f) - ss, ss);
}
// Two standard normals from two 32-bit draws (Box and Muller 1958).
template <class F, class U>
GESDA_FN void normal_pair(U w0, U w1, F& first, F& second) {
  const F u1 = (to_float(w0 >> 8) + F(1.0f)) * F(5.9604645e-8f);
  const F u2 = to_float(w1 >> 8) * F(5.9604645e-8f);
  const F radius = root(F(-2.0f) * logarithm(u1));
  F cosine, sine;
  cos_sin_turn(u2, cosine, sine);
  first = radius * cosine;
  second = radius * sine;
}

// ---- activations ----
template <class F>
GESDA_FN F sigmoid(F x) {
  const F t = exponential(minus_magnitude(x));
  const F s = reciprocal(F(1.0f) + t);
  return pick(x < F(0.0f), t * s, s);
}
template <class F>
GESDA_FN F hyperbolic_tangent(F x) {
  const F a = magnitude(x);
  const F t = exponential(F(-2.0f) * a);
  const F large = (F(1.0f) - t) * reciprocal(F(1.0f) + t);
  const F x2 = x * x;
  F p = mad(x2, F(-5.70498872745e-3f), F(2.06390887954e-2f));
  p = mad(p, x2, F(-5.37397155531e-2f));
  p = mad(p, x2, F(1.33314422036e-1f));
  p = mad(p, x2, F(-3.33332819422e-1f));
  const F small = mad(p * x2, x, x);
  return pick(a < F(0.625f), small, pick(x < F(0.0f), F(0.0f) - large, large));
}
template <class F>
GESDA_FN F activate(Activation kind, F x) {
  switch (kind) {
    case kSigmoid: return sigmoid(x);
    case kTanh: return hyperbolic_tangent(x);
    case kRelu: return pick(x < F(0.0f), F(0.0f), x);  // NaN stays
    default: return x;
  }
}
// s'(a) and s''(a) from the value h = s(a).
template <class F>
GESDA_FN F derivative(Activation kind, F h) {
  switch (kind) {
    case kSigmoid: return h * (F(1.0f) - h);
    case kTanh: return F(1.0f) - h * h;
    case kRelu: return pick(h > F(0.0f), F(1.0f), F(0.0f));
    default: return F(1.0f);
  }
}
template <class F>
GESDA_FN F second_derivative(Activation kind, F h) {
  switch (kind) {
    case kSigmoid: return h * (F(1.0f) - h) * (F(1.0f) - F(2.0f) * h);
    case kTanh: return F(-2.0f) * h * (F(1.0f) - h * h);
    default: return F(0.0f);
  }
}

// ---- reconstruction losses: value and d = dLoss/da at the decoder's logit a, input x ----
// Cross-entropy is max(a, 0) - a x + ln(1 + e^-|a|). `factor` is 1 + e^-|a|, in (1, 2]: the caller multiplies
// up to a hundred of them and takes one logarithm; `linear` is the rest.
template <class F>
GESDA_FN F cross_entropy(F a, F x, F& linear, F& factor) {
  const F t = exponential(minus_magnitude(a));
  factor = F(1.0f) + t;
  const F s = reciprocal(factor);
  linear = pick(a > F(0.0f), a, F(0.0f)) - a * x;
  return pick(a < F(0.0f), t * s, s) - x;
}
template <class F>
GESDA_FN F squared_error(Activation output, F a, F x, F& value) {
  const F z = activate(output, a);
  const F residual = z - x;
  value = F(0.5f) * residual * residual;
  return residual * derivative(output, z);
}
// Derivative of target ln(target / mean) + (1 - target) ln((1 - target) / (1 - mean)) by the mean.
template <class F>
GESDA_FN F sparsity_slope(F mean, F target) {
  mean = pick(mean < F(1e-6f), F(1e-6f), mean);
  mean = pick(mean > F(1.0f - 1e-6f), F(1.0f - 1e-6f), mean);
  return (F(1.0f) - target) / (F(1.0f) - mean) - target / mean;
}

// ---- optimisers ----
// What an update needs of its step; bias corrections are those of Kingma and Ba (2015), algorithm 1.
struct UpdateRule {
  Optimizer kind;
  float rate;  // learning rate; for adam divided by 1 - beta_1^t
  float momentum;
  float nesterov;  // 1 or 0
  float beta1, beta2, epsilon;
  float inverse_variance;  // adam: 1 / (1 - beta_2^t)
};
// p: parameter, g: gradient, s0 and s1: the optimiser's state.
template <class F>
GESDA_FN F updated(const UpdateRule& rule, F p, F g, F& s0, F& s1) {
  if (rule.kind == kMomentum) {
    const F step = F(rule.rate) * g;
    s0 = mad(F(rule.momentum), s0, F(0.0f) - step);
    return rule.nesterov != 0.0f ? p + mad(F(rule.momentum), s0, F(0.0f) - step) : p + s0;
  }
  if (rule.kind == kAdam) {
    s0 = mad(F(rule.beta1), s0, F(1.0f - rule.beta1) * g);
    s1 = mad(F(rule.beta2), s1, F(1.0f - rule.beta2) * (g * g));
    return p - F(rule.rate) * s0 / (root(s1 * F(rule.inverse_variance)) + F(rule.epsilon));
  }
  return mad(F(-rule.rate), g, p);
}

}  // namespace gesda
