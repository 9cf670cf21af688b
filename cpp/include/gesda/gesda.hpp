// GeSdA's runtime in C++: the C ABI of gesda.h with objects that close themselves and errors that are exceptions.
//
//   gesda::Model model("digits.gesda");
//   std::puts(model.class_name(model.classify(pixels)[0]));
//
// Header only, C++17; everything said in gesda.h about threads, memory and shapes holds.
#ifndef GESDA_GESDA_HPP
#define GESDA_GESDA_HPP

#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "gesda/gesda.h"

namespace gesda {

// What gesda_last_error says, with the status.
class RuntimeError : public std::runtime_error {
 public:
  explicit RuntimeError(gesda_status status) : std::runtime_error(gesda_last_error()), status_(status) {}
  gesda_status status() const { return status_; }

 private:
  gesda_status status_;
};

inline void check(gesda_status status) {
  if (status != GESDA_OK) throw RuntimeError(status);
}

class Model {
 public:
  explicit Model(const std::string& path, const gesda_options* options = nullptr) {
    gesda_model* model = nullptr;
    check(gesda_open(path.c_str(), options, &model));
    model_.reset(model);
    gesda_info_init(&info_);
    check(gesda_describe(model, &info_));
  }

  const gesda_info& info() const { return info_; }
  gesda_model* get() const { return model_.get(); }
  const char* class_name(std::int32_t number) const { return gesda_class_name(get(), number); }

  // rows: n rows of info().n_features numbers, one after the other.
  std::vector<float> encode(const std::vector<float>& rows) { return apply(gesda_encode, rows, info_.n_hidden); }
  std::vector<float> reconstruct(const std::vector<float>& rows) {
    return apply(gesda_reconstruct, rows, info_.n_features);
  }
  std::vector<float> score(const std::vector<float>& rows) { return apply(gesda_score, rows, 1); }
  std::vector<float> probabilities(const std::vector<float>& rows) {
    return apply(gesda_probabilities, rows, info_.n_outputs);
  }
  std::vector<float> predict(const std::vector<float>& rows) { return apply(gesda_predict, rows, info_.n_outputs); }
  std::vector<std::int32_t> classify(const std::vector<float>& rows) {
    std::vector<std::int32_t> classes(count(rows));
    check(gesda_classify(get(), rows.data(), classes.size(), classes.data()));
    return classes;
  }
  // samples: one motion, of info().n_features numbers a sample.
  gesda_recognition recognize(const std::vector<float>& samples) {
    gesda_recognition recognition;
    check(gesda_recognize(get(), samples.data(), count(samples), &recognition, nullptr));
    return recognition;
  }

 private:
  struct Close {
    void operator()(gesda_model* model) const { gesda_close(model); }
  };
  std::size_t count(const std::vector<float>& rows) const {
    const auto width = static_cast<std::size_t>(info_.n_features);
    if (rows.size() % width != 0) throw std::invalid_argument("the rows are no multiple of the model's features");
    return rows.size() / width;
  }
  std::vector<float> apply(gesda_status (*function)(gesda_model*, const float*, std::size_t, float*),
                           const std::vector<float>& rows, std::int32_t width) {
    const std::size_t n = count(rows);
    std::vector<float> out(n * static_cast<std::size_t>(width));
    check(function(get(), rows.data(), n, out.data()));
    return out;
  }

  std::unique_ptr<gesda_model, Close> model_;
  gesda_info info_;
};

// A gesture stream over a model, which has to outlive it.
class GestureStream {
 public:
  explicit GestureStream(Model& model, const gesda_stream_options* options = nullptr)
      : n_channels_(static_cast<std::size_t>(model.info().n_features)) {
    gesda_stream* stream = nullptr;
    check(gesda_stream_open(model.get(), options, &stream));
    stream_.reset(stream);
  }

  // samples: n rows of the model's channels; times: n seconds, or none. Returns the gestures that have ended.
  std::vector<gesda_event> push(const std::vector<float>& samples, const std::vector<double>& times = {}) {
    const std::size_t n = samples.size() / n_channels_;
    if (samples.size() % n_channels_ != 0 || (!times.empty() && times.size() != n))
      throw std::invalid_argument("the samples are no multiple of the model's channels, or the times are not as many");
    std::vector<gesda_event> events;
    for (std::size_t begin = 0; begin < n;) {
      std::size_t taken = 0;
      check(gesda_stream_push(stream_.get(), samples.data() + begin * n_channels_,
                              times.empty() ? nullptr : times.data() + begin, n - begin, &taken));
      begin += taken;
      append_events(events);
    }
    return events;
  }
  std::vector<gesda_event> flush() {
    check(gesda_stream_flush(stream_.get()));
    std::vector<gesda_event> events;
    append_events(events);
    return events;
  }
  void reset() { check(gesda_stream_reset(stream_.get())); }
  gesda_report report() const {
    gesda_report report;
    gesda_report_init(&report);
    check(gesda_stream_report(stream_.get(), &report));
    return report;
  }

 private:
  struct Close {
    void operator()(gesda_stream* stream) const { gesda_stream_close(stream); }
  };
  void append_events(std::vector<gesda_event>& events) {
    gesda_event event;
    while (gesda_stream_next(stream_.get(), &event) == 1) events.push_back(event);
  }

  std::size_t n_channels_;
  std::unique_ptr<gesda_stream, Close> stream_;
};

}  // namespace gesda

#endif
