"""The LightningModule: one step of comparing the data's mixture with the model's."""

import math
from typing import Any

import lightning as L
import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor

from hilbound.bounds import Bound
from hilbound.engine.gather import Team
from hilbound.engine.seeding import stream
from hilbound.errors import InputError
from hilbound.mixture import GaussianMixture
from hilbound.models.autoencoders import marginal
from hilbound.models.base import Comparison, PairComparison
from hilbound.models.build import REMEMBERED_ROWS
from hilbound.models.classes import with_encoder
from hilbound.training.batches import Batch
from hilbound.training.callbacks import BoundsRecord, spoilt_weights
from hilbound.training.plan import TrainingPlan
from hilbound.training.together import (
    OwnBlocks,
    Shared,
    compare_pairs_together,
    compare_together,
    loss_together,
)

# Steps between two bounds of a training batch: often enough for a curve, rarely enough to be cheap.
_BOUND_EVERY = 20
# Steps between two costs that are shown. Lightning takes a millisecond to note one.
_SHOWN_EVERY = 10


class DensityModule(L.LightningModule):
    """Trains a model that makes Gaussian mixtures.

    Args:
        plan: The model, the data and the options of the training.
        bounds: Where the bounds are written.
    """

    def __init__(self, plan: TrainingPlan, bounds: BoundsRecord) -> None:
        super().__init__()
        self.plan = plan
        self.config = plan.config
        self.model = plan.model
        self.objective = plan.objective
        self.bounds = bounds
        self._bound_every = plan.config.bound_every or _BOUND_EVERY

    def _variance(self) -> float:
        return self.plan.kernel_variance(self.global_step)

    def _compare(
        self, batch: Tensor | Batch, purpose: str, index: int
    ) -> Comparison | PairComparison:
        """Return the data's mixture and the model's, for the noise of this step.

        In training, workers share a batch. For validation all compute the same.
        """
        rows = batch if isinstance(batch, Batch) else Batch(batch)
        shared = Shared(
            rows,
            self.plan.data_variance(self.global_step),
            self._centers(rows.x.shape[-2]),
            stream(self.config.seed, purpose, index, 0, device=self.device),
            self._sharing,
        )
        try:
            if self.objective.pairs:
                return compare_pairs_together(self.model, shared, self.plan.feature_variance)
            compared = compare_together(self.model, shared)
            return marginal(compared) if self._is_marginal else compared
        except InputError as error:
            raise spoilt_weights(self.global_step) from error

    @property
    def _is_marginal(self) -> bool:
        """Whether all rows of a batch are compared with all centres, not each with its own."""
        return self.objective.marginal and with_encoder(self.model) is not None

    @property
    def _workers(self) -> Team:
        # In a loop of its own there is no trainer, and no other worker.
        if self._trainer is None:
            return Team()
        return Team(self.trainer.global_rank, self.trainer.world_size)

    @property
    def _sharing(self) -> Team:
        """The workers that share a batch: in training all of them, otherwise each has the whole."""
        return self._workers if self.training else Team()

    def _centers(self, rows: int) -> int:
        """Return the number of centres: for the whole batch, a block or each row of it."""
        config = self.config
        inner = with_encoder(self.model)
        if inner is not None:
            if self.training or config.slices is not None:
                # Validation of slices has as many, because the bias of a cost depends on them.
                return inner.centers
            return config.eval_centers or inner.centers
        if self.objective.paired:
            return rows
        training = config.centers or config.batch_size
        return (training if self.training else config.eval_centers or training) // self.plan.blocks

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Move the model's variance along the schedule."""
        self.plan.smooth_model(self.global_step)

    def on_validation_start(self) -> None:
        """Set the model's variance for validation, too, so that both sides are smoothed alike."""
        self.plan.smooth_model(self.global_step)

    def training_step(self, batch: Tensor | Batch, batch_idx: int) -> Tensor:
        """Return the loss of a batch with shape ``(batch_size, d)``."""
        compared = self._compare(batch, "noise", self.global_step)
        with torch.autocast(self.device.type, enabled=False):
            loss = self._loss(compared)
            if not self.objective.tracked and self.global_step % self._bound_every == 0:
                with torch.no_grad():
                    self._record("train", loss, self._bound(compared, self._draws()))
        if self.global_step % _SHOWN_EVERY == 0:
            self.log("cost", loss, prog_bar=True, logger=False)
        # Its gradient is this worker's part, and Lightning takes the mean over workers.
        return loss * self._workers.world

    def _loss(self, compared: Comparison | PairComparison) -> Tensor:
        loss = loss_together(self.objective, compared, self._sharing)
        if isinstance(compared, PairComparison) and compared.each is not None:
            loss = loss + self.objective.encoder_loss(*compared.each)
        return loss

    def _bound(self, compared: Comparison | PairComparison, draws: torch.Generator) -> Bound:
        if isinstance(compared, OwnBlocks):
            compared = compared.whole()
        bound = self.objective.bound(compared.p, compared.q, draws)
        return Bound(bound.log_value.mean() - compared.penalty, bound.log_limit.mean())

    def _real_bound(self, batch: Tensor | Batch, p: GaussianMixture) -> Bound | None:
        """Return what as many training rows reach in the place of the centres of slices.

        They share the features of the held-out slices, but no row is compared with itself.
        """
        if not isinstance(batch, Batch) or batch.features is None:
            return None
        sharing, centers = self.plan.sharing_rows("train"), self._centers(0)
        if centers > sharing.most:
            return None
        draws = stream(self.config.seed, "real rows", self.global_step)
        labels = None if batch.labels is None else batch.labels.cpu()
        rows = sharing.draw(batch.features.cpu(), centers, draws, labels)
        q = GaussianMixture(rows.to(p.means), self.plan.model_variance(self.global_step))
        return self._bound(Comparison(p, q, p.means.new_zeros(())), self._draws(0))

    def validation_step(self, batch: Tensor | Batch, batch_idx: int) -> None:
        """Measure the loss and the bound on held-out rows, with the same noise in every call."""
        compared = self._compare(batch, "validation", batch_idx)
        values = {}
        with torch.autocast(self.device.type, enabled=False):
            values["loss"] = loss = self._loss(compared)
            if not self.objective.tracked:
                bound = self._bound(compared, self._draws(batch_idx))
                values |= {"tightness": bound.tightness, "gap": bound.gap}
                if batch_idx == 0 and self.trainer.is_global_zero:
                    real = self._real_bound(batch, compared.p)
                    self.bounds.append(
                        self.global_step, "validation", loss, bound, self._variance(), real=real
                    )
        means = {f"validation_{name}": value for name, value in values.items()}
        # They must agree to the last bit on which validation was the best.
        # All batches have the same number of rows.
        self.log_dict(means, batch_size=1, sync_dist=True)

    def _draws(self, index: int = -1) -> torch.Generator:
        return stream(self.config.seed, "bound", self.global_step, index, device=self.device)

    def remember(self) -> None:
        """Let the model store the information about the training rows that sampling needs."""
        rows, labels = self.plan.dataset.split("train")
        if len(rows) > REMEMBERED_ROWS:
            order = torch.randperm(len(rows), generator=stream(self.config.seed, "remembered"))
            rows = rows[order[:REMEMBERED_ROWS]]
            labels = None if labels is None else labels[order[:REMEMBERED_ROWS]]
        self.model.remember(rows.to(self.device), self._here(labels))

    def conclude(self) -> None:
        """Let the model do what is left once its weights are trained."""
        dataset, seed = self.plan.dataset, self.config.seed
        (rows, labels), (others, other_labels) = dataset.split("train"), dataset.split("validation")
        both = (self._here(labels), self._here(other_labels))
        self.model.conclude(rows.to(self.device), others.to(self.device), seed, both)

    def _here(self, labels: Tensor | None) -> Tensor | None:
        return None if labels is None else labels.to(self.device)

    def _record(self, split: str, loss: Tensor, bound: Bound) -> None:
        self.log("tightness", bound.tightness, prog_bar=True)
        self.log("gap", bound.gap)
        self.log("loss", loss)
        if self.trainer.is_global_zero:
            self.bounds.append(self.global_step, split, loss, bound, self._variance())

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Return Adam with a learning rate that falls to zero along a cosine."""
        config = self.config
        learning = [p for p in self.model.parameters() if p.requires_grad]
        # On a CPU, one pass over each parameter in place of ten takes a third of the time.
        adam = torch.optim.Adam(
            learning,
            config.learning_rate,
            betas=(config.beta1, config.beta2),
            fused=True if self.device.type == "cpu" else None,
        )
        if not config.decay:
            return adam

        # The rate depends on the step alone. torch's own cosine schedule stores the old number of
        # steps, so its rate would rise again when a finished run is trained for longer.
        def share(step: int) -> float:
            return 0.5 * (1 + math.cos(math.pi * min(step / config.steps, 1)))

        cosine = torch.optim.lr_scheduler.LambdaLR(adam, share)
        return {"optimizer": adam, "lr_scheduler": {"scheduler": cosine, "interval": "step"}}
