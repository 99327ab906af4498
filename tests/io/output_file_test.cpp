#include <doctest/doctest.h>

#include <csignal>
#include <cstddef>
#include <fstream>
#include <iterator>
#include <string>
#include <string_view>
#include <thread>

#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "strata/core/output_file.hpp"
#include "strata/io/folder_lock.hpp"
#include "message_of.hpp"
#include "temporary_folder.hpp"

namespace st = strata;
namespace fs = std::filesystem;

namespace {

std::string bytes_of(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return std::string(std::istreambuf_iterator<char>(file), {});
}
std::size_t files_in(const fs::path& folder) {
  return std::size_t(std::distance(fs::directory_iterator(folder), fs::directory_iterator()));
}
unsigned mode_of(const fs::path& path) { return unsigned(fs::status(path).permissions()); }

/// The exit status of call() in a child process; or minus the signal that ended it.
int in_child(auto&& call) {
  const ::pid_t child = ::fork();
  if (child == 0) {
    try {
      call();
    } catch (...) {
      ::_exit(1);
    }
    ::_exit(0);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  return WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
}

}  // namespace

TEST_CASE("names of every length up to 255 bytes are written, and again with the one before kept") {
  const strata_test::TemporaryFolder folder;
  for (const std::size_t length : {1, 200, 233, 245, 246, 247, 248, 254, 255}) {
    const fs::path path = folder.path() / std::string(length, 'n');
    st::write_file(path, "first");
    st::AtomicFile file(path);
    file.write(std::as_bytes(std::span("second", 6)));
    file.commit(true);
    CHECK(bytes_of(path) == "second");
    CHECK(bytes_of(st::previous_path(path)) == "first");
    CHECK(files_in(folder.path()) == 2);
    fs::remove(path);
    fs::remove(st::previous_path(path));
  }
  CHECK(strata_test::message_of<st::FileError>([&] {
          st::write_file(folder.path() / std::string(256, 'n'), "");
        }).ends_with("File name too long"));
}

TEST_CASE("the permissions of the file before are kept, those of a new one are the process's") {
  const strata_test::TemporaryFolder folder;
  const fs::path path = folder.path() / "a";
  const ::mode_t before = ::umask(022);
  st::write_file(path, "1");
  CHECK(mode_of(path) == 0644);
  for (const unsigned mode : {0600u, 0444u, 0666u, 0755u, 0640u}) {
    fs::permissions(path, fs::perms(mode));
    st::write_file(path, "2");
    CHECK(mode_of(path) == mode);
  }
  ::umask(before);
}

TEST_CASE("nothing that lies in the way is followed, written to or removed") {
  const strata_test::TemporaryFolder folder;
  const fs::path path = folder.path() / "a", victim = folder.path() / "victim", partial = folder.path() / "a.partial";
  st::write_file(victim, "precious");
  fs::create_symlink(victim, partial);
  fs::create_directory(folder.path() / "a.partial1");
  REQUIRE(::mkfifo((folder.path() / "a.partial2").c_str(), 0600) == 0);
  st::write_file(path, "new");
  CHECK(bytes_of(path) == "new");
  CHECK(bytes_of(victim) == "precious");
  CHECK(fs::is_symlink(partial));
  CHECK(files_in(folder.path()) == 5);
  // A link under the name itself becomes a file, and what it named stays, whether it is there or not.
  const fs::path link = folder.path() / "link", dangling = folder.path() / "dangling";
  fs::create_symlink(victim, link);
  fs::create_symlink(folder.path() / "nowhere", dangling);
  for (const fs::path& at : {link, dangling}) {
    st::write_file(at, "mine");
    CHECK_FALSE(fs::is_symlink(at));
    CHECK(bytes_of(at) == "mine");
  }
  CHECK(bytes_of(victim) == "precious");
  CHECK_FALSE(fs::exists(folder.path() / "nowhere"));
}

TEST_CASE("pipes and devices get the bytes, through links too, whatever the order they are written in") {
  const strata_test::TemporaryFolder folder;
  const fs::path pipe = folder.path() / "pipe", link = folder.path() / "link";
  REQUIRE(::mkfifo(pipe.c_str(), 0600) == 0);
  fs::create_symlink(pipe, link);
  std::string got;
  std::thread reader([&] { got = bytes_of(pipe); });
  st::AtomicFile file(link);
  file.write(std::as_bytes(std::span("...lo", 5)));
  file.write_at(0, std::as_bytes(std::span("hel", 3)));
  file.commit(true);
  reader.join();
  CHECK(got == "hello");
  CHECK(fs::is_symlink(link));
  CHECK(files_in(folder.path()) == 2);
  CHECK_NOTHROW(st::write_file("/dev/null", "gone"));
  if (fs::exists("/dev/full"))
    CHECK(strata_test::message_of<st::FileError>([] { st::write_file("/dev/full", "x"); }) ==
          "/dev/full: cannot be written: No space left on device");
  // /dev/stdout that is a file: what is written goes behind what was, and the file stays the same one.
  const fs::path out = folder.path() / "out";
  CHECK(in_child([&] {
          if (::freopen(out.c_str(), "w", stdout) == nullptr) ::_exit(2);
          std::printf("before ");
          st::write_file("/dev/stdout", "between ");
          std::printf("behind");
          std::fflush(stdout);
        }) == 0);
  CHECK(bytes_of(out) == "before between behind");
}

TEST_CASE("an error says which file and why, and leaves the old file and nothing else") {
  const strata_test::TemporaryFolder folder;
  const fs::path path = folder.path() / "a";
  st::write_file(path, "old");
  CHECK(strata_test::message_of<st::FileError>([&] { st::write_file(folder.path() / "no" / "a", ""); }) ==
        (folder.path() / "no" / "a").string() + ": cannot be written: there is no folder " +
            (folder.path() / "no").string());
  CHECK(strata_test::message_of<st::FileError>([&] { st::write_file(path / "a", ""); }).ends_with("Not a directory"));
  CHECK(strata_test::message_of<st::FileError>([&] {
          st::write_file(folder.path(), "");
        }).ends_with("is a folder, wanted a file"));
  // A file that becomes too large, which is an error as a full disk is.
  CHECK(in_child([&] {
          const ::rlimit limit{1000, 1000};
          ::setrlimit(RLIMIT_FSIZE, &limit);
          std::signal(SIGXFSZ, SIG_IGN);
          const std::string said =
              strata_test::message_of<st::FileError>([&] { st::write_file(path, std::string(5000, 'x')); });
          ::_exit(said == path.string() + ": cannot be written: File too large" ? 0 : 1);
        }) == 0);
  CHECK(bytes_of(path) == "old");
  CHECK(files_in(folder.path()) == 1);
}

TEST_CASE("what a killed writer left goes with the next writing, what a living one has does not") {
  const strata_test::TemporaryFolder folder;
  const fs::path path = folder.path() / "a";
  CHECK(in_child([&] {
          st::AtomicFile file(path);
          file.write(std::as_bytes(std::span("half", 4)));
          ::raise(SIGKILL);
        }) == -SIGKILL);
  CHECK(files_in(folder.path()) == 1);
  st::AtomicFile slow(path);
  slow.write(std::as_bytes(std::span("slow", 4)));
  CHECK(files_in(folder.path()) == 1);
  st::write_file(path, "quick");
  CHECK(in_child([&] { st::write_file(path, "child"); }) == 0);
  CHECK(bytes_of(path) == "child");
  slow.commit();
  CHECK(bytes_of(path) == "slow");
  CHECK(files_in(folder.path()) == 1);
}

TEST_CASE("a folder's lock says who holds it, and goes with its holder") {
  const strata_test::TemporaryFolder folder;
  {
    const st::FolderLock lock(folder.path());
    CHECK(lock.held());
    const std::string said = strata_test::message_of<st::FileError>([&] { st::FolderLock other(folder.path()); });
    CAPTURE(said);
    CHECK(said.starts_with(folder.path().string() + ": another run works in this folder (process " +
                           std::to_string(::getpid()) + " on "));
    CHECK(said.find(" since 2") != std::string::npos);
    CHECK(in_child([&] { st::FolderLock other(folder.path()); }) == 1);
  }
  CHECK(files_in(folder.path()) == 0);
  CHECK(in_child([&] {
          const st::FolderLock lock(folder.path());
          ::raise(SIGKILL);
        }) == -SIGKILL);
  CHECK(files_in(folder.path()) == 1);
  CHECK(st::FolderLock(folder.path()).held());
  CHECK(files_in(folder.path()) == 0);
  // A child that was forked while the lock was held does not take it away when it ends.
  const st::FolderLock lock(folder.path());
  CHECK(in_child([&] { lock.~FolderLock(); }) == 0);
  CHECK(fs::exists(folder.path() / "run.lock"));
  CHECK(strata_test::message_of<st::FileError>([&] {
          st::FolderLock other(folder.path() / "no");
        }).ends_with("there is no such folder"));
  fs::create_directory(folder.path() / "planted");
  fs::create_symlink(folder.path() / "victim", folder.path() / "planted" / "run.lock");
  CHECK(strata_test::message_of<st::FileError>([&] {
          st::FolderLock other(folder.path() / "planted");
        }).find("run.lock: cannot be made") != std::string::npos);
  CHECK_FALSE(fs::exists(folder.path() / "victim"));
}
