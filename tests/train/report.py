#!/usr/bin/env python3
"""Looks at a run's report in headless Chromium: no word on the console, every curve drawn, pictures shown, light and dark.

    report.py CHROMIUM TEST_TRAIN [FOLDER]    # FOLDER keeps the page and the screenshots

Returns 77, which CTest shows as skipped, where CHROMIUM is empty.
"""
import collections
import os
import pathlib
import re
import struct
import subprocess
import sys
import tempfile
import zlib

WIDTH, HEIGHT = 1000, 2200


def chromium(program, profile, page, *options):
    command = [program, "--headless", "--disable-gpu", "--no-first-run", "--hide-scrollbars", f"--user-data-dir={profile}",
               f"--window-size={WIDTH},{HEIGHT}", "--enable-logging=stderr", "--v=0", "--virtual-time-budget=3000", *options]
    if os.geteuid() == 0:
        command.append("--no-sandbox")
    done = subprocess.run([*command, page.as_uri()], text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=240)
    if done.returncode != 0:
        raise SystemExit(f"chromium ended with {done.returncode}:\n{done.stderr}")
    words = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    assert not words, words
    return done.stdout


def colours(path):
    """How often each colour is there, in a PNG file of 8 bits."""
    data, at, pixels = path.read_bytes(), 8, b""
    while at < len(data):
        length, kind = struct.unpack(">I4s", data[at:at + 8])
        body = data[at + 8:at + 8 + length]
        if kind == b"IHDR":
            width, height, bits, colour = struct.unpack(">IIBB", body[:10])
        if kind == b"IDAT":
            pixels += body
        at += 12 + length
    assert bits == 8 and colour in (2, 6)
    step = 3 if colour == 2 else 4
    raw, row_bytes = zlib.decompress(pixels), width * step
    counts, before = collections.Counter(), bytearray(row_bytes)
    for y in range(height):
        kind, row = raw[y * (row_bytes + 1)], bytearray(raw[y * (row_bytes + 1) + 1:(y + 1) * (row_bytes + 1)])
        for i in range(row_bytes if kind else 0):
            a, b, c = row[i - step] if i >= step else 0, before[i], before[i - step] if i >= step else 0
            if kind == 1:
                guess = a
            elif kind == 2:
                guess = b
            elif kind == 3:
                guess = (a + b) // 2
            else:
                p = a + b - c
                guess = min((a, b, c), key=lambda v: (abs(p - v), (a, b, c).index(v)))
            row[i] = (row[i] + guess) & 255
        counts.update(zip(row[0::step], row[1::step], row[2::step]))
        before = row
    return counts


if not __debug__:
    sys.exit("run without -O: what is checked here is checked by assert")


def main():
    program, test_train = sys.argv[1:3]
    if not program or program.endswith("-NOTFOUND"):
        print("SKIPPED: there is no Chromium")
        return 77
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(sys.argv[3] if len(sys.argv) > 3 else folder).resolve()
        root.mkdir(exist_ok=True)
        subprocess.run([test_train, "--test-case=a run for the report"], check=True, stdout=subprocess.DEVNULL,
                       env={**os.environ, "STRATA_RUN_ROOT": str(root)})
        page = next(root.glob("tiny*/report.html"))
        profile = pathlib.Path(folder, "profile")

        dom = chromium(program, profile, page, "--dump-dom")
        curves = re.findall(r'<path class="curve" d="M([^"]+)"', dom)
        assert len(curves) == 4, len(curves)  # the loss, two metrics, the learning rate
        assert [path.count("L") + 1 for path in curves] == [8, 3, 3, 8], curves
        assert all("NaN" not in path for path in curves)
        for text in ("set/psnr", "best set/psnr", "31.5", "epoch 2, step 10", "tiny \"one\"", "receptive field 5 x 5", "Conv2d"):
            assert text in dom, text
        assert dom.count('<img src="data:image/png;base64,') == 2

        # The pictures are grey of 0.2 and 0.9, which nothing else on the page is.
        for scheme, back in (("1", (0xF6, 0xF7, 0xF9)), ("0", (0x14, 0x17, 0x1B))):
            picture = root / f"report_{'light' if scheme == '1' else 'dark'}.png"
            chromium(program, profile, page, f"--blink-settings=preferredColorScheme={scheme}", f"--screenshot={picture}")
            counts = colours(picture)
            assert counts[back] > 100000, counts.most_common(5)
            for greys in ((51,), (229, 230)):
                assert sum(counts[(grey, grey, grey)] for grey in greys) > 10000, (greys, counts.most_common(8))
    print("report: 4 curves, 2 pictures, light and dark")
    return 0


sys.exit(main())
