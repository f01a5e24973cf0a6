"""A fuzzer over every reader: valid files, mutated, and no outcome but the library's own errors.

``python tests/hostile/fuzz.py --cases 1000000 --seed 1`` runs as many as asked, in processes with
little memory, and prints what else came out. The tests run a few through hypothesis.
"""

import argparse
import collections
import io
import json
import logging
import random
import shutil
import signal
import struct
import sys
import tempfile
import time
import warnings
from concurrent.futures import ProcessPoolExecutor
from itertools import repeat
from pathlib import Path
from typing import NamedTuple

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

import corpus
import mutate as m
import serve
from good import make_good
from readers import HAS_PARQUET, READERS


class Seed(NamedTuple):
    """A valid file: its reader, its name, what it holds, and how it is mutated."""

    reader: str
    name: str
    content: bytes
    mutate: object = m.mutate
    #: A folder in which the file is exchanged; the reader gets the folder.
    folder: Path | None = None


def _saved(save):
    stream = io.BytesIO()
    save(stream)
    return stream.getvalue()


def _pictures():
    from PIL import Image

    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (6, 7, 3), np.uint8))
    for kind in ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM"):
        content = _saved(lambda stream, kind=kind: image.save(stream, kind))
        yield Seed("picture", f"x.{kind.lower()}", content)
        if kind == "PNG":
            yield Seed("picture", "x.png", content, m.mutate_png)


def _tables(good):
    x = np.random.default_rng(0).normal(size=(12, 2))
    labels = np.arange(12) % 2
    yield Seed("table", "x.npy", _saved(lambda s: np.save(s, x)))
    yield Seed("table", "x.npz", _saved(lambda s: np.savez(s, x=x, y=labels)))
    yield Seed("table", "x.npz", _saved(lambda s: np.savez_compressed(s, x=x)))
    text = (good / "table.csv").read_bytes()[:400].rpartition(b"\n")[0] + b"\n"
    mixed = b"a,b,c\n" + b"".join(b"%d,red,%d.5\n" % (i, i) for i in range(12))
    yield Seed("table", "x.csv", text)
    yield Seed("mixed", "x.csv", mixed)
    yield Seed("mixed", "x.tsv", mixed.replace(b",", b"\t"))
    yield Seed("mixed", "x.csv.gz", corpus.gzip.compress(mixed), m.mutate_gzip)
    yield Seed("mixed", "x.csv.gz", corpus.gzip.compress(mixed))
    if HAS_PARQUET:
        import pandas as pd

        frame = pd.read_csv(io.BytesIO(mixed))
        yield Seed("mixed", "x.parquet", _saved(frame.to_parquet))
    idx = struct.pack(">4I", 2051, 2, 2, 2) + bytes(8)
    yield Seed("idx", "x", idx)
    yield Seed("idx", "x.gz", corpus.gzip.compress(idx), m.mutate_gzip)


# Samples at some steps of a training in the plane.
_FILM = "snapshots.safetensors"


def seeds(good):
    """Return all valid files, given the folder of the good runs and estimators."""
    found = [*_tables(good), *_pictures()]
    found.append(Seed("config", "config.yaml", (good / "run" / "config.yaml").read_bytes()))
    for reader, names in (
        ("run", ("config.yaml", "run.json", "bounds.csv", "model.safetensors", _FILM)),
        ("table run", ("config.yaml", "run.json", "model.safetensors")),
    ):
        for name in names:
            content = (good / reader / name).read_bytes()
            found.append(Seed(reader, name, content, folder=good / reader))
            if name.endswith("safetensors"):
                found.append(Seed(reader, name, content, m.mutate_header, good / reader))
    for reader, path in (
        ("checkpoint", "run/checkpoints/last.ckpt"),
        *((name, name) for name in ("density", "coder", "conditional")),
    ):
        content = (good / path).read_bytes()
        found += [Seed(reader, "x", content), Seed(reader, "x", content, m.mutate_header)]
    return found


def attempt(seed, mutations, place):
    """Read a mutated file, and return what came of it."""
    content = seed.mutate(seed.content, mutations)
    if seed.folder is None:
        path = place / seed.name
        path.write_bytes(content)
    else:
        path = place / seed.reader
        if not path.exists():
            shutil.copytree(seed.folder, path)
        (path / seed.name).write_bytes(content)
    try:
        return serve.outcome(READERS[seed.reader], path)
    finally:
        if seed.folder is not None:
            (path / seed.name).write_bytes(seed.content)


def drawn(draw):
    """Draw a few mutations from ``random.Random``."""
    return [
        (draw.choice(m.KINDS), draw.random(), draw.randrange(2**16))
        for _ in range(draw.choice((1, 1, 2, 3, 6)))
    ]


def run_cases(numbers, seed, readers):
    """Run the cases of these numbers in this process, and return the outcomes and the faults."""
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    found, counts = collections.Counter(), collections.Counter()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        make_good(place / "good")
        files = [s for s in seeds(place / "good") if not readers or s.reader in readers]
        for one in files:  # what is imported late is imported now, and every seed is valid
            result = attempt(one, [], place)
            assert result["outcome"] == "read", (one.reader, one.name, result)
        serve.limit_memory()
        signal.signal(signal.SIGALRM, serve._late)
        for number in numbers:
            draw = random.Random(f"{seed} {number}")
            file = files[number % len(files)]
            mutations = drawn(draw)
            signal.alarm(serve.SECONDS)
            result = attempt(file, mutations, place)
            signal.alarm(0)
            counts[result["outcome"]] += 1
            if result["outcome"] == "raised":
                key = (file.reader, file.name, result["message"][:60])
                found[key] += 1
                if found[key] == 1:
                    print(json.dumps([number, *key, mutations]), flush=True)
    return counts, found, len(files)


def main():
    """Run as many cases as asked, in turn over all valid files. The number of a case makes it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2, help="processes that share the cases")
    parser.add_argument("--readers", nargs="*", help="only these")
    asked = parser.parse_args()
    began = time.perf_counter()
    shares = [range(k, asked.cases, asked.workers) for k in range(asked.workers)]
    with ProcessPoolExecutor(asked.workers) as pool:
        of_each = list(pool.map(run_cases, shares, repeat(asked.seed), repeat(asked.readers)))
    counts = sum((counts for counts, _, _ in of_each), collections.Counter())
    seconds = time.perf_counter() - began
    print(f"{asked.cases:,} cases in {seconds:.0f} s: {dict(counts)}; {of_each[0][2]} files")
    sys.exit(1 if any(found for _, found, _ in of_each) else 0)


if __name__ == "__main__":
    main()
