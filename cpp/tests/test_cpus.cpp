#include <sys/stat.h>
#include <unistd.h>

#include <climits>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <string>
#include <vector>

#ifdef __linux__
#include <sched.h>
#endif

#include "gesda/pool.hpp"
#include "harness.hpp"

namespace {

// A file tree as containers show it, under a temporary folder.
class FakeRoot {
 public:
  FakeRoot() {
    char name[] = "/tmp/gesda_cgroup_XXXXXX";
    path_ = mkdtemp(name);
  }
  ~FakeRoot() {
    for (auto it = made_.rbegin(); it != made_.rend(); ++it) std::remove(it->c_str());
    std::remove(path_.c_str());
  }
  FakeRoot(const FakeRoot&) = delete;
  FakeRoot& operator=(const FakeRoot&) = delete;

  void write(const std::string& file, const std::string& text) {
    for (std::size_t at = file.find('/', 1); at != std::string::npos; at = file.find('/', at + 1)) {
      if (mkdir((path_ + file.substr(0, at)).c_str(), 0700) == 0) made_.push_back(path_ + file.substr(0, at));
    }
    std::ofstream(path_ + file) << text;
    made_.push_back(path_ + file);
  }
  int threads() const { return gesda::detail::cgroup_threads(path_); }

 private:
  std::string path_;
  std::vector<std::string> made_;
};

}  // namespace

TEST(usable_threads_obey_a_cgroup_quota) {
  {
    FakeRoot root;
    CHECK(root.threads() == INT_MAX);  // no cgroups at all
    root.write("/proc/self/cgroup", "0::/a/b\n");
    CHECK(root.threads() == INT_MAX);
    root.write("/sys/fs/cgroup/a/b/cpu.max", "max 100000\n");
    CHECK(root.threads() == INT_MAX);
    root.write("/sys/fs/cgroup/a/cpu.max", "350000 100000\n");  // the group above counts too
    CHECK(root.threads() == 3);
  }
  {
    FakeRoot root;
    root.write("/proc/self/cgroup", "0::/outside/of/the/container\n");
    root.write("/sys/fs/cgroup/cpu.max", "50000 100000\n");
    CHECK(root.threads() == 1);  // half a CPU is still one thread
  }
  {
    FakeRoot root;
    root.write("/proc/self/cgroup", "7:memory:/x\n3:cpu,cpuacct:/docker/1\n0::/\n");
    root.write("/sys/fs/cgroup/cpu,cpuacct/docker/1/cpu.cfs_quota_us", "400000\n");
    root.write("/sys/fs/cgroup/cpu,cpuacct/docker/1/cpu.cfs_period_us", "100000\n");
    root.write("/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "-1\n");
    root.write("/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n");
    CHECK(root.threads() == 4);
  }
  {
    FakeRoot root;
    root.write("/proc/self/cgroup", "nonsense\n::\n0::\n1:cpu\n0::/a\n");
    root.write("/sys/fs/cgroup/a/cpu.max", "what?\n");
    CHECK(root.threads() == INT_MAX);
  }
}

#ifdef __linux__
TEST(usable_threads_obey_the_affinity_mask) {
  cpu_set_t before;
  if (sched_getaffinity(0, sizeof before, &before) != 0) SKIP("the affinity mask cannot be read here");
  CHECK(gesda::usable_threads() >= 1);
  CHECK(gesda::usable_threads() <= CPU_COUNT(&before));
  cpu_set_t one;
  CPU_ZERO(&one);
  for (std::size_t cpu = 0; CPU_COUNT(&one) == 0; ++cpu) {
    if (CPU_ISSET(cpu, &before)) CPU_SET(cpu, &one);
  }
  if (sched_setaffinity(0, sizeof one, &one) != 0) SKIP("the affinity mask cannot be set here");
  CHECK(gesda::usable_threads() == 1);
  CHECK(gesda::Team(2).size() == 2);  // who asks for more gets it
  sched_setaffinity(0, sizeof before, &before);
}
#endif
