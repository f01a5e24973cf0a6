"""Work on the matrices of a batch by several threads, each of which uses one core.

A decomposition of a small matrix gains nothing from a second core. It even loses time, because
threads of the linear algebra wait for each other after every small product. Whole matrices on
different cores need no waiting.
"""

import functools
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor


def over_batch(
    function: Callable[[Tensor], tuple[Tensor, ...]], batch: Tensor
) -> tuple[Tensor, ...]:
    """Return ``function(batch)``, computed in as many parts as torch may use threads.

    Args:
        function: It treats every entry of its argument alone, and returns tensors with one entry
            for each. No gradient flows through it.
        batch: A tensor with shape ``(B, ...)``.

    >>> over_batch(lambda part: (part + 1, 2 * part), torch.arange(3.0))
    (tensor([1., 2., 3.]), tensor([0., 2., 4.]))
    """
    workers = min(torch.get_num_threads(), len(batch))
    if workers <= 1 or batch.device.type != "cpu":
        return function(batch.detach())
    parts = batch.detach().tensor_split(workers)
    results = list(_pool(torch.get_num_threads()).map(functools.partial(_quietly, function), parts))
    return tuple(torch.cat(same) for same in zip(*results, strict=True))


def _quietly(function: Callable[[Tensor], tuple[Tensor, ...]], part: Tensor) -> tuple[Tensor, ...]:
    # Every thread starts with gradients switched on.
    with torch.no_grad():
        return function(part)


@functools.cache
def _pool(workers: int) -> ThreadPoolExecutor:
    """Return threads in which torch uses one core each."""
    started = threading.Barrier(workers)

    def start() -> None:
        # A thread takes the default at its first question, which would undo an earlier setting.
        torch.get_num_threads()
        torch.set_num_threads(1)
        started.wait()

    pool = ThreadPoolExecutor(workers, thread_name_prefix="hilbound", initializer=start)
    list(pool.map(lambda _: None, range(workers)))
    # The number holds for the calling thread, and as the default of threads to come.
    torch.set_num_threads(workers)
    return pool


# Threads do not survive a fork.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)
