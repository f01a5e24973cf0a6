"""Files of strangers: every case of the corpus is refused in words, with little memory and time."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hilbound.errors import InputError

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

import corpus
import fuzz
import mutate
from good import make_good
from readers import HAS_PARQUET

NAMES = [name for name in corpus.CASES if HAS_PARQUET or "parquet" not in name]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hostile")
    make_good(folder / "good")
    return folder


@pytest.fixture(scope="module")
def ask(folder):
    """Ask the process with little memory to read a file."""
    with subprocess.Popen(
        [sys.executable, HERE / "serve.py", folder / "good"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:

        def read(reader, path):
            process.stdin.write(json.dumps({"reader": reader, "path": str(path)}) + "\n")
            process.stdin.flush()
            line = process.stdout.readline()
            assert line, f"the process has died of {path}"
            return json.loads(line)

        yield read
        process.stdin.close()


@pytest.fixture(scope="module")
def made(folder):
    return corpus.make_cases(folder, set(NAMES))


@pytest.mark.parametrize("name", NAMES)
def test_what_is_hostile_is_refused_in_words(ask, made, name):
    case, path = corpus.CASES[name], made[name]
    result = ask(case.reader, path)
    assert result["outcome"] == "refused", result
    assert re.search(case.words, result["message"]), result["message"]
    assert not list(path.parent.rglob("mark")), "code was run"
    assert result["seconds"] < 30


@pytest.mark.parametrize("name", ["density", "coder", "conditional", "run", "table run"])
def test_what_is_good_is_read_in_the_same_memory(ask, folder, name):
    assert ask(name, folder / "good" / name)["outcome"] == "read"


MUTATIONS = st.lists(
    st.tuples(
        st.sampled_from(mutate.KINDS),
        st.floats(0, 1, exclude_max=True),
        st.integers(0, 2**16 - 1),
    ),
    min_size=1,
    max_size=6,
)


@pytest.fixture(scope="module")
def seeds(folder):
    return fuzz.seeds(folder / "good")


@settings(max_examples=400, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_whatever_is_mutated_nothing_but_our_own_errors_comes_out(folder, seeds, data):
    place = folder / "fuzzed"
    place.mkdir(exist_ok=True)
    number = data.draw(st.integers(0, len(seeds) - 1))
    mutations = data.draw(MUTATIONS)
    result = fuzz.attempt(seeds[number], mutations, place)
    assert result["outcome"] in {"read", "refused"}, (seeds[number].reader, result)


def test_the_fuzzer_finds_a_reader_that_lets_others_errors_out(folder, seeds, monkeypatch):
    monkeypatch.setitem(fuzz.READERS, "idx", lambda path: path.read_bytes()[99])
    seed = next(one for one in seeds if one.reader == "idx")
    assert fuzz.attempt(seed, [], folder)["message"].startswith("IndexError")
    monkeypatch.setitem(fuzz.READERS, "idx", lambda path: (_ for _ in ()).throw(InputError("no")))
    assert fuzz.attempt(seed, [], folder) == {"outcome": "refused", "message": "no"}
