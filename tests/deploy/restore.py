"""Runs strata-restore as a user has it: restore.py alone|kinds|colours|apart|bad_input|memory PROGRAM

Python's standard library only.
"""
import math
import os
import pathlib
import random
import resource
import shutil
import struct
import subprocess
import sys
import tempfile
import time
import zlib

PROGRAM = pathlib.Path(sys.argv[2])


def check(condition, text):
    if not condition:
        sys.exit("FAILED: " + text)


def chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def write_png(path, width, height, channels, value, bits=8, more=b""):
    """value(x, y, c) is a number from 0 to 1; `more` are whole chunks."""
    top = 2 ** bits - 1
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    rows = bytearray()
    for y in range(height):
        rows.append(0)
        for x in range(width):
            for c in range(channels):
                level = min(max(round(value(x, y, c) * top), 0), top)
                rows += level.to_bytes(bits // 8, "big")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0)) +
                     more + chunk(b"IDAT", zlib.compress(bytes(rows), 1)) + chunk(b"IEND", b""))


def read_png(path):
    """(width, height, channels, bits, samples) of a PNG file as this program writes it."""
    data, at, packed = path.read_bytes(), 8, b""
    while at < len(data):
        length, name = struct.unpack(">I4s", data[at:at + 8])
        body = data[at + 8:at + 8 + length]
        if name == b"IHDR":
            width, height, bits, kind = struct.unpack(">IIBB", body[:10])
        if name == b"IDAT":
            packed += body
        at += 12 + length
    channels = {0: 1, 4: 2, 2: 3, 6: 4}[kind]
    raw, step = zlib.decompress(packed), channels * bits // 8
    stride, above, out = width * step, bytearray(width * step), []
    for y in range(height):
        mode, row = raw[y * (stride + 1)], bytearray(raw[y * (stride + 1) + 1:(y + 1) * (stride + 1)])
        for i in range(stride):
            a, b = row[i - step] if i >= step else 0, above[i]
            c = above[i - step] if i >= step else 0
            p = a + b - c
            paeth = a if abs(p - a) <= abs(p - b) and abs(p - a) <= abs(p - c) else b if abs(p - b) <= abs(p - c) else c
            row[i] = (row[i] + (0, a, b, (a + b) // 2, paeth)[mode]) & 255
        above = row
        out += [int.from_bytes(row[i:i + bits // 8], "big") / (2 ** bits - 1) for i in range(0, stride, bits // 8)]
    return width, height, channels, bits, out


def scene(x, y, c):
    """Smooth surfaces and edges."""
    base = 0.5 + 0.25 * math.sin(x / 17 + c) * math.cos(y / 23)
    return base + (0.2 if (x // 40 + y // 30) % 2 else 0)


def noisy(sigma, seed=1):
    rng = random.Random(seed)
    return lambda x, y, c: scene(x, y, c) + rng.gauss(0, sigma / 255)


def psnr(samples, width, channels, colours=None):
    error = count = 0
    for i, sample in enumerate(samples):
        pixel, c = divmod(i, channels)
        if c < (colours or channels):
            error += (sample - scene(pixel % width, pixel // width, c)) ** 2
            count += 1
    return -10 * math.log10(error / count)


def run(*args, program=PROGRAM, cwd=None):
    return subprocess.run([program, *map(str, args)], capture_output=True, text=True, cwd=cwd)


def alone(folder):
    """Copied into an empty folder, with no library at hand, it denoises; in every instruction set to the same picture."""
    home = folder / "empty"
    home.mkdir()
    program = home / "restore"
    shutil.copy(PROGRAM, program)
    size = program.stat().st_size
    linked = subprocess.run(["ldd", program], capture_output=True, text=True)
    sanitized = "libasan" in linked.stdout or "libtsan" in linked.stdout
    if not sanitized:
        check("not a dynamic executable" in linked.stdout + linked.stderr or "statically linked" in linked.stdout, linked.stdout)
        check(size < 8 << 20, f"{size} bytes")
    # Start-up: the best of many, since others use the machine too.
    times = []
    for _ in range(30):
        begin = time.perf_counter()
        subprocess.run([program, "--help"], capture_output=True, cwd=home, env={}, check=True)
        times.append(time.perf_counter() - begin)
    print(f"--help takes {1000 * min(times):.1f} ms")
    check(sanitized or min(times) < 0.05, f"--help takes {1000 * min(times):.0f} ms")
    write_png(home / "noisy.png", 121, 90, 1, noisy(25))
    before = psnr(read_png(home / "noisy.png")[4], 121, 1)
    results = {}
    for name in ("avx512", "avx2", "baseline"):
        done = subprocess.run([program, "denoise", "noisy.png", "-o", f"{name}.png", "--isa", name, "--sigma", "25"],
                              capture_output=True, text=True, cwd=home, env={})
        if done.returncode != 0 and "does not have it" in done.stderr:
            print(f"{name}: not this processor")
            continue
        check(done.returncode == 0, done.stderr)
        check(name in done.stdout, done.stdout)
        results[name] = read_png(home / f"{name}.png")[4]
        after = psnr(results[name], 121, 1)
        print(f"{name}: {before:.2f} dB -> {after:.2f} dB")
        check(after > before + 8, f"{name} does not denoise")
    # Other orders of summation: single levels may differ by rounding.
    for name, samples in results.items():
        check(max(abs(a - b) for a, b in zip(samples, results["baseline"])) < 1.5 / 255, f"{name} differs from baseline")
    print(f"{size} bytes")


def kinds(folder):
    """Grey, colour, alpha, 8 and 16 bit, odd sizes, folders, the side-by-side picture, orientations, upscaling."""
    pictures = folder / "pictures"
    pictures.mkdir()
    for channels, bits, w, h in ((1, 8, 61, 43), (2, 8, 40, 31), (3, 8, 33, 30), (4, 16, 29, 27), (1, 16, 20, 17)):
        value = noisy(20)
        write_png(pictures / f"{channels}_{bits}.png", w, h, channels,
                  lambda x, y, c: (x % 7) / 6 if channels % 2 == 0 and c == channels - 1 else value(x, y, c), bits)
    done = run("denoise", pictures, "-o", folder / "out", "--compare", folder / "both", "--sigma", 20)
    check(done.returncode == 0, done.stderr)
    for file in sorted(pictures.iterdir()):
        w, h, channels, bits, before = read_png(file)
        got = read_png(folder / "out" / file.name)
        check(got[:4] == (w, h, channels, bits), f"{file.name}: {got[:4]}")
        colours = 3 if channels >= 3 else 1
        gain = psnr(got[4], w, channels, colours) - psnr(before, w, channels, colours)
        print(f"{file.name}: gain {gain:.2f} dB")
        check(gain > 3, f"{file.name}: gain {gain}")
        if channels % 2 == 0:
            check(got[4][channels - 1::channels] == before[channels - 1::channels], f"{file.name}: other alpha")
        check(read_png(folder / "both" / file.name)[:2] == (2 * w, h), "side by side")
    # Whatever the memory and the threads: the same bytes.
    for extra in (("--threads", 1), ("--threads", 3), ("--max-memory", "60M")):
        done = run("denoise", pictures / "1_8.png", "-o", folder / "again.png", "--sigma", 20, "--overwrite", *extra)
        check(done.returncode == 0, done.stderr)
        check((folder / "again.png").read_bytes() == (folder / "out" / "1_8.png").read_bytes(), f"other bytes with {extra}")
    done = run("denoise", pictures / "1_8.png", "-o", folder / "ensemble.png", "--sigma", 20, "--ensemble")
    check(done.returncode == 0, done.stderr)
    w, h, c, _, samples = read_png(folder / "ensemble.png")
    check(psnr(samples, w, c) > psnr(read_png(folder / "out" / "1_8.png")[4], w, c) - 0.1, "the ensemble is worse")
    done = run("denoise", pictures / "1_8.png", "-o", folder / "auto.png")
    check(done.returncode == 0 and "estimated" in done.stdout, done.stderr + done.stdout)
    for name in ("1_8.png", "4_16.png"):
        done = run("upscale", pictures / name, "-o", folder / "large.png", "--compare", folder / "large_both.png", "--overwrite")
        check(done.returncode == 0, done.stderr)
        w, h, channels, bits, _ = read_png(pictures / name)
        check(read_png(folder / "large.png")[:4] == (2 * w, 2 * h, channels, bits), "upscaled")
        check(read_png(folder / "large_both.png")[:2] == (4 * w, 2 * h), "side by side of upscaled")
    # A JPEG with an orientation: of 12 x 8 pixels, turned by 90 degrees.
    write_png(folder / "wide.png", 48, 32, 3, scene)
    done = run("denoise", folder / "wide.png", "-o", folder / "wide.jpg", "--sigma", 0)
    check(done.returncode == 0, done.stderr)
    jpeg = (folder / "wide.jpg").read_bytes()
    tiff = b"II*\0\x08\0\0\0\x01\0" + struct.pack("<HHIHH", 274, 3, 1, 6, 0) + b"\0\0\0\0"
    exif = b"Exif\0\0" + tiff
    (folder / "turned.jpg").write_bytes(jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + jpeg[2:])
    done = run("denoise", folder / "turned.jpg", "-o", folder / "turned.png", "--sigma", 0)
    check(done.returncode == 0 and "orientation 6" in done.stdout, done.stderr + done.stdout)
    check(read_png(folder / "turned.png")[:2] == (32, 48), "not turned upright")


def colours(folder):
    """Alpha's hidden colours stay hidden, grey stays grey, and what a file says of its colours goes with them."""
    def disc(x, y, c):  # white, and black where it is transparent
        inside = min(max(20.5 - math.hypot(x - 31.5, y - 31.5), 0), 1)
        return inside if c == 3 else float(inside > 0)
    write_png(folder / "disc.png", 64, 64, 4, disc)
    for command in (("upscale",), ("denoise", "--sigma", 40)):
        done = run(command[0], folder / "disc.png", "-o", folder / "disc_out.png", "--overwrite", *command[1:])
        check(done.returncode == 0, done.stderr)
        w, h, channels, _, samples = read_png(folder / "disc_out.png")
        darkest = min(samples[4 * i + c] for i in range(w * h) for c in range(3) if samples[4 * i + 3] > 0)
        print(f"{command[0]}: the white disc is {255 * darkest:.0f} at its darkest")
        check(darkest == 1, f"{command[0]}: a halo of {255 * darkest:.0f}")
    value = noisy(20)
    write_png(folder / "grey.png", 50, 40, 3, lambda x, y, c: scene(x, y, 0) + (value(x, y, 0) - scene(x, y, 0) if c == 0 else 0))
    samples = read_png(folder / "grey.png")[4]
    write_png(folder / "grey.png", 50, 40, 3, lambda x, y, c: samples[3 * (50 * y + x)])
    for command in (("upscale",), ("denoise",), ("denoise", "--model", "colour"), ("denoise", "--model", "grey", "--sigma", 20)):
        done = run(command[0], folder / "grey.png", "-o", folder / "grey_out.png", "--overwrite", *command[1:])
        check(done.returncode == 0 and "grey in RGB" in done.stdout, done.stderr + done.stdout)
        channels, _, got = read_png(folder / "grey_out.png")[2:]
        check(channels == 3 and all(got[i] == got[i + 1] == got[i + 2] for i in range(0, len(got), 3)), f"a tint by {command}")
    profile = bytearray(300)
    profile[0:4], profile[16:20] = struct.pack(">I", 300), b"RGB "
    kept = (chunk(b"gAMA", struct.pack(">I", 100000)), chunk(b"pHYs", struct.pack(">IIB", 11811, 11811, 1)))
    more = chunk(b"iCCP", b"name\0\0" + zlib.compress(bytes(profile))) + b"".join(kept)
    write_png(folder / "profile.png", 32, 24, 3, scene, more=more)
    for task in ("denoise", "upscale"):
        done = run(task, folder / "profile.png", "-o", folder / "out.png", "--overwrite")
        check(done.returncode == 0 and "without" not in done.stdout, done.stderr + done.stdout)
        data = (folder / "out.png").read_bytes()
        check(all(one in data for one in kept), f"{task}: gamma or resolution is lost")
        at = data.index(b"iCCP")
        length, = struct.unpack(">I", data[at - 4:at])
        body = data[at + 4:at + 4 + length]
        check(zlib.decompress(body[body.index(b"\0") + 2:]) == profile, f"{task}: the profile is lost")
    for name, lost in (("out.jpg", None), ("out.bmp", "without its colour profile, gamma")):
        done = run("denoise", folder / "profile.png", "-o", folder / name)
        check(done.returncode == 0 and (lost in done.stdout if lost else "without" not in done.stdout), done.stderr + done.stdout)
    check(bytes(profile) in (folder / "out.jpg").read_bytes(), "the JPEG file is without the profile")


def apart(folder):
    """Nothing that a run reads is written over by it, whatever it is called; names that are too long are told before."""
    pictures = folder / "in"
    pictures.mkdir()
    for name in ("a.png", "b.png"):
        write_png(pictures / name, 20, 18, 1, scene)
    done = run("denoise", pictures / "a.png", "-o", pictures / "b.jpg", "--sigma", 5)
    check(done.returncode == 0, done.stderr)
    (folder / "link").symlink_to("in")
    (folder / "hard.png").hardlink_to(pictures / "b.png")
    model = folder / "model.safetensors"
    shutil.copy(pathlib.Path(__file__).parent.parent.parent / "models" / "denoise_grey.safetensors", model)
    (folder / "model.png").symlink_to("model.safetensors")
    before = {path: path.read_bytes() for path in [*pictures.iterdir(), model]}
    for command, word in (
            ((pictures, "-o", folder / "out"), "would write"),             # b.jpg and b.png
            ((pictures / "a.png", pictures / "b.png", pictures / "b.jpg", "-o", folder / "out"), "would write"),
            ((pictures, "-o", pictures), "folder of the inputs"),
            ((pictures, "-o", folder / "link"), "folder of the inputs"),
            ((pictures, "-o", folder / "link" / ".." / "in"), "folder of the inputs"),
            ((pictures / "a.png", "-o", folder / "link" / "a.png"), "input itself"),
            ((pictures / "b.png", "-o", folder / "hard.png"), "input itself"),
            ((pictures / "a.png", pictures / "b.png", "-o", folder / "in"), "input itself"),
            ((pictures / "b.jpg", pictures / "b.png", "-o", folder / "link"), "b.png"),
            ((pictures / "a.png", "-o", folder / "new.png", "--compare", folder / "in" / ".." / "in" / "a.png"), "input itself"),
            ((pictures / "a.png", "-o", folder / "model.png", "--model", model), "which is read too"),
            ((pictures / "a.png", pictures / "a.png", "-o", folder / "out"), "written twice"),
            ((pictures / "a.png", pictures / "b.png", "-o", folder / "out", "--compare", folder / "out"), "written twice"),
            ((pictures / "a.png", "-o", folder / ("n" * 252 + ".png")), "256 bytes")):
        done = run("denoise", *command, "--overwrite", "--sigma", 5)
        check(done.returncode == 1 and word in done.stderr and done.stdout == "", f"{command}: {done.stdout}{done.stderr}")
        check(not (folder / "out").exists() or not list((folder / "out").iterdir()), f"work was done before {command} was refused")
        check(not (folder / "new.png").exists(), f"work was done before {command} was refused")
    check(before == {path: path.read_bytes() for path in before}, "an input was changed")
    for length in (229, 233, 250, 251):
        done = run("denoise", pictures / "a.png", "-o", folder / ("n" * length + ".png"), "--sigma", 5)
        check(done.returncode == 0, f"a name of {length + 4} bytes: {done.stderr}")
        check((folder / ("n" * length + ".png")).exists(), "no output")
    # Of a model that holds a NaN both are named, before the work.
    data = bytearray(model.read_bytes())
    data[-4:] = struct.pack("<f", math.nan)
    (folder / "nan.safetensors").write_bytes(data)
    done = run("denoise", pictures / "a.png", "-o", folder / "nan.png", "--model", folder / "nan.safetensors")
    check(done.returncode == 1 and "a.png" in done.stderr and "nan.safetensors" in done.stderr and "finite" in done.stderr, done.stderr)
    check(not (folder / "nan.png").exists(), "an output of NaN")


def bad_input(folder):
    """Every mistake ends in a clear line and a code that is not 0, and no output."""
    write_png(folder / "good.png", 32, 24, 1, scene)
    write_png(folder / "tiny.png", 3, 2, 1, scene)
    write_png(folder / "there.png", 4, 4, 1, scene)
    there = (folder / "there.png").read_bytes()
    (folder / "link.png").symlink_to("good.png")
    upscaler = pathlib.Path(__file__).parent.parent.parent / "models" / "upscale_x2.safetensors"
    write_png(folder / "deep.png", 32, 24, 4, scene, 16)
    good = (folder / "good.png").read_bytes()
    (folder / "cut.png").write_bytes(good[:len(good) // 2])
    (folder / "empty.png").write_bytes(b"")
    (folder / "text.png").write_text("no picture")
    (folder / "nothing").mkdir()
    (folder / "weights.safetensors").write_bytes(b"\x10" + b"\0" * 20)
    out = folder / "out.png"
    mistakes = [
        (("denoise", folder / "none.png", "-o", out), "none.png"),
        (("denoise", folder / "cut.png", "-o", out), "cut.png"),
        (("denoise", folder / "empty.png", "-o", out), "empty.png"),
        (("denoise", folder / "text.png", "-o", out), "text.png"),
        (("denoise", folder / "nothing", "-o", folder / "results"), "nothing"),
        (("denoise", folder / "good.png", "-o", folder / "no" / "folder.png"), "folder.png"),
        (("denoise", folder / "good.png", "-o", folder / "out.gif"), "out.gif"),
        (("denoise", folder / "deep.png", "-o", folder / "out.jpg"), "out.jpg"),
        (("denoise", folder / "good.png", "-o", folder / "good.png"), "input itself"),
        (("denoise", folder / "good.png", "-o", out, "--sigma", "much"), "--sigma"),
        (("denoise", folder / "good.png", "-o", out, "--sigma", "-1"), "sigma"),
        (("denoise", folder / "good.png", "-o", out, "--sigma", "56"), "--sigma"),
        (("denoise", folder / "good.png", "-o", out, "--max-memory", "512"), "--max-memory"),
        (("denoise", folder / "good.png", "-o", out, "--max-memory", "1M"), "--max-memory"),
        (("denoise", folder / "good.png", "-o", out, "--model", folder / "weights.safetensors"), "weights.safetensors"),
        (("denoise", folder / "good.png", "-o", out, "--model", "colour"), "colour"),
        (("denoise", folder / "good.png", "-o", out, "--isa", "mmx"), "--isa"),
        (("denoise", folder / "good.png", "-o", out, "--threads", "-2"), "threads"),
        (("denoise", folder / "tiny.png", "-o", out), "too small"),
        (("denoise", folder / "good.png", "-o", folder / "there.png"), "--overwrite"),
        (("denoise", folder / "good.png", "-o", folder / "link.png", "--overwrite"), "input itself"),
        (("denoise", folder / "good.png", "-o", folder / "noending"), "format"),
        (("denoise", folder / "good.png", "-o", out, "--compare", out), "--compare"),
        (("denoise", folder / "good.png", "-o", out, "--compare", folder / "there.png"), "there.png"),
        (("denoise", folder / "good.png", "-o", out, "--max-memory", "5"), "wanted a size"),
        (("denoise", folder / "good.png", "-o", out, "--max-memory", "5M"), "M at least"),
        (("denoise", folder / "good.png", "-o", out, "--model", "nosuch"), "grey, colour, x2"),
        (("denoise", folder / "good.png", "-o", out, "--model", upscaler), "ffdnet_train"),
        (("denoise", folder / "good.png", "-o", out, "--model", folder), "regular file"),
        (("denoise", folder / "good.png", folder / "deep.png", "-o", folder / "there.png"), "folder"),
        (("upscale", folder / "good.png", "-o", out, "--sigma", "5"), "--sigma"),
        (("denoise", folder / "good.png", "-o", out, "--threads", "many"), "threads"),
        (("denoise", folder / "good.png", "-o", out, "--unknown"), "--unknown"),
        (("deblock", folder / "good.png", "-o", out), "deblock"),
        (("sharpen", folder / "good.png", "-o", out), "sharpen"),
        (("denoise", folder / "good.png", "-o", ""), "empty"),
        (("denoise", "", "-o", out), "empty"),
        (("denoise",), "input"),
    ]
    for command, word in mistakes:
        done = run(*command)
        said = done.stderr + done.stdout
        line = " ".join(map(str, command))
        check(done.returncode > 0, f"no error ({done.returncode}) from: {line}\n{said}")
        check(word in said, f"'{word}' is not in what was said:\n{said}\nby: {line}")
        check(len([text for text in said.splitlines() if text.strip() and "--help" not in text]) == 1, f"not one line:\n{said}\nby: {line}")
        check(not out.exists(), f"an output was written by: {line}")
    check((folder / "good.png").read_bytes() == good, "the input was changed")
    check((folder / "there.png").read_bytes() == there, "an output was overwritten")
    check(run("denoise", folder / "good.png", "-o", folder / "there.png", "--overwrite").returncode == 0, "--overwrite")
    check(read_png(folder / "there.png")[:2] == (32, 24), "--overwrite")
    # One bad picture in a folder does not stop the others.
    mixed = folder / "mixed"
    mixed.mkdir()
    shutil.copy(folder / "good.png", mixed / "a.png")
    shutil.copy(folder / "cut.png", mixed / "b.png")
    shutil.copy(folder / "good.png", mixed / "c.png")
    huge = struct.pack(">IIBBBBB", 0x4000, 0x4000, 16, 6, 0, 0, 1)  # two gigabytes, in 69 bytes
    (mixed / "b2.png").write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", huge) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b""))
    done = run("denoise", mixed, "-o", folder / "mixed_out", "--sigma", 5, "--max-memory", "90G")
    check(done.returncode == 1 and "b.png" in done.stderr and "b2.png" in done.stderr and "2 of 4" in done.stderr, done.stderr)
    check(sorted(os.listdir(folder / "mixed_out")) == ["a.png", "c.png"], "the good ones are missing")


def memory(folder):
    """A photograph of 6 megapixels in well under what its activations would take (380 MB for one layer)."""
    size = 3000, 2000
    rows = bytearray()
    rng = random.Random(1)
    line = bytes(rng.randrange(90, 160) for _ in range(size[0] + 4000))
    for y in range(size[1]):
        rows += b"\0" + line[2 * y:2 * y + size[0]]

    (folder / "big.png").write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", *size, 8, 0, 0, 0, 0)) +
                                     chunk(b"IDAT", zlib.compress(bytes(rows), 1)) + chunk(b"IEND", b""))
    # The least that the program itself says is enough; a little less is refused.
    done = run("denoise", folder / "big.png", "-o", folder / "out.png", "--max-memory", "20M")
    check(done.returncode == 1 and "M at least" in done.stderr, done.stderr)
    least = int(done.stderr.split("takes ")[1].split("M at")[0])
    check(least < 200, f"it wants {least} MB")
    done = run("denoise", folder / "big.png", "-o", folder / "out.png", "--max-memory", f"{least - 1}M")
    check(done.returncode == 1, "less than the least is enough")
    for limit in (least, least + 60):
        done = run("denoise", folder / "big.png", "-o", folder / "out.png", "--sigma", 15, "--max-memory", f"{limit}M", "--overwrite")
        check(done.returncode == 0, done.stderr)
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024  # of all so far: the limits rise
        print(f"{done.stdout.strip()}\nlimit {limit} MB, peak {peak:.0f} MB")
        if "asan" not in subprocess.run(["ldd", PROGRAM], capture_output=True, text=True).stdout:
            check(peak < limit, f"{peak:.0f} MB resident")


with tempfile.TemporaryDirectory() as temporary:
    {"alone": alone, "kinds": kinds, "colours": colours, "apart": apart, "bad_input": bad_input, "memory": memory}[sys.argv[1]](pathlib.Path(temporary))
