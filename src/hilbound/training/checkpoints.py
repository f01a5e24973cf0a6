"""Checkpoints: all that a training needs to go on, in a file that holds no code.

Lightning's own are pickles. These are safetensors and JSON, written whole
(:mod:`hilbound.training.files`). A checkpoint holds weights, running averages, the optimiser's
state, schedules, counts, and what the callbacks have seen. Random states are not among it: every
draw comes from a stream of the seed and the step (:mod:`hilbound.engine.seeding`).
"""

from pathlib import Path
from typing import Any

from hilbound.errors import InputError
from hilbound.training.files import write_whole
from hilbound.training.packing import DAMAGE, pack_tree, unpack_tree

_KEY = "hilbound.checkpoint"


def write_checkpoint(content: dict[str, Any], path: Path) -> None:
    """Write a checkpoint, whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, pack_tree(content, _KEY))


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Return the content of a checkpoint.

    Raises:
        InputError: If the file is missing, damaged, or something else.
    """
    try:
        content = unpack_tree(path, _KEY)
    except FileNotFoundError:
        raise InputError(
            f"{str(path)!r} is missing, and steps were done that it held: restore it, or fit again "
            "with --overwrite"
        ) from None
    except DAMAGE:
        raise damaged_checkpoint(path) from None
    kinds = {"global_step": int, "state_dict": dict, "optimizer_states": list, "loops": dict}
    if not isinstance(content, dict) or not all(
        isinstance(content.get(name), kind) for name, kind in kinds.items()
    ):
        raise damaged_checkpoint(path)
    if content["global_step"] < 0 or not content["optimizer_states"]:
        raise damaged_checkpoint(path)
    return content


def damaged_checkpoint(path: Path) -> InputError:
    """Return the error for a file that is no checkpoint of the run in whose folder it lies."""
    return InputError(
        f"{str(path)!r} is no checkpoint of this run: it was damaged or replaced; fit again with "
        "--overwrite"
    )
