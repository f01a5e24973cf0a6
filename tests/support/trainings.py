"""Trainings that are looked at, stopped or spoilt from outside."""

import signal

import torch

from hilbound.config import RunConfig
from hilbound.engine.seeding import stream
from hilbound.mixture import GaussianMixture
from hilbound.training.batches import BatchStream
from hilbound.training.module import DensityModule
from hilbound.training.plan import plan_training


def validation(run):
    return [row for row in run.read_bounds() if row["split"] == "validation"]


def curve(run):
    """The record of the bounds without the seconds, which differ."""
    return [{k: v for k, v in row.items() if k != "seconds"} for row in run.read_bounds()]


def stop_at(monkeypatch, step, stop):
    """Let ``stop(module)`` happen in the middle of a step, once."""
    original = DensityModule.training_step

    def step_and_stop(self, *arguments):
        if self.global_step == step:
            monkeypatch.setattr(DensityModule, "training_step", original)
            stop(self)
        return original(self, *arguments)

    monkeypatch.setattr(DensityModule, "training_step", step_and_stop)


def press_ctrl_c(_):
    signal.raise_signal(signal.SIGINT)


def fail(_):
    raise OSError("No space left on device")


def by_hand(config: RunConfig, steps: int) -> dict[str, torch.Tensor]:
    """The same training as a loop of ten lines, without Lightning."""
    made = plan_training(config)
    model, objective = made.model, made.objective
    betas = (config.beta1, config.beta2)
    adam = torch.optim.Adam(model.parameters(), config.learning_rate, betas, fused=True)
    variance = objective.component_variance(made.schedule.start)
    rows = made.dataset.train
    for step, x in enumerate(BatchStream(rows, config.batch_size, steps, config.seed)):
        noise = model.noise(config.batch_size, stream(config.seed, "noise", step, 0))
        loss = objective(GaussianMixture(x, variance), model(noise))
        adam.zero_grad()
        loss.backward()
        adam.step()
    return model.state_dict()


def spoil(module):
    for parameter in module.model.parameters():
        parameter.data.fill_(torch.nan)
