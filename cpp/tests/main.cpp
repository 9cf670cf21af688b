// Runs all C++ tests, or those whose name contains the first argument.
#include "harness.hpp"

// ThreadSanitizer, where it is in use, ends a forked child that starts threads, unless asked not to. (The function's
// name is the sanitizer's; without it nobody calls it. Its library has to see it: everything else here is hidden.)
extern "C" __attribute__((visibility("default"))) const char* __tsan_default_options();
extern "C" const char* __tsan_default_options() { return "die_after_fork=0"; }

int main(int argc, char** argv) { return gesda_test::run_all(argc > 1 ? argv[1] : nullptr); }
