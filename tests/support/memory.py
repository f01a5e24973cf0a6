"""How tests measure memory: by the largest tensor that is made, the same on every machine."""

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Largest(TorchDispatchMode):
    """Notes the largest tensor that any operation makes."""

    def __init__(self):
        super().__init__()
        self.numbers = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        made = [t.numel() for t in tree_leaves(result) if isinstance(t, torch.Tensor)]
        # What is only expanded takes no memory of its own.
        views = not func._schema.is_mutable and any(r.alias_info for r in func._schema.returns)
        self.numbers = max(self.numbers, 0 if views else max(made, default=0))
        return result
