// How failures leave the library: a status, and a sentence for gesda_last_error. Nothing here allocates or throws.
#pragma once

#include <cstdio>
#include <new>

#include "cpp/runtime/error.hpp"

namespace gesda {

// Keeps the sentence for this thread; returns the status.
template <class... Values>
gesda_status fail(gesda_status status, const char* format, Values... values);

char* last_error();  // of this thread
constexpr std::size_t kErrorBytes = 512;

template <class... Values>
gesda_status fail(gesda_status status, const char* format, Values... values) {
  std::snprintf(last_error(), kErrorBytes, format, values...);
  return status;
}

// Calls f; no exception passes.
template <class Function>
gesda_status guarded(const Function& f) noexcept {
  try {
    f();
    return GESDA_OK;
  } catch (const Error& error) {
    return fail(error.status(), "%s.", error.what());
  } catch (const std::bad_alloc&) {
    return fail(GESDA_OUT_OF_MEMORY, "%s", "The model does not fit into memory.");
  } catch (const std::exception& error) {
    return fail(GESDA_INTERNAL_ERROR, "This is a defect of GeSdA: %s.", error.what());
  } catch (...) {
    return fail(GESDA_INTERNAL_ERROR, "%s", "This is a defect of GeSdA.");
  }
}

}  // namespace gesda
