// gesda._core: the Python face of the core. It translates; it computes nothing.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <exception>
#include <string>
#include <vector>

#include "gesda/network.hpp"
#include "gesda/pool.hpp"

namespace py = pybind11;

namespace {

using FloatArray = py::array_t<float, py::array::c_style>;

template <class T>
T item(const py::dict& dict, const char* key) {
  return dict[key].cast<T>();
}

gesda::LayerSpec layer_spec(const py::dict& d) {
  return {item<int>(d, "n_visible"),
          item<int>(d, "n_hidden"),
          static_cast<gesda::Activation>(item<int>(d, "activation")),
          static_cast<gesda::Activation>(item<int>(d, "output_activation")),
          static_cast<gesda::Loss>(item<int>(d, "loss")),
          item<bool>(d, "tied"),
          static_cast<gesda::Noise>(item<int>(d, "noise")),
          item<double>(d, "noise_level"),
          item<float>(d, "noise_low"),
          item<float>(d, "noise_high"),
          item<float>(d, "emphasis_corrupted"),
          item<float>(d, "emphasis_clean"),
          item<float>(d, "sparsity"),
          item<float>(d, "sparsity_target"),
          item<float>(d, "contractive"),
          item<float>(d, "l2")};
}

gesda::OptimizerSpec optimizer_spec(const py::dict& d) {
  return {static_cast<gesda::Optimizer>(item<int>(d, "kind")),
          item<float>(d, "momentum"),
          item<bool>(d, "nesterov"),
          item<float>(d, "beta_1"),
          item<float>(d, "beta_2"),
          item<float>(d, "epsilon")};
}

gesda::NetworkSpec network_spec(const py::list& layers, const py::dict& optimizer, const py::object& head,
                                std::uint64_t seed) {
  gesda::NetworkSpec spec{};
  for (const py::handle& layer : layers) spec.layers.push_back(layer_spec(layer.cast<py::dict>()));
  spec.optimizer = optimizer_spec(optimizer);
  spec.has_head = !head.is_none();
  if (spec.has_head) {
    const py::dict d = head.cast<py::dict>();
    spec.head = {static_cast<gesda::Head>(item<int>(d, "kind")), item<int>(d, "n_outputs"),
                 optimizer_spec(d["optimizer"].cast<py::dict>()), item<float>(d, "l2"),
                 item<std::vector<double>>(d, "dropout")};
  }
  spec.seed = seed;
  return spec;
}

// The arrays that a Samples record points into, kept alive. Dense: (values,); CSR: (values, row pointers, columns).
class SamplesHolder {
 public:
  explicit SamplesHolder(const py::tuple& arrays) : arrays_(arrays) {
    if (arrays.size() == 1) {
      const py::array_t<float> values = arrays[0].cast<py::array_t<float>>();
      samples_ = {static_cast<std::size_t>(values.shape(0)), values.data(),
                  static_cast<std::size_t>(values.strides(0)) / sizeof(float), nullptr, nullptr};
    } else {
      const py::array_t<float> values = arrays[0].cast<py::array_t<float>>();
      const py::array_t<std::int64_t> pointers = arrays[1].cast<py::array_t<std::int64_t>>();
      const py::array_t<std::int32_t> columns = arrays[2].cast<py::array_t<std::int32_t>>();
      samples_ = {static_cast<std::size_t>(pointers.shape(0)) - 1, values.data(), 0, pointers.data(), columns.data()};
    }
  }
  const gesda::Samples& get() const { return samples_; }

 private:
  py::tuple arrays_;
  gesda::Samples samples_;
};

// Asks Python now and then, while the epoch runs without the GIL: signals first, then the caller's function. What is
// raised there stops the epoch and is raised again when it has ended.
class PythonPoll {
 public:
  explicit PythonPoll(py::object function) : function_(std::move(function)) {}
  gesda::Poll poll() {
    return [this](double fraction) {
      const py::gil_scoped_acquire gil;
      try {
        if (PyErr_CheckSignals() != 0) throw py::error_already_set();
        return !function_.is_none() && function_(fraction).cast<bool>();
      } catch (...) {
        error_ = std::current_exception();
        return true;
      }
    };
  }
  void raise_again() const {
    if (error_) std::rethrow_exception(error_);
  }

 private:
  py::object function_;
  std::exception_ptr error_;
};

py::tuple stats_tuple(const gesda::EpochStats& stats) {
  return py::make_tuple(stats.loss, stats.seconds, stats.completed);
}

class Network {
 public:
  Network(const py::list& layers, const py::dict& optimizer, const py::object& head, std::uint64_t seed,
          const std::string& variant, int n_threads, int precision)
      : network_(network_spec(layers, optimizer, head, seed), variant, n_threads,
                 static_cast<gesda::Precision>(precision)) {}

  std::string variant() const { return network_.variant(); }
  void set_array(const std::string& name, const FloatArray& values) { network_.set_array(name, values.data()); }
  void get_array(const std::string& name, FloatArray values) const { network_.get_array(name, values.mutable_data()); }
  bool all_finite(const std::string& name) const { return network_.all_finite(name); }
  std::vector<std::int64_t> pretrain_steps() { return network_.pretrain_steps(); }
  void set_pretrain_steps(const std::vector<std::int64_t>& steps) { network_.pretrain_steps() = steps; }
  std::int64_t finetune_steps() { return network_.finetune_steps(); }
  void set_finetune_steps(std::int64_t steps) { network_.finetune_steps() = steps; }

