r"""The trainings that the experiments on the conditional bound share, and what is measured of them.

All of them train an encoder with one feature and a decoder to K centres on the conditional cost,

.. math:: r_c(p, q) = \frac{\langle p, q \rangle_E^2}{\langle q, q \rangle_E}
    \le \|p(X|Y)\|^2,

and differ in what they look at: the two sides while training (:func:`curves`), both at the end
(:func:`bounds_at_end`), or what the decoder makes of an input
(:mod:`hilbound.experiments.shared.yardstick`).

By the *joint* protocol the encoder is trained with each decoder, and the limit moves with it. By
the *frozen* one the encoder of a joint training is kept as it is: all decoders then share one
limit, and only they can close the gap.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from torch import Tensor

from hilbound.bounds import Bound, log_component_norm
from hilbound.engine.seeding import stream
from hilbound.experiments.base import Cell, Claim, Row, Settings, spread, train, values_of
from hilbound.models.autoencoders import EncoderMixtureDecoder
from hilbound.training.runs import Run


class ConditionalSettings(Settings):
    """The training that all cells share, and how it is measured."""

    data: str = "mnist"
    samples: int | None = 800
    centers: tuple[int, ...] = (1, 2, 5, 10, 30)
    encoder_centers: int = 10
    features: int = 1
    variance: float = 15.0
    variance_y: float = 0.01
    width: int = 256
    steps: int = 600
    batch_size: int = 64
    bound_every: int = 50
    bound_rows: int = 800
    noise_draws: int = 3
    inputs: int = 200
    reconstructions: int = 10


#: What makes any of these experiments quick: small images that come with scikit-learn, few steps.
QUICK: dict[str, Any] = {
    "data": "digits",
    "samples": 200,
    "centers": (1, 3),
    "encoder_centers": 3,
    "variance": 2.0,
    "width": 16,
    "steps": 20,
    "batch_size": 32,
    "bound_every": 5,
    "bound_rows": 60,
    "noise_draws": 1,
    "inputs": 40,
    "reconstructions": 4,
}
_OF_THE_TRAINING = (
    "data",
    "samples",
    "features",
    "variance",
    "variance_y",
    "width",
    "steps",
    "batch_size",
    "bound_every",
    "bound_rows",
)


# ------------------------------------------------------------------ which trainings


def joint_cell(centers: int, seed: int) -> Cell:
    """Return the cell that trains encoder and decoder together."""
    return Cell.of(protocol="joint", centers=centers, seed=seed)


def frozen_cell(centers: int, seed: int, **change: Any) -> Cell:
    """Return the cell that fits a decoder to an encoder that stays as it is."""
    return Cell.of(protocol="frozen", centers=centers, **change, seed=seed)


def seeds_with_encoder(
    settings: ConditionalSettings, seeds: Sequence[int], rows: Sequence[Row]
) -> Iterator[int]:
    """Yield the seeds whose encoder for the frozen protocol is trained by now."""
    trained = {
        row["seed"]
        for row in rows
        if (row["protocol"], row["centers"]) == ("joint", settings.encoder_centers)
    }
    return (seed for seed in seeds if seed in trained)


def run_folder(work: Path, cell: Cell) -> Path:
    """Return where the run of a cell is, in the folder of the cells' folders."""
    return work / cell.name / "run"


def train_conditional(
    settings: ConditionalSettings,
    folder: Path,
    *,
    frozen: bool = False,
    **options: Any,
) -> Run:
    """Train an encoder and a decoder, or a decoder alone.

    Args:
        settings: What all trainings share.
        folder: That of the cell; the encoder of the frozen protocol is looked for beside it.
        frozen: Whether the encoder of the joint training of the same seed is taken over.
        **options: What sets this training apart: ``centers`` and ``seed``, and what else differs.
    """
    shared: dict[str, Any] = {name: getattr(settings, name) for name in _OF_THE_TRAINING}
    options = shared | {"model": "encoder-mixture-decoder"} | options
    if frozen:
        source = joint_cell(settings.encoder_centers, options["seed"])
        options["encoder"] = str(run_folder(folder.parent, source))
    # Nothing is chosen by the validation of a batch: the bound is measured instead.
    return train(folder, validate_every=options["steps"], **options)


def conditional_model(run: Run) -> EncoderMixtureDecoder:
    """Return the model of a run."""
    model = run.model
    if not isinstance(model, EncoderMixtureDecoder):
        raise TypeError(f"{run.path} holds a {type(model).__name__}")
    return model


def deviation(values: Sequence[float]) -> float:
    """Return the deviation over the seeds, 0 of a single one.

    >>> deviation([1.0]), round(deviation([1.0, 2.0]), 3)
    (0.0, 0.707)
    """
    return stdev(values) if len(values) > 1 else 0.0


def reasons_once(claims: Sequence[Claim]) -> list[Claim]:
    """Return claims of which a reason that several share is written out with the first only.

    >>> both = [Claim("a", "", False, "Because."), Claim("b", "", False, "Because.")]
    >>> [claim.reason for claim in reasons_once(both)]
    ['Because.', 'As above.']
    """
    given: set[str] = set()
    found = []
    for claim in claims:
        again = bool(claim.reason) and claim.reason in given
        found.append(replace(claim, reason="As above.") if again else claim)
        given.add(claim.reason)
    return found


