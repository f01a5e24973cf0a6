"""Streams are functions of a seed and a name, in this process and the next."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hilbound.engine.seeding import seeded_globally, stream


def draw(*names):
    return torch.rand(4, generator=stream(*names)).tolist()


def test_a_stream_is_a_function_of_its_name():
    assert draw(0, "noise", 1) == draw(0, "noise", 1)


def test_streams_are_the_same_in_every_process_and_version():
    """Runs are repeatable only as long as these numbers stay."""
    assert stream(0).initial_seed() == 7210762507766007076
    assert stream(7, "noise", 12).initial_seed() == 7091711781783989702


@pytest.mark.parametrize(
    "other",
    [
        (1, "noise", 1),
        (0, "data", 1),
        (0, "noise", 2),
        (0, "noise"),
        (0, "noise", "1"),
        (0, "noise1"),
    ],
)
def test_other_names_are_other_streams(other):
    assert draw(0, "noise", 1) != draw(*other)


def test_names_are_not_run_together():
    assert draw(0, "ab", "c") != draw(0, "a", "bc")
    assert draw(1, 1, "a") != draw(11, "a")


@given(st.integers(0, 2**32 - 1), st.text(), st.integers(0, 10**9))
def test_seeds_suit_every_device(seed, name, step):
    generator = stream(seed, name, step)
    assert 0 <= generator.initial_seed() < 2**63
    assert generator.device == torch.device("cpu")


def test_the_seeds_of_neighbours_do_not_collide():
    seeds = {stream(seed, "noise", step).initial_seed() for seed in range(20) for step in range(50)}
    assert len(seeds) == 1000


def test_neither_the_global_generator_nor_other_streams_matter():
    before, expected = torch.get_rng_state(), draw(0, "noise", 5)
    for step in range(5):
        draw(0, "noise", step)
    assert draw(0, "noise", 5) == expected
    assert torch.equal(torch.get_rng_state(), before)


def test_a_lent_generator_gives_what_its_seed_does():
    with seeded_globally(5):
        drawn = torch.rand(4)
    assert torch.equal(drawn, torch.rand(4, generator=torch.Generator().manual_seed(5)))


def fail_after_a_draw():
    with seeded_globally(5):
        torch.rand(4)
        raise KeyError


def test_a_lent_generator_is_put_back_even_after_an_error():
    before = torch.get_rng_state()
    with pytest.raises(KeyError):
        fail_after_a_draw()
    assert torch.equal(torch.get_rng_state(), before)
