"""The density of a table's target as a module from columns of numbers to a mixture.

A graph reads numbers only. A column of texts goes in as the place of each text in the list that the
file's notes hold under ``categories``. A missing value, and a text that is not in the list, is NaN.
"""

import json

import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from hilbound.errors import InputError
from hilbound.estimators.columns import LIMIT, NumberReader, TextReader
from hilbound.estimators.conditional import ConditionalDensityEstimator
from hilbound.estimators.experts import networks
from hilbound.estimators.experts.ensemble import Ensemble
from hilbound.estimators.reading import read_table
from hilbound.export.parts import Part


class _Columns(nn.Module):
    """Raw columns ``(n, p)`` to the numbers that the networks read, ``(n, m)``."""

    kept: Tensor
    mean: Tensor
    scale: Tensor

    def __init__(self, model: ConditionalDensityEstimator) -> None:
        super().__init__()
        columns = model.columns_
        self.readers = columns.readers
        self.register_buffer("kept", torch.tensor(columns.kept).nonzero().squeeze(1))
        self.register_buffer("mean", torch.as_tensor(columns.mean, dtype=torch.float64))
        self.register_buffer("scale", torch.as_tensor(columns.scale, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        parts = []
        for i, reader in enumerate(self.readers):
            column = x[:, i : i + 1]
            if isinstance(reader, NumberReader):
                missing = column.isnan()
                parts.append(torch.where(missing, reader.median, column))
                parts += [missing.to(x)] if reader.flagged else []
            else:
                places = torch.arange(len(reader.levels), dtype=x.dtype)
                parts.append((column == places).to(x))
        numbers = torch.cat(parts, 1)[:, self.kept]
        return ((numbers - self.mean) / self.scale).clamp(-LIMIT, LIMIT)


class ConditionalDensity(nn.Module):
    """Columns and targets to the mixture's parameters and the log density, in the user's units.

    Args:
        model: A fitted estimator.

    Raises:
        InputError: If the estimator's experts are not networks.
    """

    floor: Tensor
    target_mean: Tensor
    target_scale: Tensor

    def __init__(self, model: ConditionalDensityEstimator) -> None:
        super().__init__()
        ensemble = model.model_
        if not isinstance(ensemble, Ensemble):
            raise InputError(
                "a model of effort 'high' mixes trees and Gaussian processes, which a graph does "
                "not hold: fit with --effort default to export it"
            )
        self.columns = _Columns(model)
        embedding = ensemble.embedding
        for name, tensor in (
            ("column", embedding.column),
            ("start", embedding.start.double()),
            ("width", embedding.width.double()),
            ("floor", ensemble.floor.double()),
            ("target_mean", torch.as_tensor(model.targets_.mean, dtype=torch.float64)),
            ("target_scale", torch.as_tensor(model.targets_.scale, dtype=torch.float64)),
        ):
            self.register_buffer(name, tensor)
        for i, weight in enumerate(ensemble.weights):
            self.register_buffer(f"weight{i}", weight.detach().double())
        self.members = len(ensemble.weights[0])

    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return weights ``(n, K)``, means and variance ``(n, K, d)``, and log densities ``(n,)``.

        Args:
            x: Columns with shape ``(n, p)``, in the order of the training.
            y: Targets with shape ``(n, d)``, at which the density is wanted.
        """
        numbers = self.columns(x)
        through = ((numbers[:, self.column] - self.start) / self.width).clamp(0, 1)
        inputs = torch.cat([numbers, 2 * through - 1], 1).expand(self.members, -1, -1)
        weights = [getattr(self, f"weight{i}") for i in range(6)]
        heads = networks.forward(weights, inputs, len(self.target_mean), self.floor)
        log_weights, means, variance = (part.transpose(0, 1).flatten(1, 2) for part in heads)
        log_weights = log_weights.log_softmax(-1)
        means = means * self.target_scale + self.target_mean
        variance = variance * self.target_scale.square()
        square = (y.unsqueeze(1) - means).square() / variance + (2 * torch.pi * variance).log()
        log_density = (log_weights - 0.5 * square.sum(-1)).logsumexp(-1)
        return log_weights.exp(), means, variance, log_density


def density_part(model: ConditionalDensityEstimator) -> Part:
    """Return the exported part of a fitted estimator."""
    module = ConditionalDensity(model)
    readers = model.columns_.readers
    dim = len(module.target_mean)

    def rows(n: int, generator: torch.Generator) -> Tensor:
        draws = []
        for reader in readers:
            noise = torch.randn(n, 1, generator=generator, dtype=torch.float64)
            if isinstance(reader, NumberReader):
                draws.append(reader.median + abs(reader.median) * noise + noise)
            else:
                draws.append(noise.abs().floor())
        return torch.cat(draws, 1)

    def targets(n: int, generator: torch.Generator) -> Tensor:
        noise = torch.randn(n, dim, generator=generator, dtype=torch.float64)
        return module.target_mean + module.target_scale * noise

    categories = {r.name: r.levels for r in readers if isinstance(r, TextReader)}
    return Part(
        "density",
        module,
        {"x": rows, "y": targets},
        ("weights", "means", "variance", "log_density"),
        {"x": ("batch",), "y": ("batch",)},
        {
            "columns": json.dumps([reader.name for reader in readers]),
            "categories": json.dumps(categories),
        },
    )


def columns_as_numbers(model: ConditionalDensityEstimator, table: ArrayLike) -> Tensor:
    """Return a table as the numbers that an exported density reads, with shape ``(n, p)``.

    Args:
        model: The estimator that was exported.
        table: Rows with the columns of its training.
    """
    columns = []
    for reader, column in zip(
        model.columns_.readers, read_table(model, table, reset=False), strict=True
    ):
        if isinstance(reader, NumberReader):
            values = column.as_numbers()
            columns.append(torch.as_tensor(values, dtype=torch.float64))
        else:
            places = {text: float(i) for i, text in enumerate(reader.levels)}
            texts = column.as_texts() or []
            columns.append(
                torch.tensor([places.get(t or "", torch.nan) for t in texts], dtype=torch.float64)
            )
    return torch.stack(columns, 1)
