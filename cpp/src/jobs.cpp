#include "cpp/src/jobs.hpp"

#include <algorithm>

#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

namespace gesda {

namespace {

constexpr int kWantedJobs = 8;    // in a phase of one layer, where its shape allows
constexpr int kFewestRows = 12;   // of a job of a product: two register tiles
constexpr int kRowsPerCopy = 16;  // of a job that copies or corrupts rows
constexpr int kBiasPanels = 8;

template <class Task, void (*Kernels::*kernel)(const Task&, Range)>
void run_plain(const Kernels& kernels, const void* task, Range range, float*) {
  (kernels.*kernel)(*static_cast<const Task*>(task), range);
}
template <class Task, void (*Kernels::*kernel)(const Task&, Range, float*)>
void run_with_workspace(const Kernels& kernels, const void* task, Range range, float* workspace) {
  (kernels.*kernel)(*static_cast<const Task*>(task), range, workspace);
}

// Denormal numbers count as zero while a job runs, on whichever thread: they carry nothing in training, cost up to a
// hundred times a normal operation, and GPUs flush them too. The caller's mode is put back.
class FlushDenormals {
 public:
#if defined(__x86_64__)
  FlushDenormals() : saved_(_mm_getcsr()) { _mm_setcsr(saved_ | 0x8040u); }  // FTZ and DAZ
  ~FlushDenormals() { _mm_setcsr(saved_); }

 private:
  unsigned saved_;
#elif defined(__aarch64__)
  FlushDenormals() {
    __asm__ volatile("mrs %0, fpcr" : "=r"(saved_));
    __asm__ volatile("msr fpcr, %0" : : "r"(saved_ | (std::uint64_t{1} << 24)));
  }
  ~FlushDenormals() { __asm__ volatile("msr fpcr, %0" : : "r"(saved_)); }

