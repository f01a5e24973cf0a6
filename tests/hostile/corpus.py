"""Hostile files, one case for each threat; ``python tests/hostile/corpus.py FOLDER`` writes them.

Each case names its reader (:mod:`readers`) and makes a file or a folder that is small and claims
much: memory, time, code to run, or a place outside its own folder.
"""

import gzip
import io
import json
import os
import pickle
import shutil
import struct
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from good import make_good


class Case(NamedTuple):
    """A threat: which reader meets it, and what makes it in an empty folder."""

    reader: str
    make: Callable[[Path], Path]
    words: str


CASES: dict[str, Case] = {}


def case(reader, words):
    def keep(make):
        CASES[make.__name__.replace("_", " ").strip()] = Case(reader, make, words)
        return make

    return keep


class Bomb:
    """An object whose unpickling leaves a mark."""

    def __init__(self, mark):
        self.mark = str(mark)

    def __reduce__(self):
        return os.mkdir, (self.mark,)


def npy_header(shape, kind="<f8"):
    text = f"{{'descr': {kind!r}, 'fortran_order': False, 'shape': {shape!r}, }}"
    text += " " * (63 - (len(text) + 10) % 64) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode()


def write(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


# ------------------------------------------------------------------ arrays


@case("table", "at most 8: save")
def npy_that_claims_a_gigabyte_and_a_half(folder):
    """136 bytes, for which numpy would reserve 1.6 GB."""
    return write(folder / "x.npy", npy_header((200_000_000,)) + bytes(8))


@case("table", "at most")
def npy_that_claims_more_than_there_are_addresses(folder):
    return write(folder / "x.npy", npy_header((2**40, 2**40)) + bytes(80))


@case("table", "no size")
def npy_of_values_without_size(folder):
    return write(folder / "x.npy", npy_header((10**12,), "<U0"))


@case("table", "damaged")
def npy_with_a_negative_shape(folder):
    return write(folder / "x.npy", npy_header((-8, -8)) + bytes(512))


@case("table", "damaged")
def npy_whose_header_is_nested_deeply(folder):
    text = b"(" * 60_000
    return write(folder / "x.npy", b"\x93NUMPY\x02\x00" + struct.pack("<I", len(text)) + text)


@case("table", "damaged")
def npy_whose_header_claims_four_gigabytes(folder):
    return write(folder / "x.npy", b"\x93NUMPY\x02\x00" + struct.pack("<I", 2**32 - 1) + b"{}")


@case("table", "Python objects")
def npy_that_runs_code(folder):
    content = npy_header((1,), "|O") + pickle.dumps([Bomb(folder / "mark")])
    return write(folder / "x.npy", content)


def npz(path, header, data=b"", compression=zipfile.ZIP_DEFLATED, rows=1):
    with (
        zipfile.ZipFile(path, "w", compression, compresslevel=1) as archive,
        archive.open("x.npy", "w") as member,
    ):
        member.write(header)
        for _ in range(rows):
            member.write(data)
    return path


@case("table", "GB when read|memory")
def npz_of_half_a_gigabyte_of_zeros(folder):
    """Two megabytes that deflate half a gigabyte honestly."""
    return npz(folder / "x.npz", npy_header((2**26,)), bytes(2**24), rows=2**5)


@case("table", "at most")
def npz_whose_header_claims_more_than_the_archive_holds(folder):
    return npz(folder / "x.npz", npy_header((2**28, 2)), bytes(64))


@case("table", "at most")
def npz_whose_directory_claims_terabytes(folder):
    path = npz(folder / "x.npz", npy_header((2**36,)), bytes(64), zipfile.ZIP_STORED)
    content = bytearray(path.read_bytes())
    place = content.rindex(b"PK\x01\x02")
    content[place + 24 : place + 28] = struct.pack("<I", 2**32 - 2)
    return write(path, bytes(content))


@case("table", "does not write|damaged")
def npz_packed_with_bz2(folder):
    return npz(folder / "x.npz", npy_header((2**28,)), bytes(2**20), zipfile.ZIP_BZIP2, 2)


@case("table", "Python objects")
def npz_that_runs_code(folder):
    header = npy_header((1,), "|O")
    return npz(folder / "x.npz", header, pickle.dumps([Bomb(folder / "mark")]))


# ------------------------------------------------------------------ tables as text


@case("table", "1,000,000 columns")
def csv_of_a_million_columns(folder):
    return write(folder / "x.csv", (",".join("1" * 10**6) + "\n") * 12)


@case("mixed", "1,000,000 columns")
def mixed_csv_of_a_million_columns(folder):
    return write(folder / "x.csv", (",".join("1" * 10**6) + "\n") * 12)


@case("mixed", "several columns are named")
def csv_of_a_hundred_thousand_equal_names(folder):
    """Counting each name would take hours."""
    return write(folder / "x.csv", ",".join(["a"] * 10**5) + "\n" + ",".join("1" * 10**5) + "\n")


@case("table", "a line of more than")
def csv_of_one_endless_line(folder):
    return write(folder / "x.csv", "1" * (1 << 26))


@case("mixed", "a line of more than|memory")
def gzipped_csv_of_one_endless_line(folder):
    path = folder / "x.csv.gz"
    with gzip.open(path, "wb", 1) as file:
        file.write(b"a,b\n")
        for _ in range(2**3):
            file.write(b"0" * 2**24)
    return path


@case("table", "cannot be read")
def csv_that_is_a_pipe(folder):
    os.mkfifo(folder / "x.csv")
    return folder / "x.csv"


@case("table", "cannot be read")
def npy_that_is_a_device(folder):
    (folder / "x.npy").symlink_to("/dev/zero")
    return folder / "x.npy"


# ------------------------------------------------------------------ Parquet


def parquet(folder, table, **options):
    import pyarrow.parquet as pq

    pq.write_table(table, folder / "x.parquet", **options)
    return folder / "x.parquet"


@case("mixed", "at most|GB when read")
def parquet_of_many_equal_rows(folder):
    import pyarrow as pa
    import pyarrow.parquet as pq

    column = pa.array(np.zeros(2**22, np.int8))
    with pq.ParquetWriter(
        folder / "x.parquet", pa.schema([("a", pa.int8())]), compression="zstd"
    ) as writer:
        for _ in range(2**5):
            writer.write_table(pa.table({"a": column}))
    return folder / "x.parquet"


@case("mixed", "columns")
def parquet_of_many_columns(folder):
    import pyarrow as pa

    names = [f"c{i}" for i in range(100_001)]
    return parquet(folder, pa.table([pa.array([1.0])] * len(names), names=names))


# ------------------------------------------------------------------ MNIST and CIFAR


@case("idx", "truncated")
def idx_that_claims_eighty_zettabytes(folder):
    return write(folder / "x", struct.pack(">4I", 2051, *[2**32 - 1] * 3))


@case("idx", "at most")
def gzipped_idx_that_claims_a_terabyte(folder):
    return write(folder / "x.gz", gzip.compress(struct.pack(">4I", 2051, 10**6, 1000, 1000)))


@case("idx", "trailing")
def gzipped_idx_that_goes_on_and_on(folder):
    with gzip.open(folder / "x.gz", "wb", 1) as file:
        file.write(struct.pack(">2I", 2049, 10) + bytes(10))
        for _ in range(2**2):
            file.write(bytes(2**24))
    return folder / "x.gz"


def tar(folder, name, size, content):
    info = tarfile.TarInfo(name)
    info.size = size
    with gzip.open(folder / "cifar-10-binary.tar.gz", "wb") as file:
        file.write(info.tobuf(tarfile.GNU_FORMAT) + content)
    return folder


@case("cifar", "bytes, where")
def cifar_batch_that_claims_gigabytes(folder):
    return tar(folder, "data_batch_1.bin", 8 * 10**9, bytes(3073))


@case("cifar", "damaged archive")
def tar_whose_name_claims_gigabytes(folder):
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 8 * 10**9
    with gzip.open(folder / "cifar-10-binary.tar.gz", "wb") as file:
        file.write(info.tobuf(tarfile.GNU_FORMAT) + bytes(1024))
    return folder


@case("cifar", "damaged archive|missing")
def tar_of_more_than_there_can_be(folder):
    info = tarfile.TarInfo("readme")
    info.size = 420_000_000
    with gzip.open(folder / "cifar-10-binary.tar.gz", "wb", 1) as file:
        file.write(info.tobuf(tarfile.GNU_FORMAT))
        for _ in range(26):
            file.write(bytes(2**24))
    return folder


# ------------------------------------------------------------------ pictures


def chunk(kind, content):
    return (
        struct.pack(">I", len(content))
        + kind
        + content
        + struct.pack(">I", zlib.crc32(kind + content))
    )


def png(width, height, pixels=b"\0", depth=8, colour=2, extra=b""):
    header = struct.pack(">2I5B", width, height, depth, colour, 0, 0, 0)
    data = chunk(b"IHDR", header) + extra + chunk(b"IDAT", zlib.compress(pixels))
    return b"\x89PNG\r\n\x1a\n" + data + chunk(b"IEND", b"")


@case("picture", "Pillow's limit")
def png_of_a_hundred_million_pixels(folder):
    return write(folder / "x.png", png(10_001, 10_000))


@case("picture", "claim to be a picture")
def png_of_eighty_million_pixels_that_are_not_there(folder):
    return write(folder / "x.png", png(8_900, 9_000))


@case("picture", "damaged")
def png_whose_text_unpacks_to_a_lot(folder):
    text = chunk(b"zTXt", b"key\0\0" + zlib.compress(bytes(2**27), 1))
    return write(folder / "x.png", png(2, 2, bytes(14), extra=text))


@case("picture", "claim to be a picture|Pillow's limit")
def jpeg_of_many_pixels_that_are_not_there(folder):
    from PIL import Image

    stream = io.BytesIO()
    Image.new("L", (8, 8)).save(stream, "JPEG")
    content = bytearray(stream.getvalue())
    place = content.index(b"\xff\xc0") + 5
    content[place : place + 4] = struct.pack(">2H", 9_000, 9_000)
    return write(folder / "x.jpg", bytes(content))


@case("folder", "damaged")
def folder_with_a_script_called_png(folder):
    (folder / "images").mkdir()
    for i in range(12):
        write(folder / "images" / f"{i}.png", b"%!PS-Adobe-3.0 EPSF-3.0\n(run) system\n")
    return folder / "images"


@case("celeba", "missing")
def celeba_whose_list_leaves_the_folder(folder):
    (folder / "img_align_celeba").mkdir()
    write(folder / "list_eval_partition.txt", "../../../etc/passwd 0\n/etc/hostname 1\n")
    return folder


# ------------------------------------------------------------------ configurations


@case("config", "aliases")
def yaml_of_a_billion_laughs(folder):
    text = "a0: &a0 [x, x]\n"
    text += "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 20))
    return write(folder / "config.yaml", text)


@case("config", "nested")
def yaml_nested_deeply(folder):
    return write(folder / "config.yaml", "[" * 50_000)


@case("config", "bytes, and options take")
def yaml_of_megabytes(folder):
    return write(folder / "config.yaml", "a: 1\n" * 10**6)


@case("config", "not YAML")
def yaml_that_runs_code(folder):
    return write(
        folder / "config.yaml",
        f"data: !!python/object/apply:os.mkdir ['{folder / 'mark'}']\n",
    )


@case("config", "not YAML")
def yaml_of_a_number_without_end(folder):
    return write(folder / "config.yaml", f"data: moons\nsteps: {'9' * 10_000}\n")


@case("config", "not YAML")
def yaml_of_a_date_that_is_none(folder):
    return write(folder / "config.yaml", "data: 2024-99-99\n")


@case("config", "cannot be read")
def yaml_that_is_a_device(folder):
    (folder / "config.yaml").symlink_to("/dev/zero")
    return folder / "config.yaml"


@case("config", "columns: must be names with commas between them")
def configuration_with_a_line_break_in_its_columns(folder):
    return write(folder / "config.yaml", 'data: moons\ncolumns: "a\\rb"\n')


@case("config", "width")
def configuration_as_wide_as_a_billion(folder):
    return write(folder / "config.yaml", "data: moons\nwidth: 1000000000\n")


@case("config", "depth")
def configuration_as_deep_as_a_billion(folder):
    return write(folder / "config.yaml", "data: moons\ndepth: 1000000000\n")


# ------------------------------------------------------------------ run folders, estimators


def copied(folder, name):
    """Return a copy of a good run or estimator, which :func:`make_good` has left beside."""
    good = folder.parent / "good" / name
    place = folder / name
    if good.is_dir():
        shutil.copytree(good, place)
    else:
        shutil.copy(good, place)
    return place


def edit(path, change):
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    path.write_text(json.dumps(content), encoding="utf-8")


def forge(path, change):
    """Rewrite the header of a safetensors file."""
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    header = change(header) or header
    text = json.dumps(header).encode()
    return write(path, struct.pack("<Q", len(text)) + text + content[8 + length :])


@case("run", "does not hold the weights|weights, which take")
def run_whose_options_claim_terabytes(folder):
    """Within the limits of each option, and together 1 TB."""
    run = copied(folder, "run")
    text = (run / "config.yaml").read_text()
    text = text.replace("width: 8", "width: 65536").replace("depth: 1", "depth: 60")
    return write(run / "config.yaml", text).parent


@case("run", "data.columns|does not hold the weights")
def run_whose_data_claim_a_trillion_coordinates(folder):
    run = copied(folder, "run")
    edit(run / "run.json", lambda facts: facts["data"].update(dim=10**12))
    return run


@case("run", "image_shape")
def run_whose_images_claim_gigapixels(folder):
    run = copied(folder, "run")
    edit(run / "run.json", lambda facts: facts["data"].update(image_shape=[3, 10**6, 10**6]))
    return run


@case("run", "nested too deeply")
def run_with_deep_json(folder):
    run = copied(folder, "run")
    return write(run / "run.json", "[" * 200_000).parent


@case("run", "damaged")
def run_with_json_of_megabytes(folder):
    run = copied(folder, "run")
    return write(run / "run.json", "[" + "[]," * 10**7 + "[]]").parent


@case("run", "link out of the run folder")
def run_whose_weights_are_a_link_elsewhere(folder):
    run = copied(folder, "run")
    (run / "model.safetensors").rename(folder / "elsewhere")
    (run / "model.safetensors").symlink_to(folder / "elsewhere")
    return run


@case("run", "link out of the run folder")
def run_whose_checkpoints_are_a_link_elsewhere(folder):
    run = copied(folder, "run")
    (run / "checkpoints").rename(folder / "elsewhere")
    (run / "checkpoints").symlink_to(folder / "elsewhere")
    return run


@case("run", "link out of the run folder")
def run_whose_links_go_in_circles(folder):
    run = copied(folder, "run")
    (run / "bounds.csv").unlink()
    (run / "bounds.csv").symlink_to(run / "report.html")
    (run / "report.html").symlink_to(run / "bounds.csv")
    return run


@case("run", "no regular file")
def run_with_a_pipe(folder):
    run = copied(folder, "run")
    (run / "bounds.csv").unlink()
    os.mkfifo(run / "bounds.csv")
    return run


@case("run", "does not hold the weights")
def run_whose_weights_claim_terabytes(folder):
    run = copied(folder, "run")

    def change(header):
        one = next(v for k, v in header.items() if k != "__metadata__")
        one["shape"] = [10**6, 10**6]

    return forge(run / "model.safetensors", change).parent


@case("run", "no checkpoint of this run")
def run_whose_checkpoint_runs_code(folder):
    run = copied(folder, "run")
    return write(
        run / "checkpoints" / "last.ckpt", pickle.dumps(Bomb(folder / "mark"))
    ).parent.parent


@case("checkpoint", "no checkpoint of this run")
def checkpoint_with_deep_json(folder):
    path = copied(folder, "run") / "checkpoints" / "last.ckpt"
    return forge(path, lambda h: h["__metadata__"].update({"hilbound.checkpoint": "[" * 10**5}))


def _facts(change):
    def rewrite(header):
        told = json.loads(header["__metadata__"]["hilbound.estimator"])
        change(told["facts"])
        header["__metadata__"]["hilbound.estimator"] = json.dumps(told)

    return rewrite


@case("density", "damaged")
def estimator_of_a_trillion_parts(folder):
    return forge(copied(folder, "density"), _facts(lambda facts: facts.update(parts=10**12)))


@case("density", "no whole estimator|damaged")
def estimator_with_deep_json(folder):
    def change(header):
        header["__metadata__"]["hilbound.estimator"] = "[" * 10**5

    return forge(copied(folder, "density"), change)


@case("coder", "damaged")
def coder_of_a_billion_features(folder):
    change = _facts(lambda facts: facts["parameters"].update(n_features=10**9))
    return forge(copied(folder, "coder"), change)


@case("conditional", "damaged")
def conditional_estimator_of_an_unknown_class(folder):
    change = _facts(lambda facts: facts["learned"]["model_"].update(__class__="Popen"))
    return forge(copied(folder, "conditional"), change)


@case("conditional", "damaged")
def conditional_estimator_that_replaces_a_method(folder):
    change = _facts(lambda facts: facts["learned"].update(predict="x"))
    return forge(copied(folder, "conditional"), change)


@case("table run", "nested too deeply")
def table_run_with_deep_json(folder):
    run = copied(folder, "table run")
    return write(run / "run.json", "[" * 200_000).parent


@case("table run", "link out of the run folder")
def table_run_whose_model_is_a_link_elsewhere(folder):
    run = copied(folder, "table run")
    (run / "model.safetensors").rename(folder / "elsewhere")
    (run / "model.safetensors").symlink_to(folder / "elsewhere")
    return run


def make_cases(folder, names=None):
    """Write the cases below a folder, beside the good ones, and return their paths by name."""
    made = {}
    for number, (name, one) in enumerate(CASES.items()):
        if names is None or name in names:
            place = folder / f"case-{number:03d}"
            place.mkdir()
            made[name] = one.make(place)
    return made


if __name__ == "__main__":
    target = Path(sys.argv[1])
    target.mkdir(parents=True, exist_ok=True)
    make_good(target / "good")
    for shown, path in make_cases(target).items():
        print(f"{shown}: {path}")
