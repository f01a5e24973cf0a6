"""Turn a configuration into all that a training needs, and check it before anything is written."""

import logging
from dataclasses import dataclass
from pathlib import Path

import torch

from hilbound.config import RunConfig
from hilbound.datasets import Dataset
from hilbound.datasets.catalogue import OF_FILES, refuse_meaningless
from hilbound.engine.seeding import stream
from hilbound.errors import InputError
from hilbound.models.autoencoders import VAE, FeatureModel
from hilbound.models.base import DensityModel
from hilbound.models.build import MODELS, DataShape, build_model
from hilbound.models.networks import NETWORKS
from hilbound.objectives import Objective, create_objective
from hilbound.training.memory import refuse_too_large
from hilbound.training.runs import Run, load_dataset
from hilbound.variance import Specification, VarianceSchedule

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingPlan:
    """Everything a training needs, checked and built, before anything is written.

    Args:
        config: The options.
        dataset: The data.
        objective: The objective.
        schedule: The variance of the kernel over the run.
        model: The model at its start.
    """

    config: RunConfig
    dataset: Dataset
    objective: Objective
    schedule: VarianceSchedule
    model: DensityModel

    def kernel_variance(self, step: int) -> float:
        """Return the variance of the kernel between a point and a centre at a step."""
        return self.schedule.at(step / max(1, self.config.steps - 1))

    def component_variance(self, step: int) -> float:
        """Return the variance of a component, on either side, at a step."""
        return self.objective.component_variance(self.kernel_variance(step))

    def smooth_model(self, step: int) -> None:
        """Give the model's components their variance at a step, where the schedule moves it."""
        if not self.schedule.constant:
            self.model.head.variance.fill_(self.component_variance(step))


def plan_training(
    config: RunConfig, *, dataset: Dataset | None = None, resumed: bool = False
) -> TrainingPlan:
    """Check a configuration against its data and build what training needs.

    Args:
        config: The configuration.
        dataset: Data in memory, or ``None`` to load the data that the configuration names.
        resumed: Whether the weights will come from a checkpoint. Then an encoder of another run is
            not loaded, because the checkpoint holds its weights, too.

    Raises:
        InputError: If a name is unknown, the data cannot be used, or options contradict each other.
    """
    # Names are cheap to check, and data may take minutes to read. So names come first.
    objective = create_objective(config.objective, **config.objective_options)
    specification = Specification.parse(config.variance)
    _check_names(config)
    if dataset is None and not resumed:
        _refuse_without_meaning(config)
    dataset = load_dataset(config, known=resumed) if dataset is None else dataset
    schedule = specification.read(dataset.train, stream(config.seed, "median"))
    if config.learn_variance and not schedule.constant:
        raise InputError(
            f"variance {config.variance!r} is a schedule, and learn_variance learns it: use one"
        )
    asked = config
    if config.batch_size > len(dataset.train):
        log.warning(
            "batch_size %d is more than the %d training rows: every row is used in every step, "
            "%d rows at a time",
            config.batch_size,
            len(dataset.train),
            len(dataset.train),
        )
        config = config.model_copy(
            update={
                "batch_size": len(dataset.train),
                "centers": config.centers or _default_centers(config, len(dataset.train)),
            }
        )
    _check_range(config, schedule)
    refuse_too_large(config, dataset.dim)
    component = objective.component_variance(schedule.start)
    data = DataShape(dataset.dim, dataset.image_shape, len(dataset.train))
    model = build_model(config, data, component)
    _check_objective(asked, objective, model)
    _check_rows(asked, objective, dataset)
    if config.precision == "64-true":
        # Lightning would convert the model too late: after rounding a checkpoint to float32.
        model = model.double()
    if config.encoder is not None and resumed and isinstance(model, FeatureModel):
        model.freeze_encoder()
    elif config.encoder is not None:
        take_encoder(model, config.encoder)
    return TrainingPlan(config, dataset, objective, schedule, model)


