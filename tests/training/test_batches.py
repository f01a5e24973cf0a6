"""Batches: every row once a pass, and every step a function of the seed."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from hilbound.training.batches import Batches, BatchStream

SIZES = {"n": st.integers(1, 40), "batch": st.integers(1, 50), "steps": st.integers(1, 12)}


def numbers(n, batch, steps, seed=0, **options):
    """The numbers of the rows that a stream visits, one line for each step."""
    stream = BatchStream(torch.arange(n).unsqueeze(-1), batch, steps, seed, **options)
    return torch.stack([rows.squeeze(-1) for rows in stream])


@given(**SIZES)
def test_every_pass_visits_every_row_once(n, batch, steps):
    visited = numbers(n, batch, steps)
    assert visited.shape == (steps, batch)
    for part in visited.flatten().split(n):
        assert len(set(part.tolist())) == len(part)


@given(**SIZES, first=st.integers(0, 12))
def test_a_stream_goes_on_where_another_stopped(n, batch, steps, first):
    first = min(first, steps - 1)
    assert torch.equal(numbers(n, batch, steps, first=first), numbers(n, batch, steps)[first:])


@given(**SIZES, world=st.integers(1, 4))
def test_devices_share_the_rows_of_a_step(n, batch, steps, world):
    parts = [numbers(n, batch, steps, rank=rank, world=world) for rank in range(world)]
    assert torch.equal(torch.cat(parts, 1), numbers(n, batch * world, steps))


def test_the_order_depends_on_the_seed_and_the_pass():
    one = numbers(100, 100, 2, seed=1)
    assert torch.equal(one, numbers(100, 100, 2, seed=1))
    assert not torch.equal(one, numbers(100, 100, 2, seed=2))
    assert not torch.equal(one[0], one[1])


def test_a_stream_can_be_walked_twice():
    stream = BatchStream(torch.arange(7.0).unsqueeze(-1), 3, 5, 0)
    assert torch.equal(torch.cat(list(stream)), torch.cat(list(stream)))
    assert len(stream) == 5


def test_the_global_generator_is_left_alone():
    before = torch.get_rng_state()
    numbers(10, 4, 6)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_fixed_sequence_of_batches():
    parts = torch.arange(6.0).reshape(6, 1).split(2)
    batches = Batches(parts)
    assert len(batches) == 3
    assert torch.equal(torch.cat(list(batches)), torch.cat(parts))
