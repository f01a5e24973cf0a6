"""From a configuration to everything that a training needs, checked before anything is written."""

import logging
from dataclasses import dataclass
from pathlib import Path

from hilbound import datasets
from hilbound.config import RunConfig
from hilbound.datasets import Dataset
from hilbound.engine.seeding import stream
from hilbound.errors import InputError
from hilbound.models.autoencoders import VAE, FeatureModel
from hilbound.models.base import DensityModel
from hilbound.models.build import DataShape, build_model
from hilbound.objectives import Objective, create_objective
from hilbound.training.runs import Run, fingerprint
from hilbound.variance import VarianceSchedule, parse_variance

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


def load_dataset(config: RunConfig) -> Dataset:
    """Load the data set that a configuration names."""
    return datasets.load(
        config.data,
        seed=config.seed,
        samples=config.samples,
        validation_fraction=config.validation_fraction,
        test_fraction=config.test_fraction,
        scale=config.scale,
        label_column=config.label_column,
        image_size=config.image_size,
        crop=config.crop,
        grayscale=config.grayscale,
        classes=config.classes,
    )


def load_run_dataset(run: Run) -> Dataset:
    """Load the data set of a run, to measure and draw the run against.

    Rows that have changed since the training are told in a warning.

    Raises:
        InputError: If the data are gone, or can no longer be compared with the run's samples.
    """
    dataset, data = load_dataset(run.config), run.read_json("run.json")["data"]
    shape = None if data["image_shape"] is None else tuple(data["image_shape"])
    if (dataset.dim, dataset.image_shape) != (data["dim"], shape):
        raise InputError(
            f"the data of run {str(run.path)!r} ({run.config.data}) now have {dataset.dim} "
            f"coordinates, and had {data['dim']} when it was trained: restore them, or fit anew"
        )
    if fingerprint(dataset) != data["fingerprint"]:
        log.warning("the data of run %s (%s) have changed since", run.path, run.config.data)
    return dataset


def plan_training(config: RunConfig, *, resumed: bool = False) -> TrainingPlan:
    """Check a configuration against its data and build what training needs.

    Args:
        config: The configuration.
        resumed: Whether the weights will come from a checkpoint, those of a taken encoder, too.

    Raises:
        InputError: If a name is unknown, the data cannot be used, or options contradict each other.
    """
    objective = create_objective(config.objective, **config.objective_options)
    dataset = load_dataset(config)
    schedule = parse_variance(config.variance, dataset.train, stream(config.seed, "median"))
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
                "centers": config.centers or config.batch_size,
            }
        )
    component = objective.component_variance(schedule.start)
    data = DataShape(dataset.dim, dataset.image_shape, len(dataset.train))
    model = build_model(config, data, component)
    _check_objective(asked, objective, model)
    if config.precision == "64-true":
        # Lightning would do it only after the weights of a checkpoint were rounded to float32.
        model = model.double()
    if config.encoder is not None and resumed and isinstance(model, FeatureModel):
        model.freeze_encoder()
    elif config.encoder is not None:
        take_encoder(model, config.encoder)
    return TrainingPlan(config, dataset, objective, schedule, model)


def _check_objective(config: RunConfig, objective: Objective, model: DensityModel) -> None:
    """Raise an InputError if the objective cannot train the model, or not with its centres."""
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


def take_encoder(model: DensityModel, path: Path | str) -> None:
    """Put the encoder of another run into a model, where it no longer learns.

    Args:
        model: A model with an encoder.
        path: The run folder.

    Raises:
        InputError: If the folder holds no run, or its encoder is of another kind.
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
