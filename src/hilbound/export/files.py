"""ONNX files and PyTorch programs, each compared with the model before it is kept."""

import importlib.util
import json
import logging
import warnings
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import torch
from torch import Tensor

from hilbound.config import is_table_run
from hilbound.errors import InputError
from hilbound.estimators.table_run import TableRun
from hilbound.export.parts import Part, Units, parts_of
from hilbound.export.tables import density_part
from hilbound.training.runs import Run

Format = Literal["onnx", "torch"]

#: The largest difference from the model that an ONNX file may have, beside numbers of size one.
TOLERANCE = 1e-6
#: Batches at which every file is compared with the model.
BATCHES = (1, 7)
_ENDINGS = {"onnx": ".onnx", "torch": ".pt2"}
_EXAMPLE = 3  # rows of the traced batch: 0 and 1 are special to the compiler


@dataclass(frozen=True)
class Exported:
    """A file that was written and compared.

    Args:
        path: The file.
        part: What it computes.
        inputs: Names of its inputs, in order.
        outputs: Names of its outputs, in order.
        difference: The largest difference from the model, beside numbers of size one.
    """

    path: Path
    part: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    difference: float


def export_run(
    run: Path | str,
    output: Path | str,
    format: Format = "onnx",  # noqa: A002 - the word of the command
    part: str | None = None,
) -> Exported:
    """Write a part of a trained run to one file, and compare the file with the model.

    Args:
        run: A run folder, of a density or of a table.
        output: The file: ``.onnx`` or ``.pt2``.
        format: ``"onnx"``, or ``"torch"`` for a program of ``torch.export``.
        part: ``"sampler"``, ``"encoder"``, ``"decoder"`` or ``"density"``. By default the one
            that the model is made for.

    Raises:
        InputError: If the run has no such part, the output does not fit the format, or a package
            is missing.
        FloatingPointError: If the file does not compute what the model does. It is removed then.
    """
    path = _target(Path(output), format)
    made = part_of(run, part)
    if format == "onnx":
        _require_onnx()
    with torch.no_grad(), TemporaryDirectory(dir=path.parent) as beside:
        draft = Path(beside) / path.name
        program = _traced(made)
        difference = (
            _onnx(made, program, draft) if format == "onnx" else _torch(made, program, draft)
        )
        draft.replace(path)
    return Exported(path, made.name, tuple(made.inputs), made.outputs, difference)


def part_of(run: Path | str, part: str | None = None) -> Part:
    """Return a part of a run as a module.

    Raises:
        InputError: If the run has no such part.
    """
    if is_table_run(Path(run)):
        makers = {"density": lambda: density_part(TableRun.open(run).model)}
    else:
        opened = Run.open(run)
        data = opened.read_json("run.json")["data"]
        model = opened.model
        units = Units(data["offset"], data["scale"], model.head.variance)
        makers = parts_of(model, units, data["dim"])
    name = next(iter(makers)) if part is None else part
    if name not in makers:
        raise InputError(f"this run has no part {name!r}: it has {', '.join(makers)}")
    made: Part = makers[name]()
    made.module.eval().requires_grad_(requires_grad=False)
    return made


def _target(path: Path, format: Format) -> Path:  # noqa: A002
    if format not in _ENDINGS:
        raise InputError(f"format must be 'onnx' or 'torch', got {format!r}")
    if path.suffix != _ENDINGS[format]:
        raise InputError(
            f"output must end in {_ENDINGS[format]} for format {format!r}, got {str(path)!r}"
        )
    if path.is_dir() or not path.parent.is_dir():
        raise InputError(f"output {str(path)!r} must be a file in a folder that is there")
    return path


def _require_onnx() -> None:
    missing = [p for p in ("onnx", "onnxscript", "onnxruntime") if not importlib.util.find_spec(p)]
    if missing:
        raise InputError(
            f"format 'onnx' needs {', '.join(missing)}: pip install 'hilbound[export]'"
        )


def _traced(part: Part) -> torch.export.ExportedProgram:
    axes = {name: torch.export.Dim(name, min=1) for group in part.free.values() for name in group}
    shapes = tuple(
        {i: axes[axis] for i, axis in enumerate(part.free[name])} for name in part.inputs
    )
    return torch.export.export(part.module, part.example(_EXAMPLE), dynamic_shapes=shapes)


def _torch(part: Part, program: torch.export.ExportedProgram, path: Path) -> float:
    notes = {"notes.json": json.dumps({"part": part.name, **part.notes})}
    torch.export.save(program, path, extra_files=notes)
    loaded = torch.export.load(path).module()
    for n in BATCHES:
        inputs = part.example(n, seed=n)
        for name, got, expected in zip(
            part.outputs, _tuple(loaded(*inputs)), _tuple(part.module(*inputs)), strict=True
        ):
            if not torch.equal(got, expected):
                raise FloatingPointError(
                    f"the program's {name} is not that of the model, bit for bit"
                )
    return 0.0


def _onnx(part: Part, program: torch.export.ExportedProgram, path: Path) -> float:
    # The exporter tells users of its own plans, and of a package that nothing here needs.
    quiet = logging.getLogger("torch.onnx._internal.exporter._registration")
    quiet.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = torch.onnx.export(
            program,
            input_names=list(part.inputs),
            output_names=list(part.outputs),
            dynamo=True,
            verbose=False,
        )
    if made is None:
        raise RuntimeError("the exporter of ONNX returned nothing")
    made.model.metadata_props.update({"part": part.name, **part.notes})
    made.save(path, external_data=False)
    return max(_difference(part, path, n) for n in BATCHES)


def _difference(part: Part, path: Path, n: int) -> float:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    inputs = part.example(n, seed=n)
    fed = {name: value.numpy() for name, value in zip(part.inputs, inputs, strict=True)}
    largest = 0.0
    for name, got, expected in zip(
        part.outputs, session.run(None, fed), _tuple(part.module(*inputs)), strict=True
    ):
        difference = float((torch.as_tensor(got) - expected).abs().max())
        relative = difference / max(1.0, float(expected.abs().max()))
        if not relative <= TOLERANCE:
            raise FloatingPointError(
                f"the ONNX file's {name} differs from the model's by {relative:.1e} at batch {n}, "
                f"more than {TOLERANCE:.0e}, so it was not kept: use --format torch, whose files "
                "repeat the model bit for bit"
            )
        largest = max(largest, relative)
    return largest


def _tuple(result: Any) -> tuple[Tensor, ...]:
    return (
        result
        if isinstance(result, tuple)
        else tuple(result)
        if isinstance(result, list)
        else (result,)
    )
