"""Writes tests/golden/lmdb/: two databases in BasicSR's layout, by the library lmdb (from PyPI).

    python3 lmdb_files.py

Pixel (y, x, c) of picture i is (7 i + 31 y + 5 x + 50 c) % 256; the last picture is noise, so that it fills pages of its own.
The pictures of the second database have twice the rows and columns.
"""
import pathlib
import random
import struct
import zlib

import lmdb

COUNT = 46


def png(rows):
    h, w = len(rows), len(rows[0]) // 3

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    raw = b"".join(b"\0" + bytes(row) for row in rows)
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", w, h, 8, 2, 0, 0, 0)) +
            chunk(b"IDAT", zlib.compress(raw, 9)) + chunk(b"IEND", b""))


def picture(i, scale):
    h, w = scale * (4 + i % 3), scale * (5 + i % 4)
    if i == COUNT - 1:
        h, w = scale * 40, scale * 20
        noise = random.Random(i)
        return h, w, png([[noise.randrange(256) for _ in range(3 * w)] for _ in range(h)])
    return h, w, png([[(7 * i + 31 * y + 5 * x + 50 * c) % 256 for x in range(w) for c in range(3)] for y in range(h)])


def main():
    for name, scale in (("small", 1), ("large", 2)):
        folder = pathlib.Path(__file__).parent / "lmdb" / f"{name}.lmdb"
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.iterdir():
            old.unlink()
        lines = []
        database = lmdb.open(str(folder), map_size=1 << 24)
        with database.begin(write=True) as change:
            change.put(b"to be deleted", b"-" * 9000)
        for part in (range(0, COUNT, 2), range(1, COUNT, 2)):  # several transactions, and pages that are free
            with database.begin(write=True) as change:
                change.delete(b"to be deleted")
                for i in part:
                    change.put(b"%04d_s%03d" % (i // 2, i), picture(i, scale)[2])
        database.close()
        (folder / "lock.mdb").unlink()
        for i in range(COUNT):
            h, w, _ = picture(i, scale)
            lines.append("%04d_s%03d.png (%d,%d,3) 1\n" % (i // 2, i, h, w))
        (folder / "meta_info.txt").write_text("".join(lines))


if __name__ == "__main__":
    main()