# ------------------------------------------------------------------ both sides of the bound


def curves(bounds: Sequence[Mapping[str, Any]], largest: float) -> Row:
    """Return what was tracked, and by how much a cost passed its limit at most.

    Args:
        bounds: The rows of ``bounds.csv``.
        largest: What the logarithms are relative to: that of the largest limit.

    Returns:
        ``tracked``, the number of rows; ``excess``, the largest log cost minus log limit in nats;
        for both splits lists of steps, log costs, log limits and tightnesses of real rows, rounded
        for the page; and ``SPLIT_moved``, the range of the log limits before they were rounded.

    >>> row = {"step": 0.0, "split": "train", "log_value": -3.0, "log_limit": -2.5}
    >>> row["real_tightness"] = 0.3
    >>> curves([row], -2.0)["excess"], curves([row], -2.0)["train_limit"]
    (-0.5, [-0.5])
    """
    found: Row = {
        "tracked": len(bounds),
        "excess": max(row["log_value"] - row["log_limit"] for row in bounds),
    }
    for split in ("train", "validation"):
        own = [row for row in bounds if row["split"] == split]
        found[f"{split}_step"] = [int(row["step"]) for row in own]
        found[f"{split}_cost"] = [round(row["log_value"] - largest, 4) for row in own]
        limits = [row["log_limit"] for row in own]
        found[f"{split}_limit"] = [round(limit - largest, 4) for limit in limits]
        found[f"{split}_real"] = [_rounded(row["real_tightness"]) for row in own]
        # From what is rounded a drift of half a digit would pass for none.
        found[f"{split}_moved"] = max(limits, default=0.0) - min(limits, default=0.0)
    return found


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def bounds_at_end(
    run: Run, settings: ConditionalSettings, splits: Sequence[str] = ("train", "test")
) -> Row:
    """Return the exact bound of a trained model, on training rows and on held-out ones.

    One bound is that of one draw of the K noise vectors and of the features' noise; the mean over
    a few is a figure of the model. Beside it stands the tightness that K real test rows reach in
    the place of the centres, none of them a row of the bound.

    Args:
        run: The run.
        settings: How many rows, and how many draws.
        splits: On which rows: ``"train"``, ``"test"``.
    """
    model, dataset = conditional_model(run), run.dataset
    largest = log_component_norm(run.component_variance, dataset.dim)
    found: Row = {}
    for split in splits:
        rows = dataset.train if split == "train" else dataset.test
        several = list(_bounds(model, rows[: settings.bound_rows], run, split, settings))
        real = list(_real_bounds(model, rows[: settings.bound_rows], run, split, settings))
        found[f"{split}_tightness"] = mean(float(b.tightness) for b in several)
        found[f"{split}_gap"] = mean(float(b.gap) for b in several)
        found[f"{split}_log_limit"] = mean(float(b.log_limit) for b in several) - largest
        found[f"{split}_real_tightness"] = mean(float(b.tightness) for b in real)
    return found


def _bounds(
    model: EncoderMixtureDecoder, rows: Tensor, run: Run, split: str, settings: ConditionalSettings
) -> Iterator[Bound]:
    variance = run.component_variance
    for draw in range(settings.noise_draws):
        yield model.bound(rows, variance, generator=stream(draw, "conditional", split))


def _real_bounds(
    model: EncoderMixtureDecoder, rows: Tensor, run: Run, split: str, settings: ConditionalSettings
) -> Iterator[Bound]:
    others = run.dataset.test[settings.bound_rows :]
    for draw in range(settings.noise_draws):
        generator = stream(draw, "conditional", split)
        yield model.real_bound(rows, others, run.component_variance, generator=generator)


def has_real(rows: Sequence[Row], split: str) -> bool:
    """Whether it was measured what real rows reach; rows of earlier versions do not have it."""
    return bool(values_of(rows, f"{split}_real_tightness"))


def reach_real_rows(settings: ConditionalSettings, rows: Sequence[Row], split: str) -> Claim:
    """Return the claim that decoders are as near to the limit as real rows in their place."""
    by_k = {
        k: [
            (row[f"{split}_tightness"], row[f"{split}_real_tightness"])
            for row in rows
            if row["centers"] == k and row.get(f"{split}_real_tightness") is not None
        ]
        for k in settings.centers
    }
    by_k = {k: pairs for k, pairs in by_k.items() if pairs}
    shares = {k: [own / real for own, real in pairs] for k, pairs in by_k.items()}
    figures = "; ".join(
        f"K = {k}: {mean(own for own, _ in pairs):.3f} against "
        f"{mean(real for _, real in pairs):.3f}, {spread(shares[k], 2)} times that"
        for k, pairs in by_k.items()
    )
    return Claim(
        "With every K and seed the decoder is at least as near to the limit as K real rows with "
        "the feature are in its place",
        figures,
        all(min(values) >= 1 for values in shares.values()),
    )
