"""Turn a configuration into all that a training needs, and check it before anything is written."""

import logging
from dataclasses import dataclass, field
from pathlib import Path

import torch

from hilbound.config import RunConfig
from hilbound.datasets import Dataset
from hilbound.datasets.catalogue import OF_FILES, refuse_meaningless
from hilbound.engine.seeding import stream
from hilbound.errors import InputError
from hilbound.models.autoencoders import VAE, FeatureModel
from hilbound.models.base import DensityModel
from hilbound.models.blocks import BlockDensityNetwork
from hilbound.models.build import MODELS, DataShape, build_model, number_of_blocks
from hilbound.models.classes import with_encoder
from hilbound.models.networks import NETWORKS
from hilbound.objectives import BlockObjective, Objective, create_objective, refuse_blocks
from hilbound.training.batches import SharingRows
from hilbound.training.memory import refuse_too_large
from hilbound.training.runs import Run, load_dataset
from hilbound.variance import (
    Specification,
    VarianceSchedule,
    joint_feature_variance,
    of_component,
)

log = logging.getLogger(__name__)

# Objectives that do not depend on variances.
_WITHOUT_VARIANCE = frozenset({"mse", "distance"})

# A debiased slice is cut into halves, and each needs two rows to differ.
_LEAST_IN_SLICE = 4
_OF_SPLIT = {"train": "training", "validation": "validation"}
# So many features are looked at before a training by slices.
_LOOKED_AT = 64


@dataclass(frozen=True)
class TrainingPlan:
    """Everything a training needs, checked and built, before anything is written.

    Args:
        config: The options.
        dataset: The data.
        objective: The objective.
        schedule: The variance of the kernel over the run.
        model: The model at its start.
        apart: The variance of a component of the data and of the model, if they differ.
    """

    config: RunConfig
    dataset: Dataset
    objective: Objective
    schedule: VarianceSchedule
    model: DensityModel
    apart: tuple[VarianceSchedule, VarianceSchedule] | None = None
    _sharing: dict[str, SharingRows] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def kernel_variance(self, step: int) -> float:
        """Return the variance of the kernel between a point and a centre at a step."""
        if self.apart is not None:
            return self.data_variance(step) + self.model_variance(step)
        return self.schedule.at(self._progress(step))

    def data_variance(self, step: int) -> float:
        """Return the variance of a component of the data's mixture at a step."""
        if self.apart is not None:
            return self.apart[0].at(self._progress(step))
        return self.objective.component_variance(self.kernel_variance(step))

    def model_variance(self, step: int) -> float:
        """Return the variance of a component of the model's mixture at a step."""
        if self.apart is not None:
            return self.apart[1].at(self._progress(step))
        return self.objective.component_variance(self.kernel_variance(step))

    def _progress(self, step: int) -> float:
        return step / max(1, self.config.steps - 1)

    @property
    def feature_variance(self) -> float:
        """The variance of a component in the features, for objectives of pairs."""
        own: float | None = getattr(self.objective, "feature_variance", None)
        if own is not None:
            return own
        inner = with_encoder(self.model)
        features = 1 if inner is None else inner.decoder.feature_dim
        return joint_feature_variance(features, self.config.batch_size)

    @property
    def blocks(self) -> int:
        """The number of blocks that a step compares; 1 if the model is not cut into blocks."""
        return self.model.blocks if isinstance(self.model, BlockDensityNetwork) else 1

    @property
    def rows_per_block(self) -> int:
        """The number of rows of each block in a step."""
        return self.config.batch_size // self.blocks

    @torch.no_grad()
    def sharing_rows(self, split: str) -> SharingRows:
        """Return the rows of a split with the features of the frozen encoder, encoded once."""
        if split not in self._sharing:
            model, (rows, labels) = with_encoder(self.model), self.dataset.split(split)
            if model is None or model.variance_y is None:  # the configuration refuses it
                raise TypeError(f"{type(self.model).__name__} has no noisy features")
            features = model.features_of(rows.to(model.decoder.variance.device)).cpu()
            labels = labels if self.config.condition == "classes" else None
            self._sharing[split] = SharingRows(rows, features, model.variance_y, labels)
        return self._sharing[split]

    def smooth_model(self, step: int) -> None:
        """Give the model's components their variance at a step, where the schedule moves it."""
        if not (self.schedule if self.apart is None else self.apart[1]).constant:
            self.model.head.variance.fill_(self.model_variance(step))


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
    _check_parts(config, objective)
    specifications = _specifications(config, objective)
    _check_names(config)
    if dataset is None and not resumed:
        _refuse_without_meaning(config)
    dataset = load_dataset(config, known=resumed) if dataset is None else dataset
    schedule, apart = _schedules(specifications, dataset, config.seed)
    learned = schedule if apart is None else apart[1]
    if config.learn_variance and not learned.constant:
        text = config.variance if config.variance_model is None else config.variance_model
        raise InputError(f"variance {text!r} is a schedule, and learn_variance learns it: use one")
    asked, config = config, _cut_batch(config, dataset)
    _check_range(config, schedule)
    data = DataShape(dataset.dim, dataset.image_shape, len(dataset.train), dataset.classes)
    blocks = (number_of_blocks(config, data) or 1) if config.by_blocks else 1
    refuse_too_large(config, dataset.dim, blocks)
    component = objective.component_variance(schedule.start) if apart is None else apart[1].start
    model = build_model(config, data, component)
    _check_objective(asked, objective, model)
    _check_rows(asked, objective, dataset, blocks)
    if config.precision == "64-true":
        # Lightning would convert the model too late: after rounding a checkpoint to float32.
        model = model.double()
    _take_encoder_of(config, model, resumed=resumed)
    objective = _in_parts(config, dataset, model, objective, resumed=resumed)
    plan = TrainingPlan(config, dataset, objective, schedule, model, apart)
    if config.slices is not None and not resumed:
        _look_at_slices(plan)
    return plan


