// Floats of 16 bits (IEEE 754 binary16), where the processor has no instruction for them.
#pragma once

#include <cstdint>
#include <cstring>

namespace gesda {

struct Half {
  std::uint16_t bits;

  template <class Number>
  explicit operator Number() const {
    return static_cast<Number>(value());
  }

 private:
  float value() const {
    const std::uint32_t sign = static_cast<std::uint32_t>(bits & 0x8000) << 16;
    const std::uint32_t rest = bits & 0x7FFF;
    const bool is_finite = rest < 0x7C00;
    // A float whose exponent is 112 too small: right for subnormal numbers too.
    const std::uint32_t word = sign | rest << 13 | (is_finite ? 0 : 0x7F800000);
    float value;
    std::memcpy(&value, &word, sizeof value);
    return is_finite ? value * 0x1p112f : value;
  }
};

}  // namespace gesda
