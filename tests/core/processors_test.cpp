#include "strata/core/processors.hpp"
#include "strata/core/processor_counts.hpp"

#include <doctest/doctest.h>
#include <sys/stat.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <initializer_list>
#include <string>
#include <utility>

#include "child_process.hpp"
#include "temporary_folder.hpp"

namespace st = strata;

namespace {

constexpr double none = st::detail::no_quota;

/// A folder with files in it, in the place of "/".
class System {
 public:
  System(std::initializer_list<std::pair<std::string, std::string>> files) {
    for (const auto& [path, text] : files) write(path, text);
  }
  void write(const std::string& path, const std::string& text) {
    std::filesystem::create_directories((root_ / path).parent_path());
    std::ofstream(root_ / path, std::ios::binary) << text;
  }
  double quota() const { return st::detail::cgroup_quota(root_.path().string() + "/"); }

 private:
  strata_test::TemporaryFolder root_;
};

const std::string v2_mount = "30 24 0:27 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";
const std::string v1_mounts =
    "25 30 0:21 / /sys/fs/cgroup ro shared:9 - tmpfs tmpfs ro,mode=755\n"
    "33 25 0:30 / /sys/fs/cgroup/cpuset rw shared:12 - cgroup cgroup rw,cpuset\n"
    "36 25 0:33 / /sys/fs/cgroup/cpu,cpuacct rw shared:16 - cgroup cgroup rw,cpu,cpuacct\n";

}  // namespace

TEST_CASE("version 2: the smallest quota from the group up to the top of the mount") {
  const auto quota = [](const char* leaf, const char* middle, const char* top) {
    return System({{"proc/self/cgroup", "0::/user.slice/job.scope\n"},
                   {"proc/self/mountinfo", v2_mount},
                   {"sys/fs/cgroup/user.slice/job.scope/cpu.max", leaf},
                   {"sys/fs/cgroup/user.slice/cpu.max", middle},
                   {"sys/fs/cgroup/cpu.max", top}}).quota();
  };
  CHECK(quota("max 100000\n", "max 100000\n", "max 100000\n") == none);
  CHECK(quota("150000 100000\n", "max 100000\n", "max 100000\n") == 1.5);
  CHECK(quota("max 100000\n", "200000 50000\n", "max 100000\n") == 4);
  CHECK(quota("900000 100000\n", "800000 100000\n", "700000 100000\n") == 7);
}

TEST_CASE("version 1: the group of the cpu controller, and those above it") {
  const System system({{"proc/self/cgroup", "9:cpuset:/other\n4:cpu,cpuacct:/docker/ab\n1:name=systemd:/x\n0::/\n"},
                       {"proc/self/mountinfo", v1_mounts},
                       {"sys/fs/cgroup/cpuset/docker/ab/cpu.cfs_quota_us", "1000"},
                       {"sys/fs/cgroup/cpuset/docker/ab/cpu.cfs_period_us", "1000"},
                       {"sys/fs/cgroup/cpu,cpuacct/docker/ab/cpu.cfs_quota_us", "-1\n"},
                       {"sys/fs/cgroup/cpu,cpuacct/docker/ab/cpu.cfs_period_us", "100000\n"},
                       {"sys/fs/cgroup/cpu,cpuacct/docker/cpu.cfs_quota_us", "250000\n"},
                       {"sys/fs/cgroup/cpu,cpuacct/docker/cpu.cfs_period_us", "100000\n"}});
  CHECK(system.quota() == 2.5);
}

TEST_CASE("inside of containers: a mount of a part, names of the host, both versions, odd names") {
  const std::string part = "36 25 0:33 /docker/ab /sys/fs/cgroup rw - cgroup2 cgroup rw\n";
  const auto quota_at_mount = [&](const std::string& group, const std::string& mounts) {
    return System({{"proc/self/cgroup", group}, {"proc/self/mountinfo", mounts}, {"sys/fs/cgroup/cpu.max", "50000 100000"},
                   {"sys/fs/cgroup/in/cpu.max", "20000 100000"}}).quota();
  };
  CHECK(quota_at_mount("0::/docker/ab\n", part) == 0.5);
  CHECK(quota_at_mount("0::/docker/ab/in\n", part) == 0.2);
  CHECK(quota_at_mount("0::/docker/abc\n", part) == 0.5);       // not below /docker/ab
  CHECK(quota_at_mount("0::/kubepods/pod1\n", part) == 0.5);    // not shown at all
  CHECK(quota_at_mount("0::/../in\n", v2_mount) == 0.5);        // outside of the namespace
  CHECK(quota_at_mount("0::/\n", v2_mount) == 0.5);
  CHECK(quota_at_mount("0::/in\n", v2_mount + v1_mounts) == 0.2);
  CHECK(quota_at_mount("0::/in/not/there\n", v2_mount) == 0.2);

  const System blanks({{"proc/self/cgroup", "0::/my job\n"},
                       {"proc/self/mountinfo", "3 2 0:1 / /my\\040groups\\134 rw - cgroup2 none rw\n"},
                       {"my groups\\/my job/cpu.max", "300000 100000"}});
  CHECK(blanks.quota() == 3);
  const System both({{"proc/self/cgroup", "3:cpu:/a\n0::/b\n"},
                     {"proc/self/mountinfo", "1 1 0:1 / /one rw - cgroup none rw,cpu\n2 1 0:2 / /two rw - cgroup2 none rw\n"},
                     {"one/a/cpu.cfs_quota_us", "600"}, {"one/a/cpu.cfs_period_us", "100"}, {"two/b/cpu.max", "500 100"}});
  CHECK(both.quota() == 5);
}