def _cut_batch(config: RunConfig, dataset: Dataset) -> RunConfig:
    """Return the configuration with no more rows in a step than there are."""
    rows = len(dataset.train)
    if config.slices is not None:
        _check_slices(config, dataset)
        return config
    if config.batch_size <= rows:
        return config
    log.warning(
        "batch_size %d is more than the %d training rows: every row is used in every step, %d rows "
        "at a time",
        config.batch_size,
        rows,
        rows,
    )
    centers = config.centers or _default_centers(config, rows)
    return config.model_copy(update={"batch_size": rows, "centers": centers})


def _take_encoder_of(config: RunConfig, model: DensityModel, *, resumed: bool) -> None:
    """Freeze the encoder of another run; the checkpoint of a resumed run holds its weights."""
    inner = with_encoder(model)
    if config.encoder is not None and resumed and inner is not None:
        inner.freeze_encoder()
    elif config.encoder is not None:
        take_encoder(model, config.encoder)


def _specifications(
    config: RunConfig, objective: Objective
) -> tuple[Specification, Specification | None, Specification | None]:
    """Return the variance of the kernel, and of components of the data and of the model if given.

    Raises:
        InputError: If a text is no variance, or the objective does not smooth both mixtures.
    """
    texts = {name: getattr(config, name) for name in ("variance_data", "variance_model")}
    given = [name for name, text in texts.items() if text is not None]
    if given and (objective.smoothed < 2 or config.objective in _WITHOUT_VARIANCE):
        raise InputError(
            f"{' and '.join(given)} would have no effect: objective {config.objective!r} does not "
            "smooth both the data and the model; use --variance, or an objective such as scalar"
        )
    data, model = (None if t is None else Specification.parse(t) for t in texts.values())
    return Specification.parse(config.variance), data, model


