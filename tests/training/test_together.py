"""One objective over several workers: loss, gradients and averages are those of one process."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from hilbound.engine.gather import Team, share
from hilbound.errors import InputError
from hilbound.models.build import MODELS
from hilbound.training import together
from support import workers

WORLDS = (2, 3, 4)


@pytest.fixture(scope="module")
def everything(tmp_path_factory):
    """What one process found, and each of two, three and four workers, for every case."""
    folder = tmp_path_factory.mktemp("workers")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    done = subprocess.run(  # noqa: S603 - our own interpreter
        [sys.executable, workers.__file__, str(port), folder, *map(str, WORLDS)],
        stderr=subprocess.PIPE,
        text=True,
        timeout=570,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return {
        (rank, world): torch.load(folder / f"{rank}-of-{world}.pt", weights_only=True)
        for world in (1, *WORLDS)
        for rank in range(world)
    }


@pytest.fixture
def alone(everything):
    """What one process found."""
    return everything[0, 1]


@pytest.fixture
def found(everything):
    """What each of the workers found."""
    return {who: theirs for who, theirs in everything.items() if who != (0, 1)}


def test_there_is_a_case_of_every_model_with_every_objective_that_trains_it():
    cases = [workers.Case(name, Team()) for name in workers.CASES]
    tested = {(case.config.model, case.config.objective) for case in cases}
    assert {model for model, _ in tested} == set(MODELS)
    # Slices can be compared by more.
    assert tested >= {
        (case.config.model, objective) for case in cases for objective in case.model.objectives
    }


@pytest.mark.parametrize("name", workers.CASES)
def test_workers_find_what_one_process_finds(found, alone, name):
    for who, theirs in found.items():
        assert theirs[name].keys() == alone[name].keys()
        for key, value in alone[name].items():
            torch.testing.assert_close(
                theirs[name][key], value, rtol=1e-6, atol=1e-9, equal_nan=True, msg=f"{who}: {key}"
            )


@pytest.mark.parametrize("name", workers.TRAINED)
def test_weights_after_fifty_steps_are_those_of_one_process(found, alone, name):
    untrained = workers.Case(name, Team()).model.named_parameters()
    trained = alone["trained"][name]
    assert any((trained[key] - before).abs().max() > 0.1 for key, before in untrained)
    assert set(workers.TRAINED_WITH) - {1} <= set(WORLDS)
    for rank, world in found:
        if world not in workers.TRAINED_WITH:
            continue
        for key, value in trained.items():
            torch.testing.assert_close(
                found[rank, world]["trained"][name][key],
                value,
                rtol=1e-6,
                atol=1e-6,
                equal_nan=True,
                msg=f"{rank} of {world}: {key}",
            )


@pytest.mark.parametrize("name", ["nuclear of 11", "debiased of 11", "schatten of 2"])
def test_a_matrix_is_decomposed_by_one_worker(found, name):
    # Of the debiased one: each half of the model with the data, and both with each other.
    each = {"debiased of 11": 3}.get(name, 1)
    for world in WORLDS:
        counts = [found[rank, world][f"decompositions, {name}"] for rank in range(world)]
        assert counts == [2 * each] + [0] * (world - 1)


def test_the_gradients_are_of_some_size(found):
    """Otherwise they would agree whatever their factor."""
    for name in workers.CASES:
        largest = max(
            float(value.abs().max())
            for key, value in found[0, 2][name].items()
            if key.startswith("gradient 0")
        )
        assert largest > 1e-4, name


def test_the_workers_agree_to_the_last_bit(found):
    for world in WORLDS:
        for name in workers.CASES:
            first = found[0, world][name]
            for rank in range(1, world):
                other = found[rank, world][name]
                assert all(
                    torch.equal(first[key].nan_to_num(), other[key].nan_to_num()) for key in first
                )


@pytest.mark.parametrize("world", [1, 2, 3, 7])
@pytest.mark.parametrize("total", [0, 1, 6, 20])
def test_shares_are_parts_of_the_whole_in_its_order(total, world):
    shares = [share(total, rank, world) for rank in range(world)]
    assert [row for one in shares for row in one] == list(range(total))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_where_no_program_can_be_started_again_that_is_said(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["-c"])
    with pytest.raises(InputError, match="several devices need a program"):
        together.require_a_program()
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "1")
    together.require_a_program()
    monkeypatch.delenv("TORCHELASTIC_RUN_ID")
    monkeypatch.setattr(sys, "argv", [str(Path(__file__))])
    monkeypatch.setitem(sys.modules, "IPython", object())
    with pytest.raises(InputError, match="several devices need a program"):
        together.require_a_program()


def test_the_number_of_workers_is_torchruns(monkeypatch):
    assert together.launched_devices("2") == ("2", 1)
    for name, value in (("TORCHELASTIC_RUN_ID", "x"), ("LOCAL_WORLD_SIZE", 2), ("WORLD_SIZE", 6)):
        monkeypatch.setenv(name, str(value))
    assert together.launched_devices("1") == together.launched_devices("auto") == ("2", 3)
    with pytest.raises(InputError, match="torchrun has started 2 workers here"):
        together.launched_devices("4")
    monkeypatch.setenv("RANK", "4")
    assert together.is_helper()
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert not together.is_helper()
