#!/usr/bin/env bash
# Installs, with apt, what is missing of what Strata needs:
#
#     scripts/install_dependencies.sh           # to build the programs
#     scripts/install_dependencies.sh tests     # to build and run the tests and benchmarks too
#
# As root it installs; with sudo too. Otherwise it prints the command to run and fails. Nothing is done when all is there.
set -euo pipefail

packages=(g++ cmake ninja-build libstb-dev libcli11-dev)
if [[ "${1:-}" == tests ]]; then
  packages+=(doctest-dev libbenchmark-dev libprotozero-dev python3 strace libeigen3-dev libopencv-core-dev libopencv-imgcodecs-dev pkgconf)
  packages+=(libopenmpi-dev openmpi-bin libmpich-dev mpich)  # training by several processes, over each of the two
fi

# The headers are also read with clang 16 or newer, whichever version the system has.
has_new_clang() {
  local clang version
  for clang in clang++ clang++-{16..21}; do
    version=$("$clang" -dumpversion 2>/dev/null) || continue
    [[ "${version%%.*}" -ge 16 ]] && return 0
  done
  return 1
}
new_clang_package() {
  local version
  for version in {16..21}; do
    if apt-cache show "clang-$version" >/dev/null 2>&1; then
      echo "clang-$version"
      return
    fi
  done
  echo clang
}

if ! command -v apt-get >/dev/null; then
  echo "No apt-get here, so nothing is installed. What Debian calls it: ${packages[*]} clang-16" >&2
  exit 0  # CMake says what is missing
fi

missing=()
for package in "${packages[@]}"; do
  status=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)
  [[ "$status" == installed ]] || missing+=("$package")
done
want_clang=false
if [[ "${1:-}" == tests ]] && ! has_new_clang; then want_clang=true; fi
# The fuzzers want the runtime library of that clang's version, and one test its C++ library. Where the system has no such
# packages they are skipped.
if [[ "${1:-}" == tests && "$want_clang" == false ]]; then
  for clang in clang++ clang++-{16..21}; do
    version=$("$clang" -dumpversion 2>/dev/null) || continue
    version=${version%%.*}
    if [[ "$version" -ge 16 ]]; then
      for package in "libclang-rt-$version-dev" "libc++-$version-dev" "libc++abi-$version-dev"; do
        status=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)
        if [[ "$status" != installed ]] && apt-cache show "$package" >/dev/null 2>&1; then missing+=("$package"); fi
      done
      break
    fi
  done
fi
if [[ ${#missing[@]} -eq 0 && "$want_clang" == false ]]; then exit 0; fi

as_root=()
if [[ $(id -u) -ne 0 ]]; then
  if ! command -v sudo >/dev/null || ! sudo -v; then
    [[ "$want_clang" == false ]] || missing+=("$(new_clang_package)")
    echo "Strata needs packages that are not installed. As root, run:" >&2
    echo "  apt-get update && apt-get install -y --no-install-recommends ${missing[*]}" >&2
    exit 1
  fi
  as_root=(sudo)
fi
"${as_root[@]}" apt-get update -q
if [[ "$want_clang" == true ]]; then
  clang=$(new_clang_package)
  missing+=("$clang")
  version=${clang#clang-}
  [[ "$clang" == clang ]] || missing+=("libclang-rt-$version-dev" "libc++-$version-dev" "libc++abi-$version-dev")
fi
echo "Installing: ${missing[*]}"
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "${missing[@]}"
