// The runtime: reading of files that may be anything, and answers beside plain loops in double precision.
#include <array>
#include <thread>

#include "cpp/runtime/dense.hpp"
#include "cpp/runtime/error.hpp"
#include "cpp/runtime/half.hpp"
#include "cpp/runtime/sha256.hpp"
#include "cpp/tests/model_writer.hpp"
#include "cpp/tests/problem.hpp"
#include "gesda/gesda.hpp"

#if defined(GESDA_HAVE_WIDE)
namespace gesda::wide {
extern const InferenceKernels kInference;
}
#endif

namespace {

using namespace gesda;
using namespace gesda_test;

std::vector<const InferenceKernels*> all_kernels() {
  std::vector<const InferenceKernels*> found;
  for (const char* name : {"avx512", "avx2", "neon", "baseline"})
    if (const InferenceKernels* kernels = find_inference_kernels(name)) found.push_back(kernels);
#if defined(GESDA_HAVE_WIDE)
  found.push_back(&wide::kInference);
#endif
  return found;
}

bool is_refused(const std::string& text) {
  try {
    Json::parse(text);
    return false;
  } catch (const Error& error) {
    return error.status() == GESDA_BAD_FILE;
  }
}

double activated(Activation kind, double a) {
  switch (kind) {
    case kSigmoid: return 1.0 / (1.0 + std::exp(-a));
    case kTanh: return std::tanh(a);
    case kRelu: return std::max(a, 0.0);
    case kLinear: break;
  }
  return a;
}

struct Close {
  void operator()(gesda_model* model) const { gesda_close(model); }
};
using Handle = std::unique_ptr<gesda_model, Close>;

Handle open_bytes(const std::string& bytes, gesda_status* status) {
  gesda_model* model = nullptr;
  // A copy of its own size: a read past its end is one past the end of the memory.
  const std::vector<char> copy(bytes.begin(), bytes.end());
  *status = gesda_open_memory(copy.data(), copy.size(), nullptr, &model);
  return Handle(model);
}

// A small classifier, whose layers are of the given type.
std::string small_model(std::mt19937_64& rng, DType type) {
  ModelWriter writer(rng, type);
  writer.add_layer(7, 5, "tanh", true);
  writer.add_layer(5, 3, "sigmoid", false);
  writer.add_head("softmax", 3, 2);
  return writer.bytes("SdAClassifier");
}

}  // namespace

TEST(json_texts_become_trees) {
  const Json tree =
      Json::parse(R"( {"a": [1, -2.5e1, true, null], "b": {"c": "x\"\\\u00e4\ud83d\ude00\n"}, "d": NaN} )");
  CHECK(tree.at("a").list().size() == 4);
  CHECK(tree.at("a").list()[0].integer() == 1 && tree.at("a").list()[1].number() == -25.0);
  CHECK(tree.at("a").list()[2].boolean() && tree.at("a").list()[3].is_null());
  CHECK(tree.at("b").at("c").text() == "x\"\\\xC3\xA4\xF0\x9F\x98\x80\n");
  CHECK(std::isnan(tree.at("d").number()));
  CHECK(tree.find("e") == nullptr);
}

TEST(json_refuses_what_is_none) {
  for (const char* text : {"",
                           "{",
                           "}",
                           "[1,]",
                           "{\"a\"}",
                           "{\"a\":}",
                           "{a:1}",
                           "01",
                           "1.",
                           ".5",
                           "1e",
                           "+1",
                           "--1",
                           "tru",
                           "\"",
                           "\"\\x\"",
                           "\"\\u12\"",
                           "\"\\ud800\"",
                           "\"\\udc00x\"",
                           "\"\n\"",
                           "1 2",
                           "1e999",
                           "nul",
                           "-",
                           "[1 2]",
                           "{\"a\":1 \"b\":2}",
                           "Infinit"})
    CHECK(is_refused(text));
  CHECK(is_refused(std::string(100000, '[')));  // no stack overflows
  CHECK(!is_refused(std::string(60, '[') + std::string(60, ']')));
  for (const char* text : {"null", "[]", "-0", "0.5", "1E-2", "-Infinity", "\"\\u0000\""}) CHECK(!is_refused(text));
}

