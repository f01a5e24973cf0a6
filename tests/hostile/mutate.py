"""Mutations of valid files: what damage and forgery do to bytes, as data that can be drawn.

A mutation is ``(kind, place, value)`` with a place in [0, 1) and a value below 2^16. The same
function serves hypothesis, which shrinks them, and a plain random generator.
"""

import gzip
import re
import struct
import zlib

NUMBERS = (
    0,
    1,
    127,
    128,
    255,
    256,
    2**15,
    2**16 - 1,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**63,
    2**64 - 1,
)
WORDS = (
    *(b"-1", b"0", b"1e999", b"nan", b"null", b"[]", b"{}", b'"x"', b"true", b"99999999999"),
    *(b"9" * 30, b"-0.0", b"1e-320", b"2147483648", b"", b"[[[[[[[[", b"\xff\xfe", b"\0"),
)
KINDS = ("flip", "number", "cut", "drop", "repeat", "insert", "word", "swap")
_DIGITS = re.compile(rb"\d+")


def mutate(content: bytes, mutations) -> bytes:
    """Apply mutations, one after the other."""
    data = bytearray(content)
    for kind, place, value in mutations:
        if not data:
            break
        at = int(place * len(data))
        _APPLY[kind](data, at, value)
    return bytes(data)


def _flip(data, at, value):
    data[at] ^= 1 + value % 255


def _number(data, at, value):
    size, order = (1, 2, 4, 8)[value % 4], "<>"[value // 4 % 2]
    number = NUMBERS[value // 8 % len(NUMBERS)] % 2 ** (8 * size)
    packed = struct.pack(order + "BHIQ"[value % 4], number)
    data[at : at + size] = packed


def _word(data, at, value):
    found = _DIGITS.search(data, at) or _DIGITS.search(data)
    if found:
        data[found.start() : found.end()] = WORDS[value % len(WORDS)]


def _swap(data, at, value):
    other = value % len(data)
    data[at], data[other] = data[other], data[at]


_APPLY = {
    "flip": _flip,
    "number": _number,
    "cut": lambda data, at, _: data.__delitem__(slice(at, None)),
    "drop": lambda data, at, value: data.__delitem__(slice(at, at + 1 + value % 64)),
    "repeat": lambda data, at, value: data.__setitem__(
        slice(at, at), data[at : at + 1 + value % 64] * (1 + value % 9)
    ),
    "insert": lambda data, at, value: data.__setitem__(slice(at, at), WORDS[value % len(WORDS)]),
    "word": _word,
    "swap": _swap,
}


# ------------------------------------------------------------------ deeper than a checksum


def mutate_gzip(content, mutations):
    """Mutate what is inside, and pack it anew."""
    return gzip.compress(mutate(gzip.decompress(content), mutations), 1)


def mutate_header(content, mutations):
    """Mutate the JSON header of a safetensors file, and mend its length."""
    (length,) = struct.unpack("<Q", content[:8])
    header = mutate(content[8 : 8 + length], mutations)
    return struct.pack("<Q", len(header)) + header + content[8 + length :]


def mutate_png(content, mutations):
    """Mutate the chunks of a PNG, and mend their checksums."""
    data, place = bytearray(mutate(content, mutations)), 8
    while place + 12 <= len(data):
        (length,) = struct.unpack(">I", data[place : place + 4])
        end = place + 8 + length
        if end + 4 > len(data):
            break
        data[end : end + 4] = struct.pack(">I", zlib.crc32(data[place + 4 : end]))
        place = end + 4
    return bytes(data)
