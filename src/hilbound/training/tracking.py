"""The bound of a model with an encoder, tracked exactly on the same rows while it trains.

A batch shows the cost of such a model but not its limit, because the limit is a norm over all rows.
So a fixed sample stands for the data: one sample of the training rows and one of the validation
rows. Cost and limit are both computed on that sample (:meth:`EncoderMixtureDecoder.bound`), so the
cost never exceeds the limit. The interval is chosen so that tracking takes a few percent of the
training time.

A second tightness is measured beside the model's: as many real rows stand in the place of the
centres (:meth:`EncoderMixtureDecoder.real_bound`). Training rows are compared with validation rows,
and validation rows with training rows. So no row is compared with itself.
"""

import logging
import time
from dataclasses import asdict
from typing import Any

import lightning as L
import torch
from torch import Tensor

from hilbound.bounds import Bound
from hilbound.engine.seeding import stream
from hilbound.errors import InputError
from hilbound.functional import effective_components
from hilbound.mixture import GaussianMixture
from hilbound.models.autoencoders import EncoderMixtureDecoder
from hilbound.models.base import DensityModel
from hilbound.models.classes import bound_of, real_bound_of, telling, with_encoder
from hilbound.training.batches import Batch
from hilbound.training.callbacks import BoundsRecord, spoilt_weights
from hilbound.training.failures import Finding
from hilbound.training.plan import TrainingPlan
from hilbound.training.runs import Run
from hilbound.variance import of_component

log = logging.getLogger(__name__)

# The share of the training time that tracking may take, and the steps on which it is measured.
_SHARE = 0.03
_TIMED_STEPS = 20
# A curve has at least this many points.
_FEWEST_POINTS = 5
# The most real rows that are drawn from, in the place of centres.
_REAL_ROWS = 4000
# The number of inputs that are checked for a collapse, and the share of the steps before the check.
_LOOKED_AT = 64
_EARLIEST = 0.1
# What the bar shows. "real" is the tightness of real rows.
_IN_THE_BAR = ("tightness", "real")
# Centres count as collapsed if their effective rank is at most this.
_ONE = 1.01


def round_interval(steps: float) -> int:
    """Round ``steps`` up to one of 10, 20, 50, 100, 200, ...

    >>> [round_interval(steps) for steps in (0.3, 10, 21, 170)]
    [10, 10, 50, 200]
    """
    decade = 10
    while 10 * decade < steps:
        decade *= 10
    return next(n * decade for n in (1, 2, 5, 10) if n * decade >= steps)


