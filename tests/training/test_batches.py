"""Batches: every row once a pass, and every step a function of the seed."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from hilbound.training.batches import Batches, BatchStream, BlockStream, LabelledStream

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


GROUPS = {"sizes": st.lists(st.integers(1, 12), min_size=1, max_size=4), "n": st.integers(1, 9)}


def block_numbers(sizes, n, steps, **options):
    """The numbers of rows of each step and block, and the block of each row."""
    blocks = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    blocks = blocks[torch.randperm(len(blocks), generator=torch.Generator().manual_seed(1))]
    rows = torch.arange(len(blocks)).unsqueeze(-1)
    stream = BlockStream(rows, blocks, n, steps=steps, seed=0, **options)
    return torch.stack([batch.squeeze(-1) for batch in stream]), blocks


@given(**GROUPS)
def test_every_block_gets_as_many_rows_of_its_own(sizes, n):
    visited, blocks = block_numbers(sizes, n, 6)
    assert visited.shape == (6, len(sizes), n)
    for c, size in enumerate(sizes):
        own = visited[:, c].flatten()
        assert bool((blocks[own] == c).all())
        # Every pass visits each row of the block once.
        for part in own.split(size):
            assert len(set(part.tolist())) == len(part)


@given(**GROUPS, first=st.integers(0, 5))
def test_blocks_go_on_where_another_stream_stopped(sizes, n, first):
    whole, _ = block_numbers(sizes, n, 6)
    assert torch.equal(block_numbers(sizes, n, 6, first=first)[0], whole[first:])


def test_labels_stay_with_their_rows():
    labels = torch.arange(10) % 3
    stream = LabelledStream(torch.arange(10.0).unsqueeze(-1), labels, batch_size=4, steps=5, seed=0)
    plain = BatchStream(torch.arange(10.0).unsqueeze(-1), batch_size=4, steps=5, seed=0)
    for batch, rows in zip(stream, plain, strict=True):
        assert torch.equal(batch.x, rows)
        assert torch.equal(batch.labels, labels[rows.squeeze(-1).long()])
