#!/usr/bin/env python3
"""Checks the structure of include/strata by reading its files; nothing is compiled.

    layers.py include/strata       checks the headers
    layers.py --self-test          checks that each rule is enforced, on a small tree with every fault planted

A header may include its own folder and lower levels, and nothing else (the table LEVELS). Files are written by
core/output_file.hpp alone, whole or not at all; that holds for the examples beside include/ too. What is true of a layer stands
in the layer's file (nn/protocol.hpp): passes over a network name no layer and include none. A header starts with a comment that
says what it is, has '#pragma once', declares nothing in a plain 'namespace strata' (strata::any_build is for what all builds
share), and is reached from strata.hpp (or is one of the few in OPTIONAL and OPTIONAL_FOLDERS, which it must not reach).
What compiled.cpp compiles once (x_impl.hpp, the definitions of x.hpp) is included there, and elsewhere only behind #ifndef
STRATA_COMPILED.
Headers past 400 lines are listed, as a hint; they are no failure.
"""
import pathlib
import re
import sys
import tempfile

# Folder -> the folders whose headers it may include, besides its own.
LEVELS = ["core", "math", "tensor", "kernels", "cpu", "autograd", "nn", "optim"]
ALLOWED = {folder: LEVELS[:level] for level, folder in enumerate(LEVELS)}
ALLOWED["io"] = ALLOWED["deploy"] = LEVELS                # side by side: neither includes the other
ALLOWED["networks"] = LEVELS + ["deploy"]               # ready networks fold themselves
ALLOWED["data"] = ALLOWED["metrics"] = ["core", "tensor"]  # side branches: no network knows of them
ALLOWED["distributed"] = LEVELS + ["io", "data"]
# Single headers that a folder below or beside them may include: the first stands on core/ alone, the second keeps NIQE's model.
SINGLE = {"data": ["distributed/world.hpp"], "metrics": ["io/safetensors.hpp"]}
ALLOWED["interop"] = ["core", "tensor", "kernels", "autograd"]  # views for other libraries
ALLOWED["train"] = [*LEVELS, "io", "data", "metrics"]      # a run and its folder: above all of them
# The kernels of CUDA see single headers only, so that little passes through nvcc.
CUDA_ALLOWED = ["core/config.hpp", "core/error.hpp", "kernels/accelerator.hpp", "math/", "tensor/device.hpp",
                "tensor/storage.hpp", "distributed/communicator.hpp", "distributed/collectives.hpp", "distributed/device_ranks.hpp"]

# Headers from outside the project -> the folders that may include them. The standard library and <*intrin.h> are free.
THIRD_PARTY = {
    r"dlfcn\.h": ["cuda"],
    r"(stb/)?stb_": ["data"],
    r"sanitizer/": ["tensor"],
    r"mpi\.h": ["distributed"],
    r"protozero/": ["io"],
    r"opencv2/": ["interop"],
    r"(unsupported/)?Eigen/": ["interop", "metrics", "data"],
    r"(sys/\w+|unistd|fcntl|dirent|sched|pthread|malloc)\.h$": ["core", "tensor", "data", "io", "train", "distributed"],
}
STANDARD = r"[a-z_0-9]+$|([a-z0-9]+intrin|arm_neon|(limits|math|stdarg|stddef|stdint|stdio|stdlib|string|errno)\.h)"
CUDA = r"(cuda|nccl|cu(blas|dnn|fft|rand|solver|sparse)|nvrtc|nvml|device_launch_parameters|cooperative_groups|cub/|thrust/|mma\.h)"
WRITES = r"\b(std::(o|basic_o)?fstream|std::ofstream|fopen|freopen|creat|stbi_write_(png|jpg|bmp|tga|hdr))\b|\bO_CREAT\b"
WRITERS = ["core/output_file_impl.hpp", "io/folder_lock_impl.hpp"]
PASSES = ["nn", "deploy", "io"]      # in these folders all headers but the layers' own and losses
NAMES_LAYERS = ["deploy/layers.hpp", "nn/depthwise_conv2d.hpp"]  # they keep old names
LONG = 400
UMBRELLA = "strata.hpp"
# Included by themselves: they stand on a library that a program may not have, or are for few programs.
OPTIONAL = ["io/onnx_export.hpp", "io/optimizer_file.hpp", "nn/spectral_norm.hpp", "nn/sync_batch_norm.hpp", *(f"nn/losses/{loss}.hpp" for loss in (
    "adversarial", "host_loss", "nll", "perceptual", "segmentation", "similarity", "smoothness")),
    *(f"distributed/{name}.hpp" for name in ("data_parallel", "device_ranks", "device_sum", "lockstep", "mpi", "samples", "shard_states", "shard_sum", "state", "tree_sum")),
    "metrics/frechet.hpp", "metrics/niqe.hpp",
    *(f"data/{name}.hpp" for name in ("augment", "mixup", "weighted_sampler", "class_folder", "web_dataset", "lmdb", "whitening"))]
