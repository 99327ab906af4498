"""Runs the DnCNN programs and looks at what they leave behind.

    dncnn.py resume|bad_input|devices|denoise|published FOLDER_OF_THE_PROGRAMS

Python's standard library only. Exits with 77, which CTest shows as skipped, where data is missing.
"""
import json
import os
import pathlib
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
import zlib

PROGRAMS = pathlib.Path(sys.argv[2])
SMALL = {"--train-dir": "dead-leaves", "--valid-dir": "dead-leaves", "--depth": 8, "--width": 32, "--batch-size": 4,
         "--patch-size": 24, "--steps-per-epoch": 6, "--seed": 3, "--epochs": 1}


def training(**options):
    """The command of a small training run; training(batch_size=0) sets --batch-size, resume=None gives it no value."""
    chosen = SMALL | {"--" + name.replace("_", "-"): value for name, value in options.items()}
    return ["dncnn_train", *(str(part) for pair in chosen.items() for part in pair if part is not None)]


def run(name, *args):
    return subprocess.run([PROGRAMS / name, *map(str, args)], capture_output=True, text=True)


def check(condition, text):
    if not condition:
        sys.exit("FAILED: " + text)


def tensors(path):
    """name -> bytes of every tensor of a safetensors file."""
    data = pathlib.Path(path).read_bytes()
    length, = struct.unpack("<Q", data[:8])
    header = json.loads(data[8:8 + length])
    start = 8 + length
    return {name: data[start + entry["data_offsets"][0]:start + entry["data_offsets"][1]]
            for name, entry in header.items() if name != "__metadata__"}


def write_png(path, width, height, channels):
    """A smooth picture, by the standard library."""
    rows = b"".join(b"\0" + bytes((x * 3 + y * 2 + 40 * c) % 256 for x in range(width) for c in range(channels))
                    for y in range(height))

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2 if channels == 3 else 0, 0, 0, 0)
    pathlib.Path(path).write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) +
                                   chunk(b"IEND", b""))


def resume(folder):
    """Stopping, in any way and at any step, and resuming gives the bytes of a run that never stopped."""
    for optimizer in ("adam", "sgd"):
        recipe = {"optimizer": optimizer, "momentum": 0.9, "weight_decay": 1e-4, "milestones": 1, "epochs": 3,
                  "init_lr": 0.001}
        whole = folder / f"whole_{optimizer}"
        done = run(*training(**recipe, checkpoint_dir=whole, num_workers=1, threads=1))
        check(done.returncode == 0, f"training: {done.stderr}")
        expected = tensors(whole / "latest.safetensors")

        # Killed without warning after some checkpoint, and once stopped politely; other workers and threads each time.
        recipe["checkpoint_dir"] = folder / f"broken_{optimizer}"
        latest = recipe["checkpoint_dir"] / "latest.safetensors"
        for workers, threads, stop in ((4, 2, signal.SIGKILL), (0, 1, signal.SIGINT), (2, 3, signal.SIGKILL)):
            before = latest.stat().st_mtime_ns if latest.exists() else 0
            command = training(**recipe, num_workers=workers, threads=threads, save_interval=1)
            process = subprocess.Popen([PROGRAMS / command[0], *command[1:]], stdout=subprocess.DEVNULL,
                                       stderr=subprocess.DEVNULL)
            while process.poll() is None and (not latest.exists() or latest.stat().st_mtime_ns == before):
                time.sleep(0.002)
            process.send_signal(stop)
            code = process.wait()
            check(code in (0, -stop, 130), f"a stopped run ended with {code}")
            recipe["resume"] = None
        done = run(*training(**recipe, threads=2))
        check(done.returncode == 0, f"resuming: {done.stderr}")
        got = tensors(latest)
        check(expected.keys() == got.keys(), f"{optimizer}: other tensors after resuming")
        different = [name for name in expected if expected[name] != got[name]]
        check(not different, f"{optimizer}: {len(different)} tensors differ after resuming, as {different[:3]}")


