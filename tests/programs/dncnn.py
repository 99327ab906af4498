"""Runs the DnCNN programs and looks at what they leave behind.

    dncnn.py resume|stopping|going_on|diverging|bad_input|devices|denoise|published FOLDER_OF_THE_PROGRAMS

Python's standard library only. Exits with 77, which CTest shows as skipped, where data is missing.
"""
import array
import json
import math
import os
import pathlib
import resource
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


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def write_png(path, width, height, channels, bits=8, more=b""):
    """A smooth picture, by the standard library; `more` are whole chunks."""
    rows = b"".join(b"\0" + b"".join(bytes([(x * 3 + y * 2 + 40 * c) % 256] * (bits // 8)) for x in range(width) for c in range(channels))
                    for y in range(height))
    header = struct.pack(">IIBBBBB", width, height, bits, {1: 0, 2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    pathlib.Path(path).write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + more + chunk(b"IDAT", zlib.compress(rows)) +
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


def start(command, folder, **how):
    """Starts a training run, and waits until it works in its folder."""
    process = subprocess.Popen([PROGRAMS / command[0], *command[1:]], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **how)
    while process.poll() is None and not (folder / "run.lock").exists():
        time.sleep(0.002)
    return process


def configuration(folder):
    """A run's config.toml makes the same run again; what the command line says, by its flags or --set, counts more."""
    first, again, other = folder / 'a "b"', folder / "again", folder / "other"
    done = run(*training(milestones="1,2", optimizer="sgd", checkpoint_dir=first, threads=1))
    check(done.returncode == 0, done.stderr)
    config = (first / "config.toml").read_text()
    for line in ('train-dir = "dead-leaves"', "depth = 8", "milestones = [1,2]", 'optimizer = "sgd"', "init-lr = 0.1", 'precision = "fp32"'):
        check(line in config.splitlines() or line.replace("= 0.1", '= "0.1"') in config.splitlines(), f"config.toml has no line {line}:\n{config}")
    done = run("dncnn_train", "--config", first / "config.toml", "--checkpoint-dir", again, "--threads", 1)
    check(done.returncode == 0, done.stderr)
    check(tensors(again / "latest.safetensors") == tensors(first / "latest.safetensors"), "the same options, other weights")
    check((again / "config.toml").read_text() == config, "another config.toml")
    done = run("dncnn_train", "--config", first / "config.toml", "--set", "seed=4", "--set=batch-size=2", "--patch-size", 16,
               "--set", f"checkpoint-dir={other}", "--threads", 1)
    check(done.returncode == 0, done.stderr)
    for line in ("seed = 4", "batch-size = 2", "patch-size = 16", "depth = 8"):
        check(line in (other / "config.toml").read_text().splitlines(), f"--set or a flag is lost: {line}")
    (folder / "wrong.toml").write_text("depht = 8\n")
    (folder / "value.toml").write_text("depth = 9\n")
    for words, reason in ((("--config", folder / "wrong.toml"), "depht"), (("--config", folder / "value.toml"), "9"),
                          (("--config", folder / "none.toml"), "none.toml"), (("--set", "depth"), "NAME=VALUE"), (("--set",), "NAME=VALUE"),
                          (("--set", "depht=8"), "depht"), (("--set", "--depth=8"), "NAME=VALUE"), (("--set=depth=7",), "7")):
        done = run("dncnn_train", *words, "--checkpoint-dir", folder / "no")
        check(done.returncode != 0 and reason in done.stderr and not (folder / "no").exists(), f"{words}: {done.returncode} {done.stderr}")
    done = run("dncnn_train", "--help")
    check(done.returncode == 0 and "--config" in done.stdout and "--set" in done.stdout and "dncnn_train" in done.stdout, done.stdout)


def stopping(folder):
    """Asked to stop in any polite way, a run saves its state before all else; two at a time do not work in one folder."""
    images = folder / "images"
    images.mkdir()
    write_png(images / "a.png", 128, 128, 1)
    here = {"train_dir": images, "valid_dir": images, "threads": 1}
    long = here | {"steps_per_epoch": 100000, "save_interval": 0}
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        out = folder / number.name
        process = start(training(**long, checkpoint_dir=out), out)
        process.send_signal(number)
        said, errors = process.communicate()
        check(process.returncode == 128 + number, f"{number.name} ended it with {process.returncode}: {errors}")
        check("go on with" in said and (out / "latest.safetensors").exists(), f"{number.name}: nothing was saved: {said}")
        check(sorted(path.name for path in out.iterdir()) == ["before_after.png", "config.toml", "latest.safetensors"], f"{number.name}: left {list(out.iterdir())}")
    out = folder / "picture"
    (out / "before_after.png").mkdir(parents=True)
    process = start(training(**long, checkpoint_dir=out), out)
    process.send_signal(signal.SIGTERM)
    said, errors = process.communicate()
    check((out / "latest.safetensors").exists(), "a picture that cannot be written costs the checkpoint")
    check(process.returncode == 143 and "before_after.png: is a folder" in errors, f"{process.returncode}: {errors}")

    out = folder / "nohup"  # whose terminal may end
    process = start(training(**here, checkpoint_dir=out), out, preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    process.send_signal(signal.SIGHUP)
    said, errors = process.communicate()
    check(process.returncode == 0, f"under nohup SIGHUP ended it with {process.returncode}: {errors}")

    out = folder / "unread"  # as when tee ends at Ctrl-C, before the run has saved its state
    process = start(training(**here | {"steps_per_epoch": 2, "epochs": 100000}, checkpoint_dir=out), out)
    process.stdout.close()
    process.wait()
    check(process.returncode == 128 + signal.SIGPIPE, f"without a reader it ended with {process.returncode}")
    check((out / "latest.safetensors").exists(), "without a reader nothing was saved")

    out = folder / "full"  # as a disk that is
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100000, 100000))
    done = subprocess.run([PROGRAMS / part if i == 0 else part for i, part in enumerate(training(**here, checkpoint_dir=out))],
                          capture_output=True, text=True, preexec_fn=limit)
    check(done.returncode == 1 and done.stderr == f"dncnn_train: {out}/latest.safetensors: cannot be written: File too large\n",
          f"a full disk: {done.returncode}: {done.stderr}")
    check([path.name for path in out.iterdir()] == ["config.toml"], f"a full disk: left {list(out.iterdir())}")
    done = run(*training(**here, checkpoint_dir=out, resume=None))
    check(done.returncode == 0, f"after a full disk: {done.stderr}")

    out = folder / "twice"
    process = start(training(**here, batch_size=64, patch_size=128, depth=17, width=64, checkpoint_dir=out), out)
    time.sleep(1)  # it is in its first step then, which takes many seconds
    process.send_signal(signal.SIGINT)
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    process.communicate()
    check(process.returncode == -signal.SIGINT, f"a second Ctrl-C ended it with {process.returncode}")

    out = folder / "shared"
    process = start(training(**long, checkpoint_dir=out), out)
    for resume in ({}, {"resume": None}):
        done = run(*training(**here, checkpoint_dir=out, **resume))
        check(done.returncode == 1 and f"another run works in this folder (process {process.pid} on " in done.stderr, f"two runs in a folder: {done.stderr}")
    process.kill()
    process.communicate()
    done = run(*training(**here, checkpoint_dir=out, resume=None))
    check(done.returncode == 0 and "starts at its beginning" in done.stdout, f"after a kill: {done.stdout}{done.stderr}")


def log(out):
    """The lines of log.csv as lists of numbers."""
    return [[float(number) for number in line.split(",")] for line in (out / "log.csv").read_text().splitlines()[1:]]


def going_on(folder):
    """A resumed run keeps its options unless they are given, and what is said of new ones, and of the best, is so."""
    images = folder / "images"
    images.mkdir()
    write_png(images / "a.png", 64, 48, 1)
    others = folder / "others"
    others.mkdir()
    write_png(others / "b.png", 40, 40, 1)
    first = folder / "first"
    done = run(*training(epochs=2, milestones=1, init_lr=0.002, valid_dir=images, train_dir=images, threads=1, checkpoint_dir=first))
    check(done.returncode == 0, f"training: {done.stderr}")

    def go_on(name, *args, prepare=lambda out: None, code=0):
        out = folder / name
        shutil.copytree(first, out)
        prepare(out)
        done = run("dncnn_train", "--checkpoint-dir", out, "--threads", 1, "--resume", *args)
        check(done.returncode == code, f"{name}: {done.returncode}: {done.stdout}{done.stderr}")
        if code == 0:
            last = next(line for line in reversed(done.stdout.splitlines()) if line.startswith("best PSNR"))
            best = max(log(out)[0 if "anew" not in done.stdout else 2:], key=lambda row: row[3])
            info = metadata(out / "best.safetensors")
            check(f"best PSNR {float(info['info.best']):.3f} dB" in last, f"{name}: {last}; best holds {info['info.best']}")
            check(int(info["info.epoch"]) == best[0], f"{name}: best is of epoch {info['info.epoch']}, wanted {best[0]}")
        return out, done

    out, done = go_on("nothing_given", "--epochs", 3)
    check([row[1] for row in log(out)] == [0.002, 0.0002, 0.0002], f"milestones and rate were not kept: {log(out)}")
    check("--" not in done.stdout.split("resumed")[0] and "valid-dir=" + str(images) in done.stdout, f"said: {done.stdout}")
    for name, args, rate in (("rate", ("--init-lr", "1e-5"), 1e-6), ("gamma", ("--gamma", "0.5"), 1e-3),
                             ("milestones", ("--milestones", "1,2"), 2e-5), ("no_milestone", ("--milestones", "9"), 2e-3)):
        out, done = go_on(name, "--epochs", 3, *args)
        check(f"from here on {args[0][2:]}={args[1].replace('1e-5', '1e-05')}, before it was " in done.stdout, f"{name}: {done.stdout}")
        check(math.isclose(log(out)[2][1], rate, rel_tol=1e-6), f"{name}: trained at {log(out)[2][1]}, wanted {rate}")
    out, done = go_on("other_validation", "--epochs", 3, "--valid-dir", others)
    check("not comparable" in done.stdout and f"valid-dir={others}, before it was {images}" in done.stdout, f"said: {done.stdout}")
    for args in (("--width", 64), ("--depth", 17), ("--optimizer", "sgd")):
        out, done = go_on(f"refused{args[0]}", "--epochs", 3, *args, code=1)
        check(f"{args[0]} {args[1]}" in done.stderr and tensors(out / "latest.safetensors") == tensors(first / "latest.safetensors"),
              f"{args}: {done.stderr}")

    done = run(*training(checkpoint_dir=folder / "rate", resume=first / "latest.safetensors"))
    check(done.returncode == 1 and "is of another run" in done.stderr, f"another run was written over: {done.stderr}")

    # Stopped between latest and best, and before the log: put right from latest alone.
    second = int(metadata(first / "best.safetensors")["info.epoch"]) == 2

    def lose(out):
        (out / "best.safetensors").unlink()
        (out / "log.csv").write_text("".join((out / "log.csv").read_text().splitlines(keepends=True)[:2]) + "2,0.00")
        (out / "curve.svg").write_text("<svg")
    out, done = go_on("best_lost", "--epochs", 3, prepare=lose)
    check(("is written again" if second else "looked for anew") in done.stdout, f"said: {done.stdout}")
    check(log(out)[:2] == log(first), "the log's last line is lost")
    out, done = go_on("best_lost_at_the_end", prepare=lose)
    if second:
        check(tensors(out / "best.safetensors") == tensors(first / "best.safetensors"), "another best was written")
    check((out / "curve.svg").read_bytes() == (first / "curve.svg").read_bytes(), "another curve was drawn")
    (first / "latest.safetensors").rename(folder / "kept")
    done = run(*training(checkpoint_dir=first))
    check(done.returncode == 1 and "--resume" in done.stderr, "a new run writes over the one before")
    done = run("dncnn_train", "--checkpoint-dir", first, "--resume")
    check(done.returncode == 0 and "latest.safetensors.previous" in done.stdout, f"said: {done.stdout}{done.stderr}")
    check(tensors(folder / "kept") == tensors(first / "latest.safetensors"), "other numbers from the checkpoint before")

    done = run(*training(train_dir=images, valid_dir=images, steps_per_epoch=100000, minutes=0.0001, checkpoint_dir=folder / "short"))
    check(done.returncode == 0, f"a run of no time: {done.stderr}")
    check(("best PSNR" in done.stdout) == (folder / "short" / "best.safetensors").exists(), f"said: {done.stdout}")


def metadata(path):
    data = pathlib.Path(path).read_bytes()
    length, = struct.unpack("<Q", data[:8])
    return json.loads(data[8:8 + length])["__metadata__"]


def diverging(folder):
    """A run that diverges ends with a sentence, and what it calls good is."""
    for name, resumed, how in (("adam", True, {"init_lr": "1e6"}), ("far", True, {"init_lr": "1e20"}),
                               ("sgd", False, {"optimizer": "sgd", "init_lr": "1e6"}),
                               ("sum", False, {"optimizer": "sgd", "init_lr": "1e3", "loss": "half-sum"})):
        out = folder / name
        how |= {"checkpoint_dir": out, "save_interval": 1, "epochs": 60}
        if resumed:
            good = run(*training(checkpoint_dir=out))
            check(good.returncode == 0, good.stderr)
            how["resume"] = None
        done = run(*training(**how))
        check(done.returncode == 1 and done.stderr.count("\n") == 1 and "has diverged" in done.stderr,
              f"{name}: {done.returncode}: {done.stdout[-500:]}{done.stderr}")
        check("The last good checkpoint is " in done.stderr, f"{name}: {done.stderr}")
        for path in out.glob("*.safetensors*"):
            for tensor, data in tensors(path).items():
                if not tensor.endswith("num_batches_tracked") and not tensor.endswith("steps"):
                    check(all(map(math.isfinite, array.array("f", data))), f"{name}: {path.name}: {tensor} is not finite")
        if (out / "latest.safetensors").exists():
            check(str(out / "latest.safetensors") in done.stderr, f"{name}: {done.stderr}")


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
        shutil.copytree(images, other, dirs_exist_ok=True)
        (other / name).write_bytes(data)
        return other

    png = (images / "a.png").read_bytes()
    empty = folder / "empty"
    empty.mkdir()
    small = folder / "small"
    small.mkdir()
    write_png(small / "tiny.png", 40, 10, 1)
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
        (train(valid_dir=small), "tiny.png"),
        (train(valid_dir=images_with("broken.png", b"not an image")), "broken.png"),
        (("dncnn_test", "--weights", weights, "--data", small), "tiny.png"),
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
        check("epoch   1" not in said, f"found after an epoch only: {line}\n{said}")
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
    # 16 bits, alpha, orientation and resolution stay.
    for name, channels, bits in (("deep.png", 1, 16), ("la.png", 2, 8), ("rgba.png", 4, 8), ("deep_rgba.png", 4, 16)):
        turn = chunk(b"eXIf", b"II*\0\x08\0\0\0\x01\0" + struct.pack("<HHIHH", 274, 3, 1, 6, 0) + b"\0\0\0\0")
        density = chunk(b"pHYs", struct.pack(">IIB", 5000, 5000, 1))
        write_png(folder / name, 26, 21, channels, bits, turn + density)
        done = run("dncnn_denoise", "--weights", weights, folder / name, folder / "kept.png")
        check(done.returncode == 0, f"{name}: {done.stderr}")
        png = (folder / "kept.png").read_bytes()
        check(struct.unpack(">IIBB", png[16:26]) == (21, 26, bits, {1: 0, 2: 4, 4: 6}[channels]), f"{name}: other size or kind")
        check(density in png, f"{name}: the resolution is lost")
    # Nothing that is read is written over, and no two pictures become one.
    kept = {path: path.read_bytes() for path in [*images.iterdir(), weights]}
    (folder / "link").symlink_to("images")
    (folder / "weights.png").symlink_to(weights)
    both = folder / "both"
    both.mkdir()
    shutil.copy(images / "grey.png", both / "a.png")
    done = run("dncnn_denoise", "--weights", weights, images / "grey.png", both / "a.jpg")
    check(done.returncode == 0, done.stderr)
    for one, other, word in ((images / "grey.png", images / "grey.png", "input itself"), (images / "grey.png", folder / "link" / "grey.png", "input itself"),
                             (images, images, "folder of the inputs"), (images, folder / "link", "folder of the inputs"),
                             (images / "grey.png", folder / "weights.png", "which is read too"), (both, folder / "new", "would write"),
                             (images / "grey.png", folder / ("n" * 252 + ".png"), "256 bytes")):
        done = run("dncnn_denoise", "--weights", weights, one, other)
        check(done.returncode == 1 and word in done.stderr and done.stdout == "", f"{one} to {other}: {done.stderr}{done.stdout}")
    check(kept == {path: path.read_bytes() for path in kept}, "an input was changed")
    (images / "cut.png").write_bytes((images / "grey.png").read_bytes()[:80])
    done = run("dncnn_denoise", "--weights", weights, images, folder / "some")
    check(done.returncode == 1 and "cut.png" in done.stderr and "1 of 3" in done.stderr, f"one that is damaged: {done.stderr}")
    check(sorted(os.listdir(folder / "some")) == ["colour.png", "grey.png"], "the good ones are missing")
    (images / "cut.png").unlink()
    broken = bytearray(weights.read_bytes().replace(b"strata.checksum", b"unused.checksum"))
    header = struct.unpack("<Q", broken[:8])[0]
    tensors = json.loads(broken[8:8 + header])
    first = 8 + header + next(tensors[name]["data_offsets"][0] for name in tensors if name.endswith("0.weight") and "state." not in name)
    broken[first:first + 4] = struct.pack("<f", float("nan"))
    (folder / "nan.safetensors").write_bytes(broken)
    done = run("dncnn_denoise", "--weights", folder / "nan.safetensors", images / "grey.png", folder / "nan.png")
    check(done.returncode == 1 and "nan.safetensors" in done.stderr and "finite" in done.stderr, f"a NaN: {done.stderr}")
    check(not (folder / "nan.png").exists(), "a picture of NaN")
    done = run(*training(train_dir=images, checkpoint_dir=folder / "link"))
    check(done.returncode == 1 and "folder of the images" in done.stderr, f"a run in the folder of its images: {done.stderr}")
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
    {"resume": resume, "configuration": configuration, "stopping": stopping, "going_on": going_on, "diverging": diverging, "bad_input": bad_input, "devices": devices, "denoise": denoise, "published": published}[sys.argv[1]](
        pathlib.Path(temporary))
