// gesda-infer: rows or samples in, JSON lines out. `gesda-infer --help` tells how it is called.
#include <time.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <stdexcept>

#include "cpp/cli/json_lines.hpp"
#include "cpp/cli/table.hpp"
#include "gesda/gesda.hpp"

namespace gesda_cli {
namespace {

constexpr const char* kUsage =
    "usage: gesda-infer MODEL [FILE]\n"
    "\n"
    "Runs a model file over rows of numbers and writes a JSON object for each, one a line. FILE is CSV text, or\n"
    "standard input if it is - or left out. Of a gesture recogniser, rows are samples of a stream, and the lines are\n"
    "gestures as they end.\n"
    "\n"
    "  --output LIST     what to give, separated by commas: encodings, reconstructions, scores, probabilities,\n"
    "                    labels, predictions (default: labels and probabilities, predictions, or encodings)\n"
    "  --raw             FILE holds little-endian float32 numbers without gaps, no text\n"
    "  --times           recogniser: the first column is the time in seconds\n"
    "  --rate HZ         recogniser: rate of samples without times\n"
    "  --pause SECONDS   recogniser: rest that ends a gesture (default 0.25)\n"
    "  --unknown         recogniser: also give motions that are no known gesture\n"
    "  --whole           recogniser: the file is one motion\n"
    "  --info            describe the model and stop\n"
    "  --bench N         measure N answers to one row, or one motion of a second, and the memory, and stop\n"
    "  --verify          compare the model file with its checksum first\n"
    "  --variant NAME    SIMD variant: avx512, avx2, neon, baseline\n"
    "  --version\n";

enum Output { kEncodings, kReconstructions, kScores, kProbabilities, kLabels, kPredictions, kOutputs };
constexpr const char* kOutputNames[] = {"encodings",     "reconstructions", "scores",
                                        "probabilities", "labels",          "predictions"};

struct Arguments {
  std::string model, file = "-";
  std::vector<Output> outputs;
  RowReader::Format format = RowReader::kCsv;
  bool times = false, unknown = false, whole = false, info = false, verify = false;
  double rate = 0.0, pause = 0.25;
  int bench = 0;
  std::string variant;
};

[[noreturn]] void refuse(const std::string& reason) { throw std::runtime_error(reason + "; see gesda-infer --help"); }

double number_of(const std::string& text, const char* option) {
  double value = 0.0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) refuse(std::string(option) + " needs a number");
  return value;
}

std::vector<Output> outputs_of(const std::string& list) {
  std::vector<Output> outputs;
  for (std::size_t begin = 0; begin <= list.size();) {
    const std::size_t end = std::min(list.find(',', begin), list.size());
    const std::string name = list.substr(begin, end - begin);
    const auto found = std::find(std::begin(kOutputNames), std::end(kOutputNames), name);
    if (found == std::end(kOutputNames)) refuse("there is no output '" + name + "'");
    outputs.push_back(static_cast<Output>(found - kOutputNames));
    begin = end + 1;
  }
  return outputs;
}

Arguments arguments_of(int argc, char** argv) {
  Arguments all;
  std::vector<std::string> places;
  for (int i = 1; i < argc; ++i) {
    const std::string option = argv[i];
    const auto value = [&]() -> std::string {
      if (i + 1 >= argc) refuse(option + " needs a value");
      return argv[++i];
    };
    if (option == "--output")
      all.outputs = outputs_of(value());
    else if (option == "--raw")
      all.format = RowReader::kRaw;
    else if (option == "--times")
      all.times = true;
    else if (option == "--rate")
      all.rate = number_of(value(), "--rate");
    else if (option == "--pause")
      all.pause = number_of(value(), "--pause");
    else if (option == "--unknown")
      all.unknown = true;
    else if (option == "--whole")
      all.whole = true;
    else if (option == "--info")
      all.info = true;
    else if (option == "--bench")
      all.bench = static_cast<int>(std::clamp(number_of(value(), "--bench"), 1.0, 1e7));
    else if (option == "--verify")
      all.verify = true;
    else if (option == "--variant")
      all.variant = value();
    else if (option.size() > 1 && option[0] == '-')
      refuse("there is no option " + option);
    else
      places.push_back(option);
  }
  if (places.empty() || places.size() > 2) refuse("give a model file and at most one file of rows");
  all.model = places[0];
  if (places.size() == 2) all.file = places[1];
  return all;
}

// ---- what the commands do ------------------------------------------------------------------------------
void describe(const gesda::Model& model) {
  constexpr const char* kKinds[] = {"autoencoder", "classifier", "regressor", "recognizer"};
  constexpr const char* kWeights[] = {"fp32", "fp16", "int8"};
  const gesda_info& info = model.info();
  JsonLine line;
  line.add("kind", kKinds[info.kind]);
  line.add("weights", kWeights[info.weights]);
  line.add("variant", info.variant);
  line.add("n_features", static_cast<long long>(info.n_features));
  line.add("n_layers", static_cast<long long>(info.n_layers));
  line.add("n_hidden", static_cast<long long>(info.n_hidden));
  line.add("n_outputs", static_cast<long long>(info.n_outputs));
  line.add("weight_bytes", static_cast<long long>(info.weight_bytes));
  if (info.kind == GESDA_RECOGNIZER) line.add("rate", info.rate), line.add("threshold", info.threshold);
}

std::vector<Output> usual_outputs(gesda_kind kind) {
  if (kind == GESDA_CLASSIFIER) return {kLabels, kProbabilities};
  if (kind == GESDA_REGRESSOR) return {kPredictions};
  return {kEncodings};
}

void answer_row(gesda::Model& model, const std::vector<float>& row, const std::vector<Output>& outputs,
                std::size_t number) {
  std::vector<std::vector<float>> answers(kOutputs);
  const char* label = nullptr;
  for (const Output output : outputs) {  // all of them first: an error leaves no half a line
    switch (output) {
      case kEncodings: answers[output] = model.encode(row); break;
      case kReconstructions: answers[output] = model.reconstruct(row); break;
      case kScores: answers[output] = model.score(row); break;
      case kProbabilities: answers[output] = model.probabilities(row); break;
      case kLabels: label = model.class_name(model.classify(row)[0]); break;
      case kPredictions: answers[output] = model.predict(row); break;
      case kOutputs: break;
    }
  }
  JsonLine line;
  line.add("row", static_cast<long long>(number));
  for (const Output output : outputs) {
    const std::vector<float>& values = answers[output];
    if (output == kLabels)
      line.add("label", label);
    else if (output == kScores)
      line.add("score", values[0]);
    else
      line.add(kOutputNames[output], values.data(), values.size());
  }
}

void answer_rows(gesda::Model& model, const Arguments& arguments) {
  const std::vector<Output> outputs = arguments.outputs.empty() ? usual_outputs(model.info().kind) : arguments.outputs;
  RowReader reader(arguments.file, arguments.format, static_cast<std::size_t>(model.info().n_features));
  std::vector<double> numbers;
  for (std::size_t n = 0; reader.next(numbers); ++n)
    answer_row(model, std::vector<float>(numbers.begin(), numbers.end()), outputs, n);
}

void write_event(const gesda::Model& model, const gesda_event& event) {
  JsonLine line;
  line.add("label", model.class_name(event.gesture));
  line.add("confidence", event.confidence);
  line.add("familiarity", event.familiarity);
  line.add("start", event.start);
  line.add("end", event.end);
}

void follow_stream(gesda::Model& model, const Arguments& arguments) {
  gesda_stream_options options;
  gesda_stream_options_init(&options);
  options.rate = arguments.rate;
  options.pause = arguments.pause;
  options.unknown = arguments.unknown ? 1 : 0;
  gesda::GestureStream stream(model, &options);
  const std::size_t first = arguments.times ? 1 : 0;
  RowReader reader(arguments.file, arguments.format, static_cast<std::size_t>(model.info().n_features) + first);
  std::vector<double> numbers, times;
  while (reader.next(numbers)) {
    if (arguments.times) times.assign(1, numbers[0]);
    const std::vector<float> sample(numbers.begin() + static_cast<std::ptrdiff_t>(first), numbers.end());
    for (const gesda_event& event : stream.push(sample, times)) write_event(model, event);
  }
  for (const gesda_event& event : stream.flush()) write_event(model, event);
}

void recognize_file(gesda::Model& model, const Arguments& arguments) {
  RowReader reader(arguments.file, arguments.format, static_cast<std::size_t>(model.info().n_features));
  std::vector<double> numbers;
  std::vector<float> samples;
  while (reader.next(numbers)) samples.insert(samples.end(), numbers.begin(), numbers.end());
  const gesda_recognition answer = model.recognize(samples);
  JsonLine line;
  line.add("label", model.class_name(answer.gesture));
  line.add("best", model.class_name(answer.best));
  line.add("confidence", answer.confidence);
  line.add("familiarity", answer.familiarity);
}

double microseconds_now() {
  timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return static_cast<double>(t.tv_sec) * 1e6 + static_cast<double>(t.tv_nsec) * 1e-3;
}

// The most memory that this process has had resident, in bytes; 0 where the system does not tell.
long long peak_resident() {
  std::FILE* file = std::fopen("/proc/self/status", "r");
  if (file == nullptr) return 0;
  constexpr char kName[] = "VmHWM:";
  char line[256];
  long long kilobytes = 0;
  while (kilobytes == 0 && std::fgets(line, sizeof line, file) != nullptr)
    if (std::strncmp(line, kName, sizeof kName - 1) == 0)
      kilobytes = std::strtoll(line + sizeof kName - 1, nullptr, 10);
  std::fclose(file);
  return kilobytes * 1024;
}

// One row, or one motion of a second, again and again.
void measure(gesda::Model& model, int times) {
  const gesda_info& info = model.info();
  const bool is_recognizer = info.kind == GESDA_RECOGNIZER;
  const std::size_t length = is_recognizer ? static_cast<std::size_t>(std::clamp(info.rate, 32.0, 1000.0)) : 1;
  std::vector<float> input(length * static_cast<std::size_t>(info.n_features));
  for (std::size_t i = 0; i < input.size(); ++i) {  // spread over [0, 1)
    const double turns = 0.6180339887498949 * static_cast<double>(i);
    input[i] = static_cast<float>(turns - std::floor(turns));
  }
  const std::size_t width = static_cast<std::size_t>(std::max(info.n_hidden, info.n_outputs));
  std::vector<float> out(width);
  gesda_recognition recognition;
  const auto answer = [&] {
    switch (info.kind) {
      case GESDA_AUTOENCODER: return gesda_encode(model.get(), input.data(), 1, out.data());
      case GESDA_CLASSIFIER: return gesda_probabilities(model.get(), input.data(), 1, out.data());
      case GESDA_REGRESSOR: return gesda_predict(model.get(), input.data(), 1, out.data());
      case GESDA_RECOGNIZER: break;
    }
    return gesda_recognize(model.get(), input.data(), length, &recognition, nullptr);
  };
  for (int i = 0; i < std::min(times, 100); ++i) gesda::check(answer());
  std::vector<double> taken;
  for (int i = 0; i < times; ++i) {
    const double begin = microseconds_now();
    gesda::check(answer());
    taken.push_back(microseconds_now() - begin);
  }
  std::sort(taken.begin(), taken.end());
  const auto quantile = [&](double share) {
    return taken[static_cast<std::size_t>(share * static_cast<double>(taken.size() - 1))];
  };
  JsonLine line;
  line.add("answers", static_cast<long long>(times));
  line.add("variant", info.variant);
  line.add("median_us", quantile(0.5));
  line.add("p99_us", quantile(0.99));
  line.add("most_us", taken.back());
  line.add("peak_resident_bytes", peak_resident());
}

void run(const Arguments& arguments) {
  gesda_options options;
  gesda_options_init(&options);
  options.verify = arguments.verify ? 1 : 0;
  options.variant = arguments.variant.empty() ? nullptr : arguments.variant.c_str();
  gesda::Model model(arguments.model, &options);
  const bool is_recognizer = model.info().kind == GESDA_RECOGNIZER;
  if (is_recognizer && !arguments.outputs.empty()) refuse("--output is for models of rows, not for recognisers");
  if (!is_recognizer && (arguments.times || arguments.whole || arguments.unknown || arguments.rate != 0.0))
    refuse("--times, --whole, --unknown and --rate are for gesture recognisers");
  if (arguments.info)
    describe(model);
  else if (arguments.bench > 0)
    measure(model, arguments.bench);
  else if (!is_recognizer)
    answer_rows(model, arguments);
  else if (arguments.whole)
    recognize_file(model, arguments);
  else
    follow_stream(model, arguments);
}

}  // namespace
}  // namespace gesda_cli

int main(int argc, char** argv) {
  for (int i = 1; i < argc; ++i) {
    if (std::strcmp(argv[i], "--help") == 0 || std::strcmp(argv[i], "-h") == 0)
      return std::fputs(gesda_cli::kUsage, stdout) < 0;
    if (std::strcmp(argv[i], "--version") == 0) return std::printf("gesda-infer %s\n", gesda_version()) < 0;
  }
  try {
    gesda_cli::run(gesda_cli::arguments_of(argc, argv));
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "gesda-infer: %s\n", error.what());
    return 2;
  }
}
