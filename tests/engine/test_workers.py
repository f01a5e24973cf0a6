"""Matrices of a batch on several threads: the same numbers, and nothing else changed."""

import os
import threading

import pytest
import torch

from hilbound.engine.spectrum.norms import nuclear_norm, schatten_power
from hilbound.engine.spectrum.svd import singular_values
from hilbound.engine.workers import over_batch


@pytest.fixture(params=[1, 2, 3])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def normal(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.usefixtures("threads")
def test_results_are_in_order_whatever_the_number_of_threads():
    batch = torch.arange(7.0)
    one, other = over_batch(lambda part: (part + 1, part.unsqueeze(-1) * 2), batch)
    assert torch.equal(one, batch + 1)
    assert torch.equal(other, 2 * batch.unsqueeze(-1))


def test_every_thread_uses_one_core_and_no_gradients(threads):
    seen = []

    def look(part):
        seen.append((threading.get_ident(), torch.get_num_threads(), torch.is_grad_enabled()))
        return (part,)

    over_batch(look, torch.arange(12.0).requires_grad_())
    assert torch.get_num_threads() == threads
    if threads > 1:
        assert all(cores == 1 and not gradients for _, cores, gradients in seen)
        assert threading.get_ident() not in {name for name, *_ in seen}
        assert len(seen) == threads


def test_later_threads_have_as_many_cores_as_before(threads):
    over_batch(lambda part: (part,), torch.arange(12.0))
    counts = []
    thread = threading.Thread(target=lambda: counts.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert counts == [threads]


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("power", [1.0, 0.6])
def test_norms_of_a_batch_are_those_of_its_matrices(power):
    batch = normal(5, 6, 4).requires_grad_()
    total = schatten_power(batch, power)
    (slope,) = torch.autograd.grad(total.sum(), batch)
    for k in range(5):
        alone = batch[k].detach().requires_grad_()
        value = schatten_power(alone, power)
        assert torch.allclose(total[k], value, rtol=1e-13)
        gradient = torch.autograd.grad(value, alone)[0]
        assert torch.allclose(slope[k], gradient, rtol=1e-10, atol=1e-13)
    assert torch.allclose(singular_values(batch)[2], singular_values(batch[2]), rtol=1e-13)


def test_an_error_in_a_thread_arrives():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with pytest.raises(ValueError, match="the second part"):
            over_batch(_refuse_the_last, torch.arange(4.0))
    finally:
        torch.set_num_threads(before)


def _refuse_the_last(part):
    if 3 in part:
        raise ValueError("the second part")
    return (part,)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="a fork needs POSIX")
def test_a_forked_process_starts_threads_of_its_own():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        nuclear_norm(normal(4, 3, 3))
        child = os.fork()
        if child == 0:
            done = nuclear_norm(normal(4, 3, 3)).isfinite().all()
            os._exit(0 if done else 1)
        assert os.waitpid(child, 0)[1] == 0
    finally:
        torch.set_num_threads(before)