TEST_CASE("what makes no sense in those files is no quota") {
  System v2({{"proc/self/cgroup", "0::/a\n"}, {"proc/self/mountinfo", v2_mount}});
  const auto v2_quota = [&](const std::string& text) {
    v2.write("sys/fs/cgroup/a/cpu.max", text);
    return v2.quota();
  };
  CHECK(v2_quota("150000 100000") == 1.5);
  CHECK(v2_quota("150000\n") == 1.5);  // the period's default
  for (const char* text : {"", "\n", " ", "max", "max 100000\n", "0 100000\n", "-5 100000\n", "100000 0\n", "100000 -1\n",
                           "max 0\n", "abc def\n", "1e3 100\n", "0x10 100000\n", "100000 max\n", "\n100 100\n"})
    CHECK_MESSAGE(v2_quota(text) == none, text);
  CHECK(v2_quota("99999999999999999999999999 100000\n") == none);
  CHECK(v2_quota("9223372036854775807 1\n") > 1e18);
  CHECK(v2_quota("100000 99999999999999999999999999\n") == none);
  CHECK(v2_quota(std::string("1000\0 1000", 10)) == none);
  CHECK(v2_quota(std::string(5000, '1')) == none);

  System v1({{"proc/self/cgroup", "7:cpu,cpuacct:/a\n"}, {"proc/self/mountinfo", v1_mounts}});
  const auto v1_quota = [&](const char* quota, const char* period) {
    v1.write("sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_quota_us", quota);
    v1.write("sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_period_us", period);
    return v1.quota();
  };
  CHECK(v1_quota("400000\n", "100000\n") == 4);
  for (const auto& [quota, period] : {std::pair<const char*, const char*>{"-1\n", "100000\n"}, {"0", "100000"}, {"", ""},
                                      {"100000", ""}, {"100000", "0"}, {"100000", "-100000"}, {"max", "100000"}})
    CHECK_MESSAGE(v1_quota(quota, period) == none, quota);
}

TEST_CASE("files that are missing, cut or odd") {
  CHECK(System({}).quota() == none);
  CHECK(System({{"proc/self/cgroup", "0::/a\n"}}).quota() == none);
  CHECK(System({{"proc/self/mountinfo", v2_mount}, {"sys/fs/cgroup/cpu.max", "1 1"}}).quota() == none);
  CHECK(System({{"proc/self/cgroup", "0::/a"}, {"proc/self/mountinfo", v2_mount}}).quota() == none);
  CHECK(System({{"proc/self/cgroup", "0::/a"}, {"proc/self/mountinfo", v2_mount}, {"sys/fs/cgroup/a/cpu.max/x", ""}})
            .quota() == none);  // a folder
  const std::string quota = "200000 100000\n";
  System cut({{"proc/self/cgroup", "0::/a\n"}, {"sys/fs/cgroup/a/cpu.max", quota}});
  for (std::size_t length = 0; length <= v2_mount.size(); ++length) {
    cut.write("proc/self/mountinfo", v2_mount.substr(0, length));
    const double got = cut.quota();
    CHECK((got == none || got == 2));
  }
  CHECK(cut.quota() == 2);
  cut.write("proc/self/mountinfo", "\n- -\n1 2 3\n - \n" + v1_mounts);
  for (const char* line : {"", "::", "0:", "0::", "0::a", ":::/", "0:cpu", "cpu:cpu:cpu", "\n\n", "0::/\n0::/a"}) {
    cut.write("proc/self/cgroup", line);
    CHECK(cut.quota() == none);
  }
  const std::string deep(100000, '/');
  CHECK(System({{"proc/self/cgroup", "0::" + deep + "\n"}, {"proc/self/mountinfo", v2_mount},
                {"sys/fs/cgroup/cpu.max", quota}}).quota() == 2);

  strata_test::TemporaryFolder folder;
  const std::string pipe = (folder / "pipe").string();
  REQUIRE(mkfifo(pipe.c_str(), 0600) == 0);
  CHECK(st::detail::beginning_of_file(pipe, 100).empty());  // and does not wait for a writer
  CHECK(st::detail::beginning_of_file("/dev/zero", 100).size() == 100);
}

TEST_CASE("masks of any length") {
  const auto with = [](std::size_t needed, int set) {
    return st::detail::affinity_processors([=](std::size_t bytes, unsigned long* mask) {
      if (bytes < needed) return errno = EINVAL, false;
      std::memset(mask, 0, bytes);
      for (int i = 0; i < set; ++i) reinterpret_cast<unsigned char*>(mask)[needed - 1 - std::size_t(i / 8)] |= 1u << (i % 8);
      return true;
    });
  };
  CHECK(with(8, 2) == 2);
  CHECK(with(128, 1024) == 1024);
  CHECK(with(1024, 3) == 3);     // 8192 processors
  CHECK(with(100000, 70) == 70);
  CHECK(with(std::size_t{1} << 30, 1) == 0);
  CHECK(st::detail::affinity_processors([](std::size_t, unsigned long*) { return errno = EPERM, false; }) == 0);
}

TEST_CASE("threads for a mask and a quota") {
  CHECK(st::detail::threads_for(8, none) == 8);
  CHECK(st::detail::threads_for(8, 1.5) == 2);
  CHECK(st::detail::threads_for(8, 2.0) == 2);
  CHECK(st::detail::threads_for(8, 0.01) == 1);
  CHECK(st::detail::threads_for(2, 1e18) == 2);
  CHECK(st::detail::threads_for(0, none) == 1);
  CHECK(st::detail::threads_for(8192, none) == 1024);
}

#if defined(__linux__)
TEST_CASE("a process that may use one processor") {
  CHECK(strata_test::in_child([] { return strata_test::allow_one_processor() && st::usable_processors() == 1 ? 0 : 1; }) == 0);
}
#endif