def _schedules(
    specifications: tuple[Specification, Specification | None, Specification | None],
    dataset: Dataset,
    seed: int,
) -> tuple[VarianceSchedule, tuple[VarianceSchedule, VarianceSchedule] | None]:
    """Return the schedule of the kernel, and those of both components if one was given."""

    def read(one: Specification) -> VarianceSchedule:
        return one.read(dataset.train, stream(seed, "median"))

    both, of_data, of_model = specifications
    kernel = read(both)
    if of_data is None and of_model is None:
        return kernel, None
    half = VarianceSchedule(of_component(kernel.start), of_component(kernel.end))
    data, model = (half if one is None else read(one) for one in (of_data, of_model))
    return VarianceSchedule(data.start + model.start, data.end + model.end), (data, model)


def _in_parts(
    config: RunConfig,
    dataset: Dataset,
    model: DensityModel,
    objective: Objective,
    *,
    resumed: bool,
) -> Objective:
    """Find the blocks of a model that is made of them, and return the objective of all parts.

    Parts of a batch are blocks or slices.
    """
    if config.condition == "classes":
        _check_classes(config, dataset)
    if config.slices is not None:
        return BlockObjective(objective, torch.full((config.slices,), 1 / config.slices))
    if not isinstance(model, BlockDensityNetwork):
        return objective
    if not resumed:
        find_blocks(model, dataset, config)
    return BlockObjective(objective, model.share.clone())


def find_blocks(model: BlockDensityNetwork, dataset: Dataset, config: RunConfig) -> None:
    """Find the clusters and the shares of the blocks in the training rows.

    Raises:
        InputError: If a block has no training rows or no validation rows.
    """
    seed = stream(config.seed, "clusters").initial_seed() % 2**32
    model.learn_blocks(dataset.train, dataset.train_labels, seed)
    if not model.clusters:
        return
    counts = model.blocks_of(dataset.validation).bincount(minlength=model.blocks)
    if int(counts.min()) == 0:
        raise InputError(
            f"condition {config.condition!r} leaves {int((counts == 0).sum())} clusters without "
            f"any of the {len(dataset.validation)} validation rows: take fewer clusters, or give "
            "more data"
        )


def _check_classes(config: RunConfig, dataset: Dataset) -> None:
    """Raise an InputError if a class has no rows in a split that training reads."""
    for split in ("train", "validation"):
        _, labels = dataset.split(split)
        if labels is None:
            continue
        counts = labels.bincount(minlength=dataset.classes or 0)
        names = dataset.class_names or tuple(map(str, range(len(counts))))
        empty = [name for name, count in zip(names, counts.tolist(), strict=True) if count == 0]
        if empty:
            raise InputError(
                f"condition 'classes' needs rows of every class, and {config.data!r} has no "
                f"{split} rows of class {', '.join(empty)}: give more data, or leave the class out"
            )


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
    if config.slices is None and config.objective not in model.objectives:
        raise InputError(
            f"objective {config.objective!r} cannot train model {config.model!r}: it is trained by "
            + " or ".join(repr(name) for name in model.objectives)
        )
    if objective.pairs and config.learn_variance:
        raise InputError(
            f"objective {config.objective!r} needs one variance for all centres, or overlaps of "
            "pairs would not fit into memory: leave out learn_variance"
        )
    if objective.paired and config.centers not in {None, config.batch_size}:
        raise InputError(
            f"objective {config.objective!r} pairs every centre with a data point: leave centers "
            f"out, or give as many as batch_size ({config.batch_size}), got {config.centers}"
        )


def _check_parts(config: RunConfig, objective: Objective) -> None:
    """Raise an InputError for an objective that cannot compare blocks or slices."""
    known = FeatureModel.slice_objectives
    if config.slices is not None and config.objective not in known:
        raise InputError(
            f"objective {config.objective!r} cannot compare slices: use "
            f"{' or '.join(map(repr, known))}, or leave slices out"
        )
    if config.by_blocks or config.slices is not None:
        refuse_blocks(objective)


