#include "gesda/network.hpp"

#include <algorithm>
#include <stdexcept>
#include <thread>

#include "cpp/src/state.hpp"

namespace gesda {

Network::Network(NetworkSpec spec, const std::string& variant, int n_threads, Precision precision)
    : state_(new State(std::move(spec), find_kernels(variant, precision), std::max(1, n_threads), precision)) {}
Network::~Network() = default;

const NetworkSpec& Network::spec() const { return state_->spec; }
const char* Network::variant() const { return state_->kernels->name; }
std::vector<std::int64_t>& Network::pretrain_steps() { return state_->pretrain_steps; }
std::int64_t& Network::finetune_steps() { return state_->finetune_steps; }

void Network::set_array(const std::string& name, const float* values) {
  const NamedArray& named = state_->arrays.at(name);
  if (named.array->empty()) *named.array = Matrix(named.values->rows(), named.values->columns(), state_->width());
  named.array->read(values);
}

void Network::get_array(const std::string& name, float* values) const {
  const NamedArray& named = state_->arrays.at(name);
  if (!named.array->empty()) return named.array->write(values);
  const std::size_t size =
      static_cast<std::size_t>(named.values->rows()) * static_cast<std::size_t>(named.values->columns());
  std::fill(values, values + size, 0.0f);
}

bool Network::all_finite(const std::string& name) const { return state_->arrays.at(name).array->all_finite(); }

std::vector<std::string> available_variants(Precision precision) {
  std::vector<std::string> names;
  for (const Kernels* kernels : runnable_kernels(precision)) names.emplace_back(kernels->name);
  return names;
}

bool has_bf16() { return available_variants(kBf16).front() == "avx512bf16"; }

double fma_peak(int n_threads, double seconds, const std::string& variant) {
  const Kernels& kernels = find_kernels(variant);
  std::vector<double> rates(static_cast<std::size_t>(std::max(1, n_threads)), 0.0);
  std::vector<std::thread> others;
  for (std::size_t i = 1; i < rates.size(); ++i)
    others.emplace_back([&rates, &kernels, seconds, i] { rates[i] = kernels.fma_rate(seconds); });
  rates[0] = kernels.fma_rate(seconds);
  for (std::thread& thread : others) thread.join();
  double total = 0.0;
  for (double rate : rates) total += rate;
  return total;
}

}  // namespace gesda