def default_interval(measuring: float, step: float, steps: int) -> int:
    """Return the steps between two measurements.

    With it, measuring takes about 3 % of the time. In a run of few steps it takes more, because a
    curve needs at least a few points.

    Args:
        measuring: Seconds that a measurement takes.
        step: Seconds that a step takes.
        steps: Number of steps of the run.

    >>> default_interval(0.8, 0.2, steps=2000), default_interval(0.8, 0.2, steps=300)
    (200, 60)
    """
    return min(round_interval(measuring / (_SHARE * step)), max(10, steps // _FEWEST_POINTS))


class ConditionalTracker(L.Callback):
    """Record cost, limit, gap and tightness on fixed rows, and warn if the decoder collapses.

    All measurements go to ``bounds.csv``. Those of the training rows also go to the
    progress bar and to TensorBoard: the tightness, the gap, and the tightness of real rows.

    Args:
        plan: The training.
        record: Where the bounds are written.
        run: Where a collapse is noted, or ``None`` to log it alone.

    Attributes:
        interval: Steps between two measurements. By default it is found in the first few steps,
            so that measuring takes about 3 % of the time.
        seconds: Seconds spent on measuring.
    """

    def __init__(self, plan: TrainingPlan, record: BoundsRecord, run: Run | None = None) -> None:
        config, dataset = plan.config, plan.dataset
        self.plan = plan
        self.record = record
        self.run = run
        self.rows = {
            split: self._fixed(split, Batch(*dataset.split(split)), config.bound_rows)
            for split in ("train", "validation")
            if len(dataset.split(split)[0]) > 1
        }
        self.real_rows = {
            split: self._fixed(f"real {split}", Batch(*dataset.split(other)), _REAL_ROWS)
            for split, other in (("train", "validation"), ("validation", "train"))
        }
        self.interval = config.bound_every
        self.seconds = 0.0
        self._first, self._began = 0, 0.0
        self._measured = -1
        self._told = False

    def _fixed(self, split: str, rows: Batch, most: int) -> Batch:
        draws = stream(self.plan.config.seed, "tracked", split)
        chosen = torch.randperm(len(rows.x), generator=draws)[:most]
        return Batch(rows.x[chosen], None if rows.labels is None else rows.labels[chosen])

    def state_dict(self) -> dict[str, Any]:
        """Return the interval, which was measured, and whether a collapse was told."""
        return {"interval": self.interval, "seconds": self.seconds, "told": self._told}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take what was found before an interruption. An interval that was asked for stays."""
        if self.interval is None:
            self.interval = state_dict["interval"]
        self.seconds, self._told = state_dict["seconds"], state_dict["told"]

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Note the step at which the training starts or continues."""
        self._first = trainer.global_step
        if self.interval is None:
            # The very first call takes longer, and would make measuring look too expensive.
            few = self.rows["train"].part(slice(_LOOKED_AT)).to(pl_module.device)
            draws = stream(0, "warm-up", device=pl_module.device)
            bound_of(self.plan.model, few.x, 1.0, draws, few.labels)

    def on_train_batch_start(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Measure before the first step, and then once every interval."""
        step = trainer.global_step
        if self.interval is None and step == self._first + _TIMED_STEPS:
            per_step = (time.perf_counter() - self._began) / _TIMED_STEPS
            self.interval = default_interval(self.seconds, per_step, self.plan.config.steps)
        if self._is_due(step):
            for name, value in self._measure(trainer, pl_module).items():
                pl_module.log(name, value, prog_bar=name in _IN_THE_BAR)
        if step == self._first:
            self._began = time.perf_counter()

    def _is_due(self, step: int) -> bool:
        # Until the interval is known, only the first step is due. It shows what measuring takes.
        return step % self.interval == 0 if self.interval else step == self._first

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Measure the final weights before they are saved, if they are validated."""
        if trainer.state.fn == "fit" and trainer.global_step == self.plan.config.steps:
            self._measure(trainer, pl_module)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Measure the final weights, if that was not done."""
        if self._measured != trainer.global_step:
            self._measure(trainer, pl_module)

    def _measure(self, trainer: L.Trainer, module: Any) -> dict[str, float]:
        """Write a row for each set of rows, and return the numbers for the progress bar."""
        if not trainer.is_global_zero:
            return {}
        model, config = module.model, self.plan.config
        kernel = self.plan.kernel_variance(trainer.global_step)
        variance = self.plan.data_variance(trainer.global_step)
        # Lightning calls callbacks first: the module has not set the variance of this step yet.
        self.plan.smooth_model(trainer.global_step)
        self._measured = trainer.global_step
        shown = {}
        began = time.perf_counter()
        for split, rows in self.rows.items():
            bound, real = self._bounds(model, split, rows.to(module.device), variance, trainer)
            self.record.append(
                trainer.global_step, split, -bound.log_value, bound, kernel, real=real
            )
            if split == "train":
                shown = {"tightness": float(bound.tightness), "gap": float(bound.gap)}
                if real is not None:
                    shown["real"] = float(real.tightness)
                if trainer.global_step >= _EARLIEST * config.steps:
                    self._look_for_collapse(
                        model, rows.to(module.device), kernel, shown, trainer.global_step
                    )
        self.seconds += time.perf_counter() - began
        return shown

    def _bounds(
        self, model: DensityModel, split: str, rows: Batch, variance: float, trainer: L.Trainer
    ) -> tuple[Bound, Bound | None]:
        """Return the bound of the model, and that of real rows if there are as many as centres."""
        # The same noise every time, so that the curve shows only changes of the weights.
        draws = [
            stream(self.plan.config.seed, "tracked-noise", split, device=rows.x.device)
            for _ in range(2)
        ]
        others = self.real_rows[split].to(rows.x.device)
        labels = rows.labels, others.labels
        try:
            return (
                bound_of(model, rows.x, variance, draws[0], rows.labels),
                real_bound_of(model, rows.x, others.x, variance, draws[1], labels=labels),
            )
        except InputError as error:
            raise spoilt_weights(trainer.global_step) from error

    def _look_for_collapse(
        self,
        model: DensityModel,
        rows: Batch,
        kernel: float,
        shown: dict[str, float],
        step: int,
    ) -> None:
        """Warn once if all centres of an input coincide, and name the likely cause."""
        inner = _tracked(model)
        k = inner.eval_centers
        if self._told or k == 1:
            return
        few, labels, _ = rows.part(slice(_LOOKED_AT))
        generator = stream(self.plan.config.seed, "collapse", device=few.device)
        with torch.no_grad(), telling(model, labels):
            q = inner.decode(inner.features_of(few), k, generator)
        diversity = float(effective_components(q).mean())
        if diversity > _ONE:
            return
        self._told = True
        cause = collapse_cause(inner, few, self.plan.dataset.train.to(few.device), kernel)
        finding = Finding(
            "decoder-collapse",
            f"the decoder has collapsed: the {k} centres of an input are as diverse as "
            f"{diversity:.3f} (bound reached: {100 * shown['tightness']:.1f} %). {cause}",
            {"centers": k, "diversity": diversity, "tightness": shown["tightness"]},
        )
        log.warning("%s", finding.message)
        if self.run is not None:
            self.run.note(step, asdict(finding))


def collapse_cause(model: EncoderMixtureDecoder, x: Tensor, train: Tensor, variance: float) -> str:
    """Return a sentence with the likely cause of a collapse and its remedy.

    Args:
        model: The model whose centres coincide.
        x: A few rows with shape ``(m, d)``.
        train: The training rows with shape ``(n, d)``. The cause depends on how many of them share
            a feature.
        variance: Variance of the kernel between a point and a centre.
    """
    data = GaussianMixture(x, of_component(variance))
    if float(effective_components(data)) < 1.2:
        return (
            f"With a kernel of variance {variance:.3g} the data themselves look like one point: "
            "lower --variance"
        )
    weights = model.feature_weights(x, train)
    neighbours = float(1 / weights.square().sum(-1).mean())
    if neighbours < 1.5:
        return (
            f"The features tell all rows apart ({neighbours:.2f} rows share a feature), so one "
            "centre is enough: raise --variance-y, or take fewer --features"
        )
    return (
        "The decoder does not use its noise, though rows share features: lower --variance, so "
        "that a centre cannot serve many rows, or raise --noise-dim"
    )


def _tracked(model: DensityModel) -> EncoderMixtureDecoder:
    inner = with_encoder(model)
    if not isinstance(inner, EncoderMixtureDecoder):
        raise TypeError(f"{type(model).__name__} has no conditional bound")
    return inner
