// The C ABI of gesture streams (gesda/gesda.h): checks of what callers hand in, and nothing else.
#include <algorithm>
#include <cstring>

#include "cpp/motion/stream.hpp"
#include "cpp/runtime/failure.hpp"
#include "cpp/runtime/model.hpp"

struct gesda_stream {
  gesda_stream(gesda::MotionRecognizer& recognizer, const gesda::StreamOptions& options)
      : stream(recognizer, options) {}
  gesda::MotionStream stream;
};

using namespace gesda;

void gesda_stream_options_init(gesda_stream_options* options) {
  *options = {sizeof *options, 0.0, 0.25, 0.0, nullptr, nullptr, 0, 1, 4};
}

gesda_status gesda_stream_open(gesda_model* model, const gesda_stream_options* given, gesda_stream** stream) {
  if (model == nullptr || stream == nullptr)
    return fail(GESDA_INVALID_ARGUMENT, "%s", "The model or the place for the stream is a null pointer.");
  *stream = nullptr;
  if (model->recognizer == nullptr)
    return fail(GESDA_UNSUPPORTED, "%s", "The model is no gesture recogniser, which a stream needs.");
  gesda_stream_options options;
  gesda_stream_options_init(&options);
  if (given != nullptr) std::memcpy(&options, given, std::min(given->size, sizeof options));
  return guarded([&] {
    const StreamOptions asked{options.rate, options.pause,        options.max_gap,         options.low,
                              options.high, options.unknown != 0, options.continuous != 0, options.candidates};
    *stream = new gesda_stream(*model->recognizer, asked);
  });
}

void gesda_stream_close(gesda_stream* stream) { delete stream; }

gesda_status gesda_stream_push(gesda_stream* stream, const float* samples, const double* times, size_t n,
                               size_t* taken) {
  if (stream == nullptr || taken == nullptr || (n > 0 && samples == nullptr))
    return fail(GESDA_INVALID_ARGUMENT, "%s",
                "The stream, the samples or the place for their number is a null pointer.");
  *taken = stream->stream.push(samples, times, n);
  return GESDA_OK;
}

gesda_status gesda_stream_flush(gesda_stream* stream) {
  if (stream == nullptr) return fail(GESDA_INVALID_ARGUMENT, "%s", "The stream is a null pointer.");
  stream->stream.flush();
  return GESDA_OK;
}

int gesda_stream_next(gesda_stream* stream, gesda_event* event) {
  Event next{};
  if (stream == nullptr || event == nullptr || !stream->stream.next(next)) return 0;
  *event = {next.gesture, static_cast<float>(next.confidence), static_cast<float>(next.familiarity), next.start,
            next.end};
  return 1;
}

void gesda_report_init(gesda_report* report) {
  *report = gesda_report{};
  report->size = sizeof *report;
}

gesda_status gesda_stream_report(const gesda_stream* stream, gesda_report* report) {
  if (stream == nullptr || report == nullptr)
    return fail(GESDA_INVALID_ARGUMENT, "%s", "The stream or the place for the report is a null pointer.");
  const StreamReport facts = stream->stream.report();
  const SampleCounts& samples = facts.samples;
  gesda_report all{sizeof all,         samples.received,   samples.used,          samples.missing,        samples.late,
                   samples.duplicated, samples.not_finite, samples.out_of_range,  samples.gaps,           facts.events,
                   facts.rejected,     facts.rate,         facts.n_lost_channels, facts.in_motion ? 1 : 0};
  all.size = std::min(report->size, sizeof all);
  std::memcpy(report, &all, all.size);
  return GESDA_OK;
}

gesda_status gesda_stream_reset(gesda_stream* stream) {
  if (stream == nullptr) return fail(GESDA_INVALID_ARGUMENT, "%s", "The stream is a null pointer.");
  stream->stream.reset();
  return GESDA_OK;
}