OPTIONAL_FOLDERS = ["interop", "networks", "train"]


def allowed_text(folder):
    return ", ".join(ALLOWED[folder]) or "nothing but the standard library"


def check_local(path, name, problem, root):
    """One #include "name" of the header `path` (relative to include/strata)."""
    if not name.startswith("strata/"):
        return problem(f'includes "{name}"; write "strata/<folder>/{name}"')
    target = name.removeprefix("strata/")
    if not (root / target).is_file():
        return problem(f'includes "{name}", which does not exist')
    folder, wanted = path.parts[0], pathlib.PurePath(target).parts[0]
    if target == "version.hpp":
        return None
    if len(path.parts) == 1:                              # strata.hpp, cuda.hpp
        if wanted == "cuda":
            return problem(f'includes "{name}": the headers beside strata.hpp are for host compilers')
        return None
    if wanted == folder:
        return None
    if folder == "cuda":
        if not any(target.startswith(prefix) for prefix in CUDA_ALLOWED):
            return problem(f'includes "{name}"; cuda/ may include {", ".join(CUDA_ALLOWED)}')
    elif wanted not in ALLOWED[folder] and target not in SINGLE.get(folder, []):
        return problem(f'includes "{name}"; {folder}/ may include its own folder and: {allowed_text(folder)}')
    return None


def check_system(path, name, problem):
    """One #include <name>."""
    folder = path.parts[0] if len(path.parts) > 1 else ""
    if re.match(CUDA, name):
        return None if folder == "cuda" else problem(f"includes <{name}>, a CUDA header, in a header for host compilers")
    if name.startswith("strata/"):
        return problem(f'includes <{name}>; write "{name}"')
    if re.match(STANDARD, name):
        return None
    for pattern, folders in THIRD_PARTY.items():
        if re.match(pattern, name):
            return None if folder in folders else problem(f"includes <{name}>, which is for {', '.join(folders)} only")
    return problem(f"includes <{name}>, which is not in the table THIRD_PARTY of {pathlib.Path(__file__).name}")


def code_of(text):
    """Without comments and strings."""
    return re.sub(r'//[^\n]*|"(\\.|[^"\\\n])*"', '""', text)


def layers_of(root):
    """{layer: the header in nn/ that defines it}. A header that says `is_leaf_layer = true` defines layers."""
    found = {}
    for file in sorted(root.glob("nn/*.hpp")):
        code = code_of(file.read_text())
        if "is_leaf_layer = true" in code:
            for name in re.findall(r"^class (\w+) (?:final )?: public", code, re.M):
                found[name] = f"nn/{file.name}"
    return found


def check_passes(path, text, layers, problem):
    if path.parts[0] not in PASSES or path.parts[:2] == ("nn", "losses") or str(path) in layers.values() or str(path) in NAMES_LAYERS:
        return
    for number, line in enumerate(text.splitlines(), 1):
        included = re.match(r'\s*#\s*include\s*"strata/(nn/\w+\.hpp)"', line)
        if included and included[1] in layers.values():
            problem(f"includes a layer, {included[1]}; a pass asks what layers say of themselves (nn/protocol.hpp)", number)
        for name in re.findall(r"(?<!math::)\b[A-Z]\w+", code_of(line)):
            if name in layers:
                problem(f"names the layer {name}; a pass asks what layers say of themselves (nn/protocol.hpp)", number)