  py::tuple pretrain_epoch(const py::tuple& arrays, std::uint32_t epoch, const py::array_t<std::uint32_t>& order,
                           int batch_size, const std::vector<bool>& training, const std::vector<float>& learning_rates,
                           int first_layer, bool noisy_handoff, py::object poll_function) {
    const SamplesHolder samples(arrays);
    const gesda::PretrainPlan plan{epoch,       order.data(), static_cast<std::size_t>(order.size()),
                                   batch_size,  training,     learning_rates,
                                   first_layer, noisy_handoff};
    return run_epoch(std::move(poll_function),
                     [&](const gesda::Poll& poll) { return network_.pretrain_epoch(samples.get(), plan, poll); });
  }

  py::tuple finetune_epoch(const py::tuple& arrays, const py::object& classes, const py::object& values,
                           const py::object& weights, std::uint32_t epoch, const py::array_t<std::uint32_t>& order,
                           int batch_size, float learning_rate, py::object poll_function) {
    const SamplesHolder samples(arrays);
    const auto floats = [](const py::object& array) {
      return array.is_none() ? nullptr : array.cast<FloatArray>().data();
    };
    const gesda::Targets targets{classes.is_none() ? nullptr : classes.cast<py::array_t<std::int32_t>>().data(),
                                 floats(values), floats(weights)};
    const gesda::FinetunePlan plan{epoch, order.data(), static_cast<std::size_t>(order.size()), batch_size,
                                   learning_rate};
    return run_epoch(std::move(poll_function), [&](const gesda::Poll& poll) {
      return network_.finetune_epoch(samples.get(), targets, plan, poll);
    });
  }

  void encode(const py::tuple& arrays, int first_layer, int n_layers, FloatArray out) {
    const SamplesHolder samples(arrays);
    float* data = out.mutable_data();
    const py::gil_scoped_release release;
    network_.encode(samples.get(), first_layer, n_layers, data);
  }
  void decode(const py::tuple& arrays, int n_layers, FloatArray out) {
    const SamplesHolder samples(arrays);
    float* data = out.mutable_data();
    const py::gil_scoped_release release;
    network_.decode(samples.get(), n_layers, data);
  }
  void predict(const py::tuple& arrays, FloatArray out) {
    const SamplesHolder samples(arrays);
    float* data = out.mutable_data();
    const py::gil_scoped_release release;
    network_.predict(samples.get(), data);
  }

 private:
  template <class Run>
  py::tuple run_epoch(py::object poll_function, const Run& run) {
    PythonPoll python(std::move(poll_function));
    gesda::EpochStats stats;
    {
      const gesda::Poll poll = python.poll();
      const py::gil_scoped_release release;
      stats = run(poll);
    }
    python.raise_again();
    return stats_tuple(stats);
  }

  gesda::Network network_;
};

}  // namespace

PYBIND11_MODULE(_core, m) {
  m.doc() = "The C++ core of GeSdA. gesda.engine.cpu is its only user.";
  m.def(
      "available_variants",
      [](int precision) { return gesda::available_variants(static_cast<gesda::Precision>(precision)); },
      py::arg("precision") = 0, "SIMD variants that this machine runs, fastest first.");
  m.def("has_bf16", &gesda::has_bf16, "Whether this machine has AVX512-BF16, and this build its variant.");
  m.def("usable_threads", &gesda::usable_threads, "Hardware threads that this process may use.");
  m.def("fma_peak", &gesda::fma_peak, py::arg("n_threads"), py::arg("seconds"), py::arg("variant") = "",
        py::call_guard<py::gil_scoped_release>(), "Best rate of fused multiply-adds, FLOP/s.");
  py::class_<Network>(m, "Network")
      .def(py::init<const py::list&, const py::dict&, const py::object&, std::uint64_t, const std::string&, int, int>())
      .def_property_readonly("variant", &Network::variant)
      .def_property("pretrain_steps", &Network::pretrain_steps, &Network::set_pretrain_steps)
      .def_property("finetune_steps", &Network::finetune_steps, &Network::set_finetune_steps)
      .def("set_array", &Network::set_array, py::arg("name"), py::arg("values").noconvert())
      .def("get_array", &Network::get_array, py::arg("name"), py::arg("values").noconvert())
      .def("all_finite", &Network::all_finite, py::arg("name"))
      .def("pretrain_epoch", &Network::pretrain_epoch)
      .def("finetune_epoch", &Network::finetune_epoch)
      .def("encode", &Network::encode, py::arg("arrays"), py::arg("first_layer"), py::arg("n_layers"),
           py::arg("out").noconvert())
      .def("decode", &Network::decode, py::arg("arrays"), py::arg("n_layers"), py::arg("out").noconvert())
      .def("predict", &Network::predict, py::arg("arrays"), py::arg("out").noconvert());
}