def _refuse_without_meaning(config: RunConfig) -> None:
    """Raise an InputError for an option that would be ignored; a run that is there keeps its own.

    Options of the model are refused where the configuration is made.
    """
    refuse_meaningless(
        config.data,
        {
            name: getattr(config, name)
            for name in OF_FILES
            if getattr(config, name) != RunConfig.model_fields[name].default
        },
    )
    if config.min_variance is not None and not config.learn_variance:
        raise InputError(
            f"min_variance {config.min_variance:g} bounds learned variances, and none is learned: "
            "leave it out, or add --learn-variance"
        )


def _check_range(config: RunConfig, schedule: VarianceSchedule) -> None:
    """Raise an InputError if the network's numbers cannot hold the variance."""
    kind = torch.finfo(torch.float64 if config.precision == "64-true" else torch.float32)
    least, most = kind.tiny * 1e3, kind.max / 1e3
    if not least < min(schedule.start, schedule.end) <= max(schedule.start, schedule.end) < most:
        raise InputError(
            f"variance {config.variance!r} is {schedule}, which {kind.dtype} cannot compute with: "
            f"give one between {least:.0e} and {most:.0e}, such as 0.5*median"
        )


def _default_centers(config: RunConfig, rows: int) -> int:
    """Return the centres of a batch that was cut to the rows that there are.

    A model may have more centres than data, but not as many as a user who meant "all rows" typed.
    """
    default: int = RunConfig.model_fields["batch_size"].default
    return min(config.batch_size, max(rows, default))


def _check_names(config: RunConfig) -> None:
    """Raise an InputError for a model or a network that does not exist."""
    MODELS[config.model]
    NETWORKS[config.network]


def _check_objective(config: RunConfig, objective: Objective, model: DensityModel) -> None:
    """Raise an InputError if the objective cannot train the model or its number of centres."""
    if config.objective not in model.objectives:
        raise InputError(
            f"objective {config.objective!r} cannot train model {config.model!r}: it is trained by "
            + " or ".join(repr(name) for name in model.objectives)
        )
    if objective.paired and config.centers not in {None, config.batch_size}:
        raise InputError(
            f"objective {config.objective!r} pairs every centre with a data point: leave centers "
            f"out, or give as many as batch_size ({config.batch_size}), got {config.centers}"
        )


def _check_rows(config: RunConfig, objective: Objective, dataset: Dataset) -> None:
    """Raise an InputError if there are too few rows for one batch of the objective."""
    for name in ("train", "validation"):
        rows = len(getattr(dataset, name))
        if rows < objective.least_rows:
            raise InputError(
                f"objective {config.objective!r} cuts a batch into halves and needs at least "
                f"{objective.least_rows} {name} rows, {config.data!r} has {rows}: give more data, "
                "or a larger share of it"
            )


def take_encoder(model: DensityModel, path: Path | str) -> None:
    """Copy the encoder of another run into a model and freeze it.

    Args:
        model: A model with an encoder.
        path: The run folder.

    Raises:
        InputError: If the folder holds no run, or its encoder does not fit the model.
    """
    other = Run.open(path)
    source = other.load_model()
    if not isinstance(source, FeatureModel) or not isinstance(model, FeatureModel):
        raise InputError(
            f"encoder {str(path)!r} is the run of a {other.config.model}, which has no encoder: "
            "give a run of an encoder-mixture-decoder"
        )
    if isinstance(source, VAE) != isinstance(model, VAE):
        raise InputError(
            f"encoder {str(path)!r} is that of a {other.config.model}: only a VAE's encoder makes "
            "means and variances, and only a VAE can take it over"
        )
    theirs, own = source.encoder.state_dict(), model.encoder.state_dict()
    if {k: v.shape for k, v in theirs.items()} != {k: v.shape for k, v in own.items()}:
        config = other.config
        raise InputError(
            f"encoder {str(path)!r} is of another shape than this model's: use data of as many "
            f"coordinates, and its --model {config.model} --network {config.network} --width "
            f"{config.width} --depth {config.depth} --features {config.features}"
        )
    model.encoder.load_state_dict(theirs)
    model.freeze_encoder()