def check(root):
    layers = layers_of(root)
    problems, long_files, includes = [], [], {}
    headers = sorted(p for p in root.rglob("*") if p.suffix in (".hpp", ".cuh"))
    for file in headers:
        path = file.relative_to(root)
        lines = file.read_text().splitlines()

        def problem(text, line=1):
            problems.append(f"include/strata/{path}:{line}: {text}")

        if len(path.parts) > 1 and path.parts[0] not in ALLOWED and path.parts[0] != "cuda":
            problem(f"the folder {path.parts[0]}/ has no level; give it one in the table LEVELS")
            continue
        if file.suffix == ".cuh" and path.parts[0] != "cuda":
            problem("a .cuh file belongs in cuda/")
        if not lines or not lines[0].startswith("// "):
            problem("wants an opening comment that says what it is")
        if "#pragma once" not in lines:
            problem("wants '#pragma once'")
        if len(lines) > LONG:
            long_files.append(f"include/strata/{path}: {len(lines)} lines")
        includes[str(path)] = set()
        check_passes(path, "\n".join(lines), layers, problem)
        for number, line in enumerate(lines, 1):
            if re.match(r"\s*namespace strata\b(?! \{ inline namespace STRATA_ABI \{|::any_build\b)", line):
                problem("wants 'namespace strata { inline namespace STRATA_ABI {', so that differently compiled units can link "
                        "(tags.py --fix writes it)", number)
            match = re.match(r'\s*#\s*include\s*(?:"([^"]+)"|<([^>]+)>)', line)
            if not match:
                continue
            if match[1]:
                if match[1].endswith("_impl.hpp") and lines[number - 2] != "#ifndef STRATA_COMPILED":
                    problem(f'includes "{match[1]}"; write #ifndef STRATA_COMPILED in the line before', number)
                includes[str(path)].add(match[1].removeprefix("strata/"))
                check_local(path, match[1], lambda text: problem(text, number), root)
            else:
                check_system(path, match[2], lambda text: problem(text, number))

    compiled = root / "compiled.cpp"
    listed = re.findall(r'(?m)^#include "strata/(.+)"$', compiled.read_text()) if compiled.is_file() else []
    for name in includes:
        if name.endswith("_impl.hpp") and name not in listed:
            problems.append(f"include/strata/{name}:1: is not included by compiled.cpp")

    examples = root.parent.parent / "examples"
    for file in headers + sorted(p for p in examples.rglob("*") if p.suffix in (".hpp", ".cpp")):
        path = file.relative_to(root if file.is_relative_to(root) else root.parent.parent)
        for number, line in enumerate(file.read_text().splitlines(), 1):
            if re.search(WRITES, line.split("//")[0]) and str(path) not in WRITERS:
                where = f"include/strata/{path}" if file.is_relative_to(root) else path
                problems.append(f"{where}:{number}: writes a file by itself; write_file or AtomicFile of core/output_file.hpp does")

    reached, waiting = set(), [UMBRELLA]
    while waiting:
        name = waiting.pop()
        if name not in reached:
            reached.add(name)
            waiting += includes.get(name, ())
    for name in sorted(reached):
        if name in OPTIONAL or name.split("/")[0] in OPTIONAL_FOLDERS:
            problems.append(f"include/strata/{UMBRELLA}:1: reaches strata/{name}, which is to be included by itself")
    for name in includes:
        folder = name.split("/")[0]
        if "/" in name and folder != "cuda" and "/detail/" not in name and name not in reached and name not in OPTIONAL \
                and folder not in OPTIONAL_FOLDERS:
            problems.append(f'include/strata/{UMBRELLA}:1: does not reach strata/{name}; add #include "strata/{name}"')
    return len(headers), problems, long_files


