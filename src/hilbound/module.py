"""The LightningModule: one step of comparing the data's mixture with the model's."""

import math
from typing import TYPE_CHECKING, Any

import lightning as L
import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor

from hilbound.bounds import Bound
from hilbound.callbacks import BoundsRecord
from hilbound.errors import InputError
from hilbound.mixture import GaussianMixture
from hilbound.seeding import stream

if TYPE_CHECKING:
    from hilbound.training import Plan

# The bound is computed every so many steps: often enough for a curve and a bar, rarely enough to
# cost little beside the steps.
_BOUND_EVERY = 20


class DensityModule(L.LightningModule):
    """Trains a model that makes a Gaussian mixture out of noise.

    Args:
        plan: What to train, on what.
        bounds: Where the bounds are written.
    """

    def __init__(self, plan: "Plan", bounds: BoundsRecord) -> None:
        super().__init__()
        self.plan = plan
        self.config = plan.config
        self.model = plan.model
        self.objective = plan.objective
        self.bounds = bounds

    def _variance(self) -> float:
        return self.plan.schedule.at(self.global_step / max(1, self.config.steps - 1))

    def _mixtures(self, batch: Tensor, purpose: str, index: int) -> tuple[GaussianMixture, ...]:
        """Return the data's mixture and the model's, for the noise of this step."""
        variance = self.objective.component_variance(self._variance())
        generator = stream(self.config.seed, purpose, index, self.global_rank, device=self.device)
        centers = len(batch) if self.objective.paired else self.config.centers
        noise = self.model.noise(centers or self.config.batch_size, generator)
        try:
            q = self.model(noise)
        except InputError as error:
            # Of the model's own output nothing is the user's to mend but the step that spoilt it.
            raise FloatingPointError(
                f"the weights are no longer finite at step {self.global_step}: lower "
                "--learning-rate, or raise --variance; run.json says which step was saved last"
            ) from error
        return GaussianMixture(batch.to(q.means), variance), q

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:  # noqa: ANN401, ARG002
        """Move the model's variance along the schedule."""
        self._follow_schedule()

    def on_validation_start(self) -> None:
        """Move it for the held-out rows, too: both sides are smoothed alike."""
        self._follow_schedule()

    def _follow_schedule(self) -> None:
        if not self.plan.schedule.constant:
            self.model.variance.fill_(self.objective.component_variance(self._variance()))

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:  # noqa: ARG002
        """Return the loss of a batch with shape ``(batch_size, d)``."""
        p, q = self._mixtures(batch, "noise", self.global_step)
        with torch.autocast(self.device.type, enabled=False):
            loss: Tensor = self.objective(p, q)
            if self.global_step % _BOUND_EVERY == 0:
                with torch.no_grad():
                    self._record("train", loss, self.objective.bound(p, q, self._draws()))
        self.log("cost", loss, prog_bar=True, logger=False)
        return loss

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        """Measure the loss and the bound on held-out rows, with the same noise every time."""
        p, q = self._mixtures(batch, "validation", batch_idx)
        with torch.autocast(self.device.type, enabled=False):
            loss = self.objective(p, q)
            bound = self.objective.bound(p, q, self._draws(batch_idx))
        values = {"loss": loss, "tightness": bound.tightness, "gap": bound.gap}
        means = {f"validation_{name}": value for name, value in values.items()}
        # Devices draw their own noise, and must agree on which validation was the best.
        self.log_dict(means, batch_size=len(batch), sync_dist=True)
        if batch_idx == 0 and self.trainer.is_global_zero:
            self.bounds.append(self.global_step, "validation", loss, bound, self._variance())

    def _draws(self, index: int = -1) -> torch.Generator:
        return stream(self.config.seed, "bound", self.global_step, index, device=self.device)

    def _record(self, split: str, loss: Tensor, bound: Bound) -> None:
        self.log("tightness", bound.tightness, prog_bar=True)
        self.log("gap", bound.gap)
        self.log("loss", loss)
        if self.trainer.is_global_zero:
            self.bounds.append(self.global_step, split, loss, bound, self._variance())

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Adam, its learning rate falling to zero along a cosine."""
        config = self.config
        adam = torch.optim.Adam(
            self.model.parameters(), config.learning_rate, betas=(config.beta1, config.beta2)
        )
        if not config.decay:
            return adam

        # A function of the step alone: torch's own cosine keeps the old number of steps in its
        # state, and would rise again where a finished run is trained for longer.
        def share(step: int) -> float:
            return 0.5 * (1 + math.cos(math.pi * min(step / config.steps, 1)))

        cosine = torch.optim.lr_scheduler.LambdaLR(adam, share)
        return {"optimizer": adam, "lr_scheduler": {"scheduler": cosine, "interval": "step"}}
