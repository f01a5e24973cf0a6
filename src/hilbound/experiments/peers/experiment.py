"""Peers: the objectives against what people would use in their place, at equal time.

One generator network, one optimiser, the same batches and the same seconds of one core; the loss
alone differs. Beside them a variational autoencoder, whose decoder is that network. Every method
may choose one number, out of three, by short trainings that are judged on validation rows.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from hilbound.engine.seeding import stream
from hilbound.experiments.base import Cell, Claim, Experiment, Picture, Row, select
from hilbound.experiments.peers import page
from hilbound.experiments.peers.settings import IMAGES, TOYS, Budget, PeersSettings
from hilbound.experiments.peers.training import trained
from hilbound.experiments.shared.sample_quality import (
    features,
    images,
    sample_quality,
    training_rows,
)
from hilbound.reports.page import Table

#: The seed of trainings for the choice. Final trainings have others.
CHOOSING_SEED = 1000


class Peers(Experiment[PeersSettings]):
    """Coverage, recall, precision, Fréchet distance and seconds of nine ways to train a network."""

    name = "peers"
    title = "Peers: one network, one time, and what people would train it with instead"
    question = page.QUESTION

    def settings(self, *, quick: bool) -> PeersSettings:
        """Return the settings of three data sets, or a tiny training of two."""
        if not quick:
            return PeersSettings()
        tiny = Budget(
            seconds=0.1,
            width=16,
            depth=1,
            noise_dim=4,
            batch_size=32,
            learning_rate=5e-3,
            samples=100,
        )
        # Without geomloss the quick form shows that the rest runs.
        methods = ("nuclear", "sliced", "vae")
        first = {
            data: {m: table[m][:1] for m in methods}
            for data, table in (("moons", TOYS), ("digits", IMAGES))
        }
        return PeersSettings(
            budgets=dict.fromkeys(first, tiny), methods=methods, options=first, choosing=0.5
        )

    def cells(
        self, settings: PeersSettings, seeds: Sequence[int], rows: Sequence[Row]
    ) -> Iterable[Cell]:
        """Return the floors, the trainings for the choices, and then the final trainings."""
        for data in settings.budgets:
            own = list(self._of(settings, data, seeds, select(rows, data=data)))
            yield from own
            # One data set after the other, so that an interrupted run has whole ones.
            if len(select(rows, data=data)) < len(own) or not page.is_whole(settings, rows, data):
                return

    def _of(
        self, settings: PeersSettings, data: str, seeds: Sequence[int], rows: Sequence[Row]
    ) -> Iterator[Cell]:
        """Return the cells of one data set: the floor, the choices, and final trainings."""
        yield Cell.of(data=data, method="real", purpose="floor", option=0.0, seed=0)
        for method in settings.methods:
            for option in settings.options[data][method]:
                yield _cell(data, method, "choice", option, CHOOSING_SEED)
        for method in settings.methods:
            tried = select(rows, method=method, purpose="choice")
            if len(tried) == len(settings.options[data][method]):
                option = page.chosen(tried)["option"]
                yield from (_cell(data, method, "final", option, seed) for seed in seeds)

    def identity(self, settings: PeersSettings, options: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the budget of the data set, and the share of a choice."""
        budget = settings.budgets[options["data"]]
        return budget.model_dump(mode="json") | {"choosing": settings.choosing}

    def measure(self, settings: PeersSettings, options: Mapping[str, Any], folder: Path) -> Row:
        """Train once and measure samples against validation rows, or against test rows."""
        data, method, seed = options["data"], options["method"], options["seed"]
        dataset, space, budget = images(data), features(data), settings.budgets[options["data"]]
        if method == "real":
            rows = training_rows(dataset, budget.samples, seed)
            return sample_quality(dataset, space, rows)
        final = options["purpose"] == "final"
        seconds = budget.seconds * (1 if final else settings.choosing)
        found = trained(budget, dataset, method, options["option"], seconds=seconds, seed=seed)
        samples = found.model.sample(budget.samples, stream(seed, "peers")).to(dataset.test)
        if final:
            save_file({"samples": samples[:1000].contiguous()}, folder / page.SAMPLES)
        sides = {
            name: sample_quality(dataset, space, samples, held_out=rows[: budget.samples])
            for name, rows in (("validation", dataset.validation), ("test", dataset.test))
            if final or name == "validation"
        }
        row = sides["test" if final else "validation"]
        # Which of ours is the best one is decided on validation rows.
        chosen_by = page.score(sides["validation"])
        ends = {"training_seconds": found.seconds, "steps": found.steps}
        return row | {"validation_score": chosen_by} | ends

    def claims(self, settings: PeersSettings, rows: Sequence[Row]) -> list[Claim]:
        """Return a claim for each data set, and what time alone explains."""
        return page.claims(settings, rows)

    def tables(self, settings: PeersSettings, rows: Sequence[Row]) -> list[Table]:
        """Return a table for each data set, and what was chosen."""
        return page.tables(settings, rows)

    def pictures(
        self, settings: PeersSettings, rows: Sequence[Row], work: Path
    ) -> Iterator[Picture]:
        """Draw coverage against recall, and samples."""
        return page.pictures(settings, rows, work)

    def notes(self, settings: PeersSettings, rows: Sequence[Row]) -> str:
        """Return how far the figures carry."""
        return page.notes()


def _cell(data: str, method: str, purpose: str, option: float, seed: int) -> Cell:
    return Cell.of(data=data, method=method, purpose=purpose, option=float(option), seed=seed)


EXPERIMENT = Peers()