# Every rule, broken once: file -> (content, a part of the message it must cause; "" for none).
HEAD = "// What it is.\n#pragma once\n"
FAULTS = {
    "strata.hpp": (HEAD + '#include "strata/tensor/good.hpp"\n#include "strata/cuda/kernel.cuh"\n', "host compilers"),
    "core/good.hpp": (HEAD + "#include <vector>\n#include <immintrin.h>\n", ""),
    "tensor/good.hpp": (HEAD + '#include "strata/core/good.hpp"\nnamespace strata { inline namespace STRATA_ABI {}}\n', ""),
    "core/upward.hpp": (HEAD + '#include "strata/tensor/good.hpp"\n', "core/ may include its own folder and: nothing"),
    "data/sideways.hpp": (HEAD + '#include "strata/metrics/unreached.hpp"\n', "data/ may include"),
    "cpu/side_branch.hpp": (HEAD + '#include "strata/data/sideways.hpp"\n', "cpu/ may include"),
    "io/beside.hpp": (HEAD + '#include "strata/deploy/plain.hpp"\n', "io/ may include"),
    "deploy/plain.hpp": (HEAD + "namespace strata {}\n", "wants 'namespace strata { inline namespace STRATA_ABI {'"),
    "deploy/nested.hpp": (HEAD + "namespace strata::inline STRATA_ABI {}\n", "tags.py --fix"),
    "metrics/unreached.hpp": (HEAD, "does not reach strata/metrics/unreached.hpp"),
    "nn/cuda.hpp": (HEAD + "#include <cuda_runtime.h>\n", "<cuda_runtime.h>, a CUDA header"),
    "nn/stb.hpp": (HEAD + "#include <stb/stb_image.h>\n", "<stb/stb_image.h>, which is for data only"),
    "nn/unknown.hpp": (HEAD + "#include <boost/any.hpp>\n", "<boost/any.hpp>, which is not in the table"),
    "nn/short_name.hpp": (HEAD + '#include "stb.hpp"\n', 'write "strata/<folder>/stb.hpp"'),
    "nn/angled.hpp": (HEAD + "#include <strata/core/good.hpp>\n", 'write "strata/core/good.hpp"'),
    "nn/missing.hpp": (HEAD + '#include "strata/nn/absent.hpp"\n', "which does not exist"),
    "nn/twice.hpp": ("// What it is.\n", "wants '#pragma once'"),
    "data/writer.hpp": (HEAD + "std::ofstream file;\n", "writes a file by itself"),
    "data/commenter.hpp": (HEAD + "int x;  // no std::ofstream\n", ""),
    "io/apart_impl.hpp": (HEAD, "is not included by compiled.cpp"),
    "io/apart.hpp": (HEAD + '#include "strata/io/apart_impl.hpp"\n', "write #ifndef STRATA_COMPILED"),
    "nn/mute.hpp": ("#pragma once\n", "wants an opening comment"),
    "stray/file.hpp": (HEAD, "stray/ has no level"),
    "cuda/kernel.cuh": (HEAD + "#include <cuda_runtime.h>\n", ""),
    "io/onnx_export.hpp": (HEAD + "#include <protozero/pbf_writer.hpp>\n", ""),
    "nn/layer.hpp": (HEAD + "class Sharpen : public Layer<Sharpen> {\n  static constexpr bool is_leaf_layer = true;\n};\n", ""),
    "nn/other_layer.hpp": (HEAD + "class Blur : public Layer<Blur> {\n  static constexpr bool is_leaf_layer = true, as = Sharpen::x;\n};\n", ""),
    "deploy/namer.hpp": (HEAD + "// Sharpen\nconst char* x = \"Sharpen\"; math::Sharpen y;\nbool z = is_same<M, Sharpen>;\n", "names the layer Sharpen"),
    "nn/includer.hpp": (HEAD + '#include "strata/nn/layer.hpp"\n', "includes a layer, nn/layer.hpp"),
    "interop/opencv.hpp": (HEAD + "#include <opencv2/core.hpp>\n", ""),
    "tensor/eigen.hpp": (HEAD + "#include <Eigen/Core>\n", "which is for interop, metrics, data only"),
    "nn/protozero.hpp": (HEAD + "#include <protozero/pbf_writer.hpp>\n", "which is for io only"),
    "cuda/heavy.cuh": (HEAD + '#include "strata/tensor/good.hpp"\n', "cuda/ may include core/config.hpp"),
}


def self_test():
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder)
        for name, (content, _) in FAULTS.items():
            (root / name).parent.mkdir(exist_ok=True)
            (root / name).write_text(content)
        (root / "nn/long.hpp").write_text(HEAD + "\n" * LONG)
        _, problems, long_files = check(root)
    failures = 0
    for name, (_, wanted) in FAULTS.items():
        own = [p for p in problems if p.startswith(f"include/strata/{name}:") and "does not reach" not in p]
        if wanted.startswith("does not reach"):
            own = [p for p in problems if p.endswith(f'"strata/{name}"')]
        if len(own) != bool(wanted) or not all(wanted in p for p in own):
            print(f"self-test: {name}: wanted {[wanted] if wanted else []}, got {own}")
            failures += 1
    if len(long_files) != 1:
        print(f"self-test: wanted the one long file listed, got {long_files}")
        failures += 1
    print(f"self-test: {len(FAULTS) + 1} cases, {failures} failures")
    return failures


def main():
    if sys.argv[1:] == ["--self-test"]:
        return 1 if self_test() else 0
    if len(sys.argv) != 2:
        print(__doc__)
        return 2
    count, problems, long_files = check(pathlib.Path(sys.argv[1]))
    for text in problems:
        print(text)
    for text in long_files:
        print(f"hint: {text}: does it do two jobs?")
    print(f"{count} headers, {len(problems)} problems")
    return 1 if problems or count == 0 else 0


if __name__ == "__main__":
    sys.exit(main())