def _check_slices(config: RunConfig, dataset: Dataset) -> None:
    """Raise an InputError if the rows of a slice are too few, or more than can share a feature."""
    own = config.rows_per_slice
    rows, there = _most_in_slice(config, dataset, "train")
    held_out, others = _most_in_slice(config, dataset, "validation")
    if own < _LEAST_IN_SLICE:
        raise InputError(
            f"batch_size {config.batch_size} leaves {own} rows for each of {config.slices} slices, "
            f"and a slice needs at least {_LEAST_IN_SLICE}: give a batch_size of at least "
            f"{_LEAST_IN_SLICE * (config.slices or 1)}, or fewer slices"
        )
    if own > rows:
        raise InputError(
            f"batch_size {config.batch_size} with {config.slices} slices makes slices of {own} "
            f"rows, and {there}: lower batch_size, or take more slices"
        )
    if held_out < _LEAST_IN_SLICE:
        raise InputError(
            f"a slice needs at least {_LEAST_IN_SLICE} rows, and {others}: give more data, or a "
            "larger validation_fraction"
        )


def _most_in_slice(config: RunConfig, dataset: Dataset, split: str) -> tuple[int, str]:
    """Return how many rows of a split any feature may have, and a text that says so."""
    rows, labels = dataset.split(split)
    if config.condition != "classes" or labels is None:
        return len(rows), f"there are {len(rows)} {_OF_SPLIT[split]} rows"
    smallest = int(labels.unique(return_counts=True)[1].min())
    return smallest, f"the smallest class has {smallest} {_OF_SPLIT[split]} rows"


def _look_at_slices(plan: TrainingPlan) -> None:
    """Warn if so few rows share a feature that others must fill the slices."""
    sharing, own = plan.sharing_rows("train"), plan.config.rows_per_slice
    draws = stream(plan.config.seed, "slices", "look")
    some = torch.randint(len(sharing.rows), (_LOOKED_AT,), generator=draws)
    labels = None if sharing.labels is None else sharing.labels[some]
    weights = sharing.log_weights(sharing.features[some], labels).softmax(-1)
    effective = float((1 / weights.square().sum(-1)).median())
    if effective < own:
        log.warning(
            "a feature is shared by about %.0f of %d training rows, and a slice has %d rows: rows "
            "with other features fill it up. Take more slices, a smaller batch_size, a larger "
            "variance_y, or fewer features",
            effective,
            len(sharing.rows),
            own,
        )


def _check_rows(config: RunConfig, objective: Objective, dataset: Dataset, blocks: int) -> None:
    """Raise an InputError if there are too few rows for one batch of the objective."""
    least = objective.least_rows
    for name in ("batch_size", "centers") if blocks > 1 else ():
        number = getattr(config, name)
        if number is not None and number < blocks * least:
            raise InputError(
                f"{name} {number} is less than {least} for each of the {blocks} blocks of "
                f"condition {config.condition!r}: give at least {blocks * least}"
            )
    for name in ("train", "validation"):
        rows = len(getattr(dataset, name))
        if rows < objective.least_rows:
            raise InputError(
                f"objective {config.objective!r} cuts a batch into halves and needs at least "
                f"{objective.least_rows} {name} rows, {config.data!r} has {rows}: give more data, "
                "a larger share of it (validation_fraction), or take objective 'nuclear'"
            )


def take_encoder(target: DensityModel, path: Path | str) -> None:
    """Copy the encoder of another run into a model and freeze it.

    Args:
        target: A model with an encoder.
        path: The run folder.

    Raises:
        InputError: If the folder holds no run, or its encoder does not fit the model.
    """
    other = Run.open(path)
    source, model = with_encoder(other.load_model()), with_encoder(target)
    if source is None or model is None:
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
        width, depth = config.encoder_size
        raise InputError(
            f"encoder {str(path)!r} is of another shape than this model's: use data of as many "
            f"coordinates, and its --model {config.model} --network {config.network} "
            f"--encoder-width {width} --encoder-depth {depth} "
            f"--features {config.features}"
        )
    model.encoder.load_state_dict(theirs)
    model.freeze_encoder()