TEST(sha256_gives_the_published_digests) {
  const auto digest = [](const std::string& text, std::size_t step) {
    Sha256 sum;
    for (std::size_t at = 0; at < text.size(); at += step)
      sum.update(text.data() + at, std::min(step, text.size() - at));
    return sum.hex_digest();
  };
  for (const std::size_t step : {1, 7, 64, 1000000}) {  // FIPS 180-2, appendix B
    CHECK(digest("abc", step) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    CHECK(digest("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq", step) ==
          "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
    CHECK(digest(std::string(1000000, 'a'), step) ==
          "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
  }
}

TEST(halves_become_floats) {
  const std::pair<std::uint16_t, float> known[] = {
      {0x0000, 0.0f},          {0x3C00, 1.0f},          {0xC000, -2.0f},      {0x7BFF, 65504.0f},
      {0x0001, 5.9604645e-8f}, {0x03FF, 6.0975552e-5f}, {0x3555, 0.33325195f}};
  for (const auto& [bits, value] : known) CHECK(static_cast<float>(Half{bits}) == value);
  CHECK(std::isinf(static_cast<float>(Half{0x7C00})) && std::isnan(static_cast<float>(Half{0x7E00})));
}

TEST(dense_layers_are_plain_loops) {
  std::mt19937_64 rng = gesda_test::rng();
  for (int trial = 0; trial < 60; ++trial) {
    const int inputs = draw_int(rng, 1, 70), outputs = draw_int(rng, 1, 90), rows = draw_int(rng, 1, 9);
    const Activation activation = draw_of(rng, kActivations);
    const DType type = std::array<DType, 3>{DType::kF32, DType::kF16, DType::kI8}[size(trial % 3)];
    ModelWriter writer(rng, type);
    const Table w = writer.add_matrix("W", inputs, outputs), b = writer.add_vector("b", outputs);
    const std::string bytes = writer.bytes("none");
    const ModelFile file = ModelFile::view(bytes.data(), bytes.size(), true);
    const Rows in(rng, rows, inputs, -1.0f, 1.0f), codes(rng, rows, outputs, -1.0f, 1.0f),
        back(rng, 1, inputs, -1.0f, 1.0f);
    // Of int8, rows are rounded to 14 bits or so; everything else is the rounding of sums.
    const double tolerance = (type == DType::kI8 ? 2e-4 : 2e-6) * std::sqrt(std::max(inputs, outputs));
    for (const InferenceKernels* kernels : all_kernels()) {
      const Dense dense(*kernels, file, {{"W", "b", outputs}}, inputs, activation);
      const std::size_t stride = padded_width(std::max(inputs, outputs));
      AlignedFloats out(stride * size(rows)), padded(stride * size(rows)), bias(padded_width(inputs));
      Aligned<std::int16_t> work(dense.codes_size());
      dense.forward(in.values.data(), size(inputs), rows, out.data(), stride, work.data());
      for (int r = 0; r < rows; ++r)
        for (int c = 0; c < outputs; ++c) {
          double a = b(0, c);
          for (int i = 0; i < inputs; ++i) a += static_cast<double>(in(r, i)) * w(i, c);
          CHECK_CLOSE(out[size(r) * stride + size(c)], activated(activation, a), tolerance);
        }
      std::fill(padded.data(), padded.data() + padded.size(), std::nanf(""));  // what pads a row is nobody's business
      for (int r = 0; r < rows; ++r)
        std::copy_n(&codes.values[size(r * outputs)], outputs, padded.data() + size(r) * stride);
      std::copy_n(back.values.data(), inputs, bias.data());
      dense.transposed(padded.data(), stride, rows, bias.data(), activation, out.data(), stride, work.data());
      for (int r = 0; r < rows; ++r)
        for (int i = 0; i < inputs; ++i) {
          double a = static_cast<double>(back(0, i));
          for (int c = 0; c < outputs; ++c) a += static_cast<double>(codes(r, c)) * w(i, c);
          CHECK_CLOSE(out[size(r) * stride + size(i)], activated(activation, a), tolerance);
        }
    }
  }
}

TEST(models_cut_anywhere_are_refused) {
  std::mt19937_64 rng = gesda_test::rng();
  const std::string bytes = small_model(rng, DType::kF32);
  gesda_status status;
  CHECK(open_bytes(bytes, &status) != nullptr && status == GESDA_OK);
  for (std::size_t n = 1; n < bytes.size(); ++n) {
    CHECK(open_bytes(bytes.substr(0, n), &status) == nullptr);
    CHECK(status == GESDA_BAD_FILE && std::strlen(gesda_last_error()) > 10);
  }
}

TEST(weights_that_are_not_finite_are_refused) {
  std::mt19937_64 rng = gesda_test::rng();
  const std::pair<DType, std::string> known[] = {{DType::kF32, std::string("\x00\x00\xC0\x7F", 4)},  // NaN
                                                 {DType::kF32, std::string("\x00\x00\x80\xFF", 4)},  // minus infinity
                                                 {DType::kF16, std::string("\x01\x7C", 2)},
                                                 {DType::kF16, std::string("\x00\x7C", 2)}};
  for (const auto& [type, bits] : known) {
    std::string bytes = small_model(rng, type);
    std::uint64_t header = 0;
    std::memcpy(&header, bytes.data(), sizeof header);
    const std::size_t weight = size(draw_int(rng, 0, 34));  // of the 7 x 5 of the first layer, which come first
    bytes.replace(8 + header + weight * bits.size(), bits.size(), bits);
    gesda_status status;
    CHECK(open_bytes(bytes, &status) == nullptr && status == GESDA_BAD_FILE);
    CHECK(std::strstr(gesda_last_error(), "NaN or infinity") != nullptr);
  }
}

TEST(models_with_wrong_bits_do_no_harm) {
  std::mt19937_64 rng = gesda_test::rng();
  int n_opened = 0;
  for (const DType type : {DType::kF32, DType::kF16, DType::kI8}) {
    const std::string bytes = small_model(rng, type);
    for (int trial = 0; trial < 1500; ++trial) {
      std::string wrong = bytes;
      for (int i = draw_int(rng, 1, 3); i > 0; --i)
        wrong[size(draw_int(rng, 0, static_cast<int>(wrong.size()) - 1))] ^=
            static_cast<char>(1 << draw_int(rng, 0, 7));
      gesda_status status;
      const Handle model = open_bytes(wrong, &status);
      CHECK((status == GESDA_OK) == (model != nullptr));
      if (model == nullptr) continue;
      ++n_opened;
      gesda_info info;
      gesda_info_init(&info);
      CHECK(gesda_describe(model.get(), &info) == GESDA_OK && info.n_features >= 1);
      std::vector<float> row(size(info.n_features), 0.5f),
          out(size(std::max({info.n_features, info.n_hidden, info.n_outputs})));
      CHECK(gesda_encode(model.get(), row.data(), 1, out.data()) == GESDA_OK);
      CHECK(gesda_reconstruct(model.get(), row.data(), 1, out.data()) == GESDA_OK);
      gesda_probabilities(model.get(), row.data(), 1, out.data());
    }
  }
  CHECK(n_opened > 100);  // weights may be any numbers
}

TEST(handles_of_several_threads_do_not_meet) {
  std::mt19937_64 rng = gesda_test::rng();
  const std::string bytes = small_model(rng, DType::kI8);
  const Rows rows(rng, 20, 7, 0.0f, 1.0f);
  std::vector<std::vector<float>> answers(4, std::vector<float>(40));
  std::vector<std::thread> threads;
  threads.reserve(answers.size());
  for (std::vector<float>& answer : answers)
    threads.emplace_back([&] {
      gesda_status status;
      const Handle model = open_bytes(bytes, &status);
      for (int i = 0; i < 50; ++i)
        CHECK(gesda_probabilities(model.get(), rows.values.data(), 20, answer.data()) == GESDA_OK);
      CHECK(gesda_probabilities(nullptr, rows.values.data(), 20, answer.data()) == GESDA_INVALID_ARGUMENT);
    });
  for (std::thread& thread : threads) thread.join();
  for (const std::vector<float>& answer : answers) CHECK(same_bits(answer, answers[0]));
}

TEST(null_pointers_are_errors) {
  gesda_model* model = nullptr;
  CHECK(gesda_open(nullptr, nullptr, &model) == GESDA_INVALID_ARGUMENT);
  CHECK(gesda_open("nowhere", nullptr, nullptr) == GESDA_INVALID_ARGUMENT);
  CHECK(gesda_open_memory(nullptr, 3, nullptr, &model) == GESDA_INVALID_ARGUMENT);
  CHECK(gesda_open("nowhere", nullptr, &model) == GESDA_FILE_ERROR && model == nullptr);
  CHECK(gesda_encode(nullptr, nullptr, 0, nullptr) == GESDA_INVALID_ARGUMENT);
  CHECK(gesda_describe(nullptr, nullptr) == GESDA_INVALID_ARGUMENT);
  CHECK(gesda_recognize(nullptr, nullptr, 0, nullptr, nullptr) == GESDA_INVALID_ARGUMENT);
  gesda_stream* stream = nullptr;
  CHECK(gesda_stream_open(nullptr, nullptr, &stream) == GESDA_INVALID_ARGUMENT);
  CHECK(gesda_stream_push(nullptr, nullptr, nullptr, 0, nullptr) == GESDA_INVALID_ARGUMENT);
  CHECK(gesda_stream_next(nullptr, nullptr) == 0);
  CHECK(gesda_class_name(nullptr, 0) == nullptr && gesda_feature_name(nullptr, 0) == nullptr);
  gesda_close(nullptr);
  gesda_stream_close(nullptr);
}
