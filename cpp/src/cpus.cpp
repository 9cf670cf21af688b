// How many threads it makes sense to run: see usable_threads() in pool.hpp.
#include <algorithm>
#include <atomic>
#include <climits>
#include <fstream>
#include <sstream>
#include <string>
#include <thread>

#include "gesda/pool.hpp"

#ifdef __linux__
#include <sched.h>
#endif

namespace gesda {

namespace {

// Whole CPUs in a quota of so many microseconds of CPU time a period. Rounded down: threads that wait for one another
// at every barrier all stand still when the quota runs out before the period does.
int whole_cpus(double quota, double period) {
  if (!(quota > 0) || !(period > 0)) return INT_MAX;
  return static_cast<int>(std::clamp(quota / period, 1.0, 1e6));
}

// v2: "max 100000" or "150000 100000".
int read_v2(const std::string& folder) {
  std::ifstream file(folder + "/cpu.max");
  double quota = 0, period = 0;
  return file >> quota >> period ? whole_cpus(quota, period) : INT_MAX;
}

// v1: two files; a quota of -1 means none.
int read_v1(const std::string& folder) {
  std::ifstream quota_file(folder + "/cpu.cfs_quota_us");
  std::ifstream period_file(folder + "/cpu.cfs_period_us");
  double quota = 0, period = 0;
  return quota_file >> quota && period_file >> period ? whole_cpus(quota, period) : INT_MAX;
}

// The least of a group and all groups above it. Inside a container `path` may be the host's and not exist; then what is
// left is the mount's own root, which is the container's group.
int least_upwards(const std::string& mount, std::string path, int (*read)(const std::string&)) {
  int least = INT_MAX;
  while (!path.empty() && path != "/") {
    least = std::min(least, read(mount + path));
    path.erase(path.find_last_of('/'));
  }
  return std::min(least, read(mount));
}

#ifdef __linux__
int affinity_threads() {
  for (std::size_t n_cpus = 1024; n_cpus <= (1U << 20); n_cpus *= 4) {  // the kernel refuses a mask that is too short
    cpu_set_t* set = CPU_ALLOC(n_cpus);
    if (set == nullptr) break;
    const std::size_t n_bytes = CPU_ALLOC_SIZE(n_cpus);
    const int count = sched_getaffinity(0, n_bytes, set) == 0 ? CPU_COUNT_S(n_bytes, set) : 0;
    CPU_FREE(set);
    if (count > 0) return count;
  }
  return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}
#else
int affinity_threads() { return std::max(1, static_cast<int>(std::thread::hardware_concurrency())); }
#endif

}  // namespace

// Reads lines "id:controllers:path": v2 has the id 0 and no controllers.
int detail::cgroup_threads(const std::string& root) {
  int least = INT_MAX;
  std::ifstream groups(root + "/proc/self/cgroup");
  for (std::string line; std::getline(groups, line);) {
    const std::size_t first = line.find(':');
    const std::size_t second = first == std::string::npos ? first : line.find(':', first + 1);
    if (second == std::string::npos || second + 1 >= line.size() || line[second + 1] != '/') continue;
    const std::string path = line.substr(second + 1);
    if (line.compare(0, second, "0:") == 0) {
      for (const char* mount : {"/sys/fs/cgroup", "/sys/fs/cgroup/unified"}) {
        least = std::min(least, least_upwards(root + mount, path, read_v2));
      }
      continue;
    }
    std::istringstream controllers(line.substr(first + 1, second - first - 1));
    for (std::string name; std::getline(controllers, name, ',');) {
      if (name != "cpu") continue;
      for (const char* mount : {"/sys/fs/cgroup/cpu", "/sys/fs/cgroup/cpu,cpuacct"}) {
        least = std::min(least, least_upwards(root + mount, path, read_v1));
      }
    }
  }
  return least;
}

int usable_threads() {
  static std::atomic<int> quota{0};  // 0: not read yet
  int n = quota.load(std::memory_order_relaxed);
  if (n == 0) {
    n = detail::cgroup_threads("");
    quota.store(n, std::memory_order_relaxed);
  }
  return std::min(affinity_threads(), n);
}

}  // namespace gesda