def bad_input(folder):
    """Every mistake ends in a clear line and a code that is not 0, and damages nothing."""
    good = folder / "good"
    check(run(*training(checkpoint_dir=good)).returncode == 0, "training")
    weights = good / "latest.safetensors"
    kept = weights.read_bytes()

    images = folder / "images"
    images.mkdir()
    write_png(images / "a.png", 64, 48, 1)

    def images_with(name, data):
        other = folder / f"with_{name}"
        shutil.copytree(images, other)
        (other / name).write_bytes(data)
        return other

    png = (images / "a.png").read_bytes()
    empty = folder / "empty"
    empty.mkdir()
    small = folder / "small"
    small.mkdir()
    write_png(small / "tiny.png", 10, 10, 1)
    huge = png[:16] + struct.pack(">II", 1 << 24, 1 << 24) + png[24:29]
    huge += struct.pack(">I", zlib.crc32(huge[12:29])) + png[33:]
    cut = folder / "cut.safetensors"
    cut.write_bytes(kept[:len(kept) // 2])
    other_net = folder / "other"
    check(run(*training(width=64, checkpoint_dir=other_net)).returncode == 0,
          "training the other network")

    def train(**options):
        return training(**{"epochs": 2, "checkpoint_dir": folder / "new"} | options)

    # What is run, and a word the error must have.
    mistakes = [
        (train(train_dir=folder / "nowhere"), "nowhere"),
        (train(train_dir=empty), "empty"),
        (train(train_dir=images_with("broken.png", b"not an image")), "broken.png"),
        (train(train_dir=images_with("zero.png", b"")), "zero.png"),
        (train(train_dir=images_with("half.png", png[:len(png) // 2])), "half.png"),
        (train(train_dir=images_with("huge.png", huge)), "huge.png"),
        (train(train_dir=small), "tiny.png"),
        (train(batch_size="0"), "batch-size"),
        (train(depth="9"), "depth"),
        (train(sigma="-1"), "sigma"),
        (train(optimizer="sgd", momentum="2"), "momentum"),
        (train(milestones="5,3"), "milestones"),
        (train(resume=folder / "nothing.safetensors"), "nothing.safetensors"),
        (train(resume=cut), "cut.safetensors"),
        (train(checkpoint_dir=good), "--resume"),  # would overwrite
        (train(checkpoint_dir=good, resume=other_net / "latest.safetensors"), "does not fit"),
        (("dncnn_test", "--weights", cut, "--data", images), "cut.safetensors"),
        (("dncnn_test", "--weights", images / "a.png", "--data", images), "a.png"),
        (("dncnn_test", "--weights", weights, "--data", empty), "empty"),
        (("dncnn_denoise", "--weights", weights, images / "none.png", folder / "out.png"), "none.png"),
        (("dncnn_denoise", "--weights", weights, images / "a.png", folder / "no" / "folder" / "out.png"), "out.png"),
    ]
    for command, word in mistakes:
        done = run(*command)
        said = done.stderr + done.stdout
        line = " ".join(map(str, command))
        check(done.returncode > 0, f"no error ({done.returncode}) from: {line}\n{said}")
        check(word in said, f"'{word}' is not in what was said:\n{said}\nby: {line}")
        check("terminate called" not in said, f"not caught: {line}\n{said}")
        check(weights.read_bytes() == kept, f"the checkpoint was changed by: {line}")



def devices(folder):
    """A device that is not there: one line that says what is missing, and its own code. The CPU trains all the same."""
    done = run(*training(device="cpu", checkpoint_dir=folder / "net"))
    check(done.returncode == 0 and "best PSNR" in done.stdout, f"training on the cpu: {done.stderr}")
    weights = folder / "net" / "latest.safetensors"
    images = folder / "images"
    images.mkdir()
    write_png(images / "a.png", 64, 48, 1)
    reasons = ("built without CUDA", "no NVIDIA driver", "the NVIDIA driver serves CUDA", "no NVIDIA device", "without code for its compute capability")
    for command in (training(device="cuda", checkpoint_dir=folder / "other"), training(device="cuda", precision="fp16", checkpoint_dir=folder / "half"),
                    ("dncnn_test", "--weights", weights, "--data", images, "--device", "cuda"),
                    ("dncnn_denoise", "--weights", weights, images / "a.png", folder / "out.png", "--device", "cuda")):
        done = run(*command)
        if done.returncode == 0:
            print(f"{command[0]} ran on a device")
            continue
        check(done.returncode == 3, f"{done.returncode} for a missing device: {done.stderr}")
        check(done.stderr.count("\n") == 1 and done.stderr.startswith(f"{command[0]}: cuda:0: "), f"a missing device: {done.stderr}")
        check(any(reason in done.stderr for reason in reasons), f"no reason: {done.stderr}")
        print(done.stderr, end="")
    done = run(*training(device="cuda:99", checkpoint_dir=folder / "other"))
    check(done.returncode == 3 and "cuda:99: " in done.stderr, f"a device of a high number: {done.stderr}")
    done = run(*training(device="gpu", checkpoint_dir=folder / "other"))
    check(done.returncode == 1 and "wanted cpu, cuda or cuda:N" in done.stderr, f"an unknown device: {done.stderr}")
    done = run(*training(precision="fp16", checkpoint_dir=folder / "cpu_half"))
    check(done.returncode == 1 and "fp32" in done.stderr, f"fp16 on the cpu: {done.stderr}")


def denoise(folder):
    """Files and folders, grey and colour; and a training on files of mixed kinds."""
    check(run(*training(checkpoint_dir=folder / "net")).returncode == 0, "training")
    for name in ("before_after.png", "curve.svg", "log.csv", "best.safetensors"):
        check((folder / "net" / name).stat().st_size > 0, f"{name} was not written")
    weights = folder / "net" / "best.safetensors"
    images = folder / "images"
    images.mkdir()
    write_png(images / "grey.png", 37, 29, 1)
    write_png(images / "colour.png", 31, 33, 3)
    done = run("dncnn_denoise", "--weights", weights, images / "grey.png", folder / "one.png")
    check(done.returncode == 0 and (folder / "one.png").exists(), f"a grey picture: {done.stderr}")
    done = run("dncnn_denoise", "--weights", weights, images, folder / "all")
    check(done.returncode == 0, f"a folder: {done.stderr}")
    check("each channel" in done.stdout, "colour through a grey network is not mentioned")
    for name, channels in (("grey.png", 0), ("colour.png", 2)):
        png = (folder / "all" / name).read_bytes()
        check(png[16:24] == (images / name).read_bytes()[16:24], f"{name}: other size")
        check(png[25] == channels, f"{name}: other kind of picture")
    done = run(*training(train_dir=images, checkpoint_dir=folder / "mixed"))
    check(done.returncode == 0, f"training on grey and colour files: {done.stderr}")


def published(folder):
    """The published weights give the published PSNR on Set12, from PyTorch's own file and from safetensors."""
    root = os.environ.get("STRATA_TEST_DATA", "")
    if not root or not pathlib.Path(root, "data", "Set12").is_dir() or not pathlib.Path(root, "weights").is_dir():
        print("skipped: the research data (STRATA_TEST_DATA) is not here")
        sys.exit(77)
    for name, psnr in (("merged.pth", 30.438), ("merged.safetensors", 30.438), ("bn.safetensors", 30.456)):
        done = run("dncnn_test", "--weights", f"{root}/weights/dncnn_gray_sigma25_{name}", "--data",
                   f"{root}/data/Set12", "--sigma", "25", "--noise", "numpy", "--rounding", "none")
        check(done.returncode == 0, done.stderr)
        words = done.stdout.splitlines()[-1].split()
        check(words[0] == "mean" and words[-1] == "12", f"last line: {words}")
        check(abs(float(words[2]) - psnr) <= 0.003, f"{name}: {words[2]} dB, published {psnr}")


with tempfile.TemporaryDirectory() as temporary:
    {"resume": resume, "bad_input": bad_input, "devices": devices, "denoise": denoise, "published": published}[sys.argv[1]](
        pathlib.Path(temporary))
