// A test harness in one header. All cpp/tests/*.cpp make one program; see main.cpp for how to call it.
//
//   TEST(sum_is_commutative) {
//     std::mt19937_64 rng = gesda_test::rng();   // a fresh seed each run; GESDA_TEST_SEED repeats one
//     CHECK(a + b == b + a);                     // goes on after a failure; may be used in any thread
//     CHECK_CLOSE(x, y, 1e-6);                   // |x - y| <= 1e-6, never true for NaN
//   }
//   SKIP("no AVX-512 here");                     // leaves the test, with the reason in the log
#pragma once

#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <random>
#include <string>
#include <vector>

namespace gesda_test {

struct Test {
  std::string name;
  void (*body)();
};

inline std::vector<Test>& tests() {
  static std::vector<Test> all;
  return all;
}

struct Register {
  Register(const char* name, void (*body)()) noexcept { tests().push_back({name, body}); }
};

inline std::atomic<int>& failures() {  // of the running test
  static std::atomic<int> count{0};
  return count;
}

inline std::string& skip_reason() {  // of the running test
  static std::string reason;
  return reason;
}

inline void fail(const char* file, int line, const std::string& what) {
  if (failures().fetch_add(1) < 10) std::fprintf(stderr, "  %s:%d: %s\n", file, line, what.c_str());
}

inline void check_close(const char* file, int line, const char* text, double a, double b, double tolerance) {
  if (a == b || std::fabs(a - b) <= tolerance) return;
  char what[512];
  std::snprintf(what, sizeof what, "%s: %.17g and %.17g differ by %.3g, more than %.3g", text, a, b, std::fabs(a - b),
                tolerance);
  fail(file, line, what);
}

inline std::uint64_t seed() {
  static const std::uint64_t value = [] {
    const char* given = std::getenv("GESDA_TEST_SEED");  // NOLINT(concurrency-mt-unsafe): nobody sets it
    return given != nullptr ? std::strtoull(given, nullptr, 10) : std::random_device{}();
  }();
  return value;
}

// Whether an emulator runs this program: CMake says so.
inline bool is_emulated() {
  return std::getenv("GESDA_TEST_EMULATED") != nullptr;  // NOLINT(concurrency-mt-unsafe): nobody sets it
}

inline std::mt19937_64 rng() { return std::mt19937_64(seed()); }

// Runs all tests, or those whose name contains `part`. Returns the process's exit status.
inline int run_all(const char* part) {
  int n_passed = 0, n_failed = 0, n_skipped = 0;
  for (const Test& test : tests()) {
    if (part != nullptr && test.name.find(part) == std::string::npos) continue;
    failures() = 0;
    skip_reason().clear();
    try {
      test.body();
    } catch (const std::exception& error) {
      fail(test.name.c_str(), 0, std::string("threw ") + error.what());
    } catch (...) {
      fail(test.name.c_str(), 0, "threw something that is no std::exception");
    }
    if (failures() > 0) {
      ++n_failed;
      std::fprintf(stderr, "FAILED %s: %d checks; GESDA_TEST_SEED=%llu repeats it\n", test.name.c_str(),
                   failures().load(), static_cast<unsigned long long>(seed()));
    } else if (!skip_reason().empty()) {
      ++n_skipped;
      std::printf("skipped %s: %s\n", test.name.c_str(), skip_reason().c_str());
    } else {
      ++n_passed;
    }
  }
  if (n_skipped > 0) std::printf("%d skipped, ", n_skipped);
  std::printf("%d passed, %d failed\n", n_passed, n_failed);
  if (n_passed + n_failed + n_skipped == 0) std::fprintf(stderr, "no test has a name like that\n");
  return n_failed == 0 && n_passed + n_skipped > 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

}  // namespace gesda_test

#define TEST(name)                                                       \
  static void test_##name();                                             \
  static const gesda_test::Register register_##name(#name, test_##name); \
  static void test_##name()

#define CHECK(...)                                                                       \
  do {                                                                                   \
    if (!(__VA_ARGS__)) gesda_test::fail(__FILE__, __LINE__, "not true: " #__VA_ARGS__); \
  } while (false)

#define CHECK_CLOSE(a, b, tolerance)                                                                         \
  gesda_test::check_close(__FILE__, __LINE__, #a " and " #b, static_cast<double>(a), static_cast<double>(b), \
                          static_cast<double>(tolerance))

#define SKIP(reason)                    \
  do {                                  \
    gesda_test::skip_reason() = reason; \
    return;                             \
  } while (false)
