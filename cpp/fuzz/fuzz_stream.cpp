// libFuzzer on gesture streams: whatever samples and time stamps come, in whatever pushes, events are of known
// gestures, in order, and counts add up. The recogniser is the file that GESDA_FUZZ_RECOGNIZER names.
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "gesda/gesda.h"

extern "C" int LLVMFuzzerInitialize(int* argc, char*** argv);
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

namespace {

gesda_model* model = nullptr;
gesda_info info;

void expect(bool holds) {
  if (!holds) std::abort();
}

// Bytes of the input as numbers, zero after its end.
class Bytes {
 public:
  Bytes(const std::uint8_t* data, std::size_t size) : data_(data), size_(size) {}
  bool empty() const { return size_ == 0; }
  template <class T>
  T take() {
    T value{};
    const std::size_t n = size_ < sizeof value ? size_ : sizeof value;
    std::memcpy(&value, data_, n);
    data_ += n, size_ -= n;
    return value;
  }

 private:
  const std::uint8_t* data_;
  std::size_t size_;
};

// A sample of one byte a channel, or, now and then, of any bits.
float take_value(Bytes& bytes, std::uint8_t kind) {
  if (kind % 16 == 0) return bytes.take<float>();
  return static_cast<float>(bytes.take<std::int8_t>()) / 16.0f;
}

double take_time(Bytes& bytes, std::uint8_t kind, double& clock) {
  if (kind % 32 == 1) return bytes.take<double>();
  clock += static_cast<double>(bytes.take<std::int8_t>() + 10) * 0.001;
  return clock;
}

std::uint64_t take_events(gesda_stream* stream) {
  std::uint64_t n = 0;
  gesda_event event;
  for (; gesda_stream_next(stream, &event) == 1; ++n) {
    expect(event.gesture >= -1 && event.gesture < info.n_outputs);
    expect(event.confidence >= 0.0f && event.confidence <= 1.0001f && event.start <= event.end);
  }
  return n;
}

}  // namespace

extern "C" int LLVMFuzzerInitialize(int*, char***) {
  const char* path = std::getenv("GESDA_FUZZ_RECOGNIZER");  // NOLINT(concurrency-mt-unsafe): nobody sets it
  if (path == nullptr || gesda_open(path, nullptr, &model) != GESDA_OK) {
    std::fprintf(stderr, "GESDA_FUZZ_RECOGNIZER names no recogniser: %s\n", gesda_last_error());
    std::abort();
  }
  gesda_info_init(&info);
  expect(gesda_describe(model, &info) == GESDA_OK && info.kind == GESDA_RECOGNIZER);
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  Bytes bytes(data, size);
  gesda_stream_options options;
  gesda_stream_options_init(&options);
  const auto choices = bytes.take<std::uint8_t>();
  options.unknown = choices & 1;
  options.continuous = choices >> 1 & 1;
  options.candidates = 1 + (choices >> 2 & 7);
  if ((choices & 32) != 0) options.pause = static_cast<double>(bytes.take<std::uint8_t>()) * 0.01;
  if ((choices & 64) != 0) options.rate = static_cast<double>(bytes.take<float>());
  const bool timed = (choices & 128) != 0;
  gesda_stream* stream = nullptr;
  if (gesda_stream_open(model, &options, &stream) != GESDA_OK) {
    expect(stream == nullptr && std::strlen(gesda_last_error()) > 5);
    return 0;
  }
  const auto channels = static_cast<std::size_t>(info.n_features);
  std::uint64_t pushed = 0;
  double clock = 0.0;
  std::vector<float> samples;
  std::vector<double> times;
  while (!bytes.empty()) {
    const auto kind = bytes.take<std::uint8_t>();
    samples.clear(), times.clear();
    for (std::size_t n = 1 + kind % 8; n > 0; --n) {
      for (std::size_t c = 0; c < channels; ++c) samples.push_back(take_value(bytes, kind));
      times.push_back(take_time(bytes, kind, clock));
    }
    // A byte of motion goes a long way: every block comes several times over.
    for (int again = kind >> 6; again >= 0; --again) {
      for (std::size_t begin = 0; begin < times.size();) {
        std::size_t taken = 0;
        expect(gesda_stream_push(stream, samples.data() + begin * channels, timed ? times.data() + begin : nullptr,
                                 times.size() - begin, &taken) == GESDA_OK);
        begin += taken, pushed += taken;
        expect(take_events(stream) > 0 || taken > 0);
      }
      for (double& time : times) time += 0.01 * static_cast<double>(times.size());
    }
    if (kind == 255) expect(gesda_stream_flush(stream) == GESDA_OK);
  }
  expect(gesda_stream_flush(stream) == GESDA_OK);
  take_events(stream);
  gesda_report report;
  gesda_report_init(&report);
  expect(gesda_stream_report(stream, &report) == GESDA_OK);
  expect(report.received == pushed && report.used <= pushed && std::isfinite(report.rate));
  gesda_stream_close(stream);
  return 0;
}
