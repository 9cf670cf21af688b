// What the runtime throws inside; the C ABI turns it into a status and a message.
#pragma once

#include <stdexcept>
#include <string>

#include "gesda/gesda.h"

namespace gesda {

class Error : public std::runtime_error {
 public:
  Error(gesda_status status, const std::string& message) : std::runtime_error(message), status_(status) {}
  gesda_status status() const { return status_; }

 private:
  gesda_status status_;
};

}  // namespace gesda