 private:
  std::uint64_t saved_;
#else
  FlushDenormals() {}
#endif
};

// One job for every block of rows and every panel: the blocks outside, so that a block's input stays in the cache.
template <class Run>
void append_product(std::vector<Job>& jobs, Run run, const void* task, int rows, int block, int panels, int layer) {
  for (int r = 0; r < rows; r += block)
    for (int p = 0; p < panels; ++p) jobs.push_back({run, task, {r, std::min(rows, r + block), p, p + 1}, layer});
}
template <class Run>
void append_rows(std::vector<Job>& jobs, Run run, const void* task, int rows, int layer) {
  for (int r = 0; r < rows; r += kRowsPerCopy)
    jobs.push_back({run, task, {r, std::min(rows, r + kRowsPerCopy), 0, 0}, layer});
}

}  // namespace

int rows_per_job(const Kernels& kernels, int rows, int panels) {
  const int blocks = ceil_div(rows, kernels.row_block);
  const int wanted = std::max(blocks, std::min(ceil_div(kWantedJobs, panels), rows / kFewestRows));
  return ceil_div(rows, wanted);
}

std::size_t most_blocks(const Kernels& kernels, int rows, int panels) {
  const int blocks = std::max(ceil_div(rows, kernels.row_block), ceil_div(kWantedJobs, panels)) + 1;
  return static_cast<std::size_t>(blocks) * static_cast<std::size_t>(panels);
}

void JobList::gather(const Kernels&, const GatherTask& task, int rows, int layer) {
  append_rows(jobs_, run_plain<GatherTask, &Kernels::gather>, &task, rows, layer);
}
void JobList::corrupt(const Kernels&, const CorruptTask& task, int layer) {
  append_rows(jobs_, run_plain<CorruptTask, &Kernels::corrupt>, &task, task.rows, layer);
}
void JobList::pack(const Kernels&, const PackTask& task, int layer) {
  static_assert(kRowsPerCopy % 2 == 0, "pairs of rows must not be cut");
  if (task.by_columns.data == nullptr && task.by_rows.data == nullptr) return;
  append_rows(jobs_, run_plain<PackTask, &Kernels::pack>, &task, task.rows, layer);
}
void JobList::encode(const Kernels& kernels, const EncodeTask& task, int rows, int layer) {
  const int panels = panel_count(task.outputs, kernels.panel_width);
  append_product(jobs_, run_with_workspace<EncodeTask, &Kernels::encode>, &task, rows,
                 rows_per_job(kernels, rows, panels), panels, layer);
}
void JobList::decode(const Kernels& kernels, const DecodeTask& task, int rows, int layer) {
  append_product(jobs_, run_with_workspace<DecodeTask, &Kernels::decode>, &task, rows, task.rows_per_block,
                 panel_count(task.outputs, kernels.panel_width), layer);
}
void JobList::backprop(const Kernels& kernels, const BackpropTask& task, int rows, int layer) {
  const int panels = panel_count(task.outputs, kernels.panel_width);
  append_product(jobs_, run_with_workspace<BackpropTask, &Kernels::backprop>, &task, rows,
                 rows_per_job(kernels, rows, panels), panels, layer);
}
void JobList::statistics(const Kernels& kernels, const StatisticsTask& task, int layer) {
  const int panels = panel_count(task.columns, kernels.panel_width);
  for (int p = 0; p < panels; ++p)
    jobs_.push_back({run_plain<StatisticsTask, &Kernels::statistics>, &task, {0, task.rows, p, p + 1}, layer});
}
void JobList::update(const Kernels& kernels, const UpdateTask& task, int layer) {
  const int panels = panel_count(task.outputs, kernels.panel_width);
  const int row_panels = panel_count(task.inputs, kernels.panel_width);
  const int pieces = std::min(row_panels, ceil_div(kWantedJobs, panels));
  const int rows = ceil_div(row_panels, pieces) * kernels.panel_width;
  for (int p = 0; p < panels; ++p)
    for (int r = 0; r < task.inputs; r += rows)
      jobs_.push_back({run_with_workspace<UpdateTask, &Kernels::update>,
                       &task,
                       {r, std::min(task.inputs, r + rows), p, p + 1},
                       layer});
}
void JobList::update_bias(const Kernels& kernels, const BiasTask& task, int layer) {
  const int panels = panel_count(task.columns, kernels.panel_width);
  for (int p = 0; p < panels; p += kBiasPanels)
    jobs_.push_back({run_plain<BiasTask, &Kernels::update_bias>,
                     &task,
                     {0, task.rows, p, std::min(panels, p + kBiasPanels)},
                     layer});
}
void JobList::head(const Kernels&, const HeadTask& task, int rows, int layer) {
  append_rows(jobs_, run_with_workspace<HeadTask, &Kernels::head>, &task, rows, layer);
}
void JobList::scatter(const Kernels&, const ScatterTask& task, int rows, int layer) {
  append_rows(jobs_, run_plain<ScatterTask, &Kernels::scatter>, &task, rows, layer);
}

void JobList::deal(int n_threads) {
  if (n_threads == 1) return;
  dealt_.clear();
  const auto threads = static_cast<std::ptrdiff_t>(n_threads);
  for (std::ptrdiff_t thread = 0; thread < threads; ++thread) {
    for (auto begin = jobs_.begin(); begin != jobs_.end();) {
      const void* task = begin->task;
      const auto end = std::find_if(begin, jobs_.end(), [task](const Job& job) { return job.task != task; });
      const std::ptrdiff_t n = end - begin;
      dealt_.insert(dealt_.end(), begin + n * thread / threads, begin + n * (thread + 1) / threads);
      begin = end;
    }
  }
  jobs_.swap(dealt_);
}

JobRunner::JobRunner(const Kernels& kernels, int n_threads, std::size_t n_layers, const Poll* poll)
    : kernels_(kernels),
      team_(n_threads),
      poll_(poll != nullptr && *poll ? poll : nullptr),
      n_layers_(n_layers),
      time_stride_((n_layers + 7) / 8 * 8 + 8),  // workers write to cache lines of their own
      layer_time_(static_cast<std::size_t>(team_.size()) * time_stride_, 0.0),
      timed_(n_layers > 1),
      start_(Clock::now()),
      last_poll_(start_) {
  for (int worker = 0; worker < team_.size(); ++worker) workspaces_.emplace_back(kernels.workspace_floats);
}

void JobRunner::poll_now() {
  last_poll_ = Clock::now();
  if ((*poll_)(fraction_)) stop_.store(true, std::memory_order_relaxed);
}

bool JobRunner::asked_to_stop(double fraction) {
  constexpr std::chrono::milliseconds kInterval(50);
  fraction_ = fraction;
  if (poll_ != nullptr && Clock::now() - last_poll_ > kInterval) poll_now();
  if (!stop_.exchange(false, std::memory_order_relaxed)) return false;
  poll_ = nullptr;  // the caller finishes what is on its way, undisturbed
  return true;
}

void JobRunner::run_task(void* self, int phase, int task, int worker) {
  JobRunner& runner = *static_cast<JobRunner*>(self);
  const Job& job = (*runner.phases_)[static_cast<std::size_t>(phase)].jobs()[static_cast<std::size_t>(task)];
  float* workspace = runner.workspaces_[static_cast<std::size_t>(worker)].data();
  // A tick longer than this is polled from inside, by the calling thread.
  constexpr std::chrono::milliseconds kLongTick(100);
  const FlushDenormals flush;
  if (!runner.timed_ && worker != 0) return job.run(runner.kernels_, job.task, job.range, workspace);
  const Clock::time_point begin = Clock::now();
  if (worker == 0 && runner.poll_ != nullptr && begin - runner.last_poll_ > kLongTick) runner.poll_now();
  job.run(runner.kernels_, job.task, job.range, workspace);
  if (runner.timed_)
    runner.layer_time_[static_cast<std::size_t>(worker) * runner.time_stride_ + static_cast<std::size_t>(job.layer)] +=
        std::chrono::duration<double>(Clock::now() - begin).count();
}

bool JobRunner::run(const std::vector<JobList>& phases, int first_uninterruptible, double fraction) {
  constexpr int kMostPhases = 64;
  int counts[kMostPhases];
  phases_ = &phases;
  fraction_ = fraction;
  // Deep networks are fine-tuned in more phases than fit into one call of the team.
  for (std::size_t done = 0; done < phases.size();) {
    const std::size_t n = std::min<std::size_t>(kMostPhases, phases.size() - done);
    for (std::size_t i = 0; i < n; ++i) counts[i] = static_cast<int>(phases[done + i].jobs().size());
    struct Shifted {
      JobRunner* runner;
      int offset;
    } shifted{this, static_cast<int>(done)};
    const auto run_shifted = [](void* s, int phase, int task, int worker) {
      const Shifted& call = *static_cast<Shifted*>(s);
      run_task(call.runner, phase + call.offset, task, worker);
    };
    const bool finished = team_.run(counts, static_cast<int>(n), run_shifted, &shifted, &stop_,
                                    first_uninterruptible - static_cast<int>(done));
    if (!finished) return false;
    done += n;
  }
  return true;
}

std::vector<double> JobRunner::seconds() const {
  const double wall = std::chrono::duration<double>(Clock::now() - start_).count();
  std::vector<double> shares(n_layers_, 0.0);
  double total = 0.0;
  for (std::size_t worker = 0; worker < workspaces_.size(); ++worker)
    for (std::size_t k = 0; k < n_layers_; ++k) {
      shares[k] += layer_time_[worker * time_stride_ + k];
      total += layer_time_[worker * time_stride_ + k];
    }
  if (n_layers_ == 1) return {wall};
  for (double& share : shares) share = total > 0.0 ? wall * share / total : 0.0;
  return shares;
}

}  // namespace gesda
