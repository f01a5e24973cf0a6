"""The configuration of a training.

The fields of :class:`RunConfig` are the options of ``hilbound fit`` (``batch_size`` becomes
``--batch-size``), the keys of a ``--config`` file and the arguments of :func:`hilbound.fit`.
"""

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import ConfigDict, Field, field_validator, model_validator

from hilbound.config.reading import Options


def _option(default: Any, description: str, panel: str, **limits: Any) -> Any:
    """Return a field. The command line shows its description and groups options by panel."""
    return Field(default, description=description, json_schema_extra={"panel": panel}, **limits)


#: Share of the rows of a file or folder that is held out for validation. The same share is held out
#: for testing.
HELD_OUT = 0.1

#: One cluster is no condition.
FEWEST_CLUSTERS = 2
#: What a configuration may ask for: it may come from a stranger, and a size is a claim.
MOST_UNITS, MOST_LAYERS, MOST_PIXELS = 1 << 16, 256, 1 << 14
MOST_ROWS, MOST_STEPS = 10**9, 10**12

_DATA, _TABLE, _IMAGES, _MODEL = "Data", "Files of tables", "Images", "Model"
_OBJECTIVE, _TRAINING = "Objective", "Training"

#: Defaults that differ by model. With the median as variance, one centre for every input would be
#: enough, so models with an encoder have a smaller one. Likelihoods need a variance for one
#: coordinate, and learn it.
MODEL_DEFAULTS: dict[str, dict[str, Any]] = {
    "encoder-mixture-decoder": {
        "objective": "conditional",
        "variance": "0.3*median",
        "batch_size": 128,
        "centers": 10,
        "variance_y": 0.01,
        "learning_rate": 1e-3,
        "beta1": 0.9,
        "beta2": 0.999,
    },
    "autoencoder": {
        "objective": "trace",
        "batch_size": 128,
        "learning_rate": 1e-3,
        "beta1": 0.9,
        "beta2": 0.999,
    },
    "latent-mixture": {
        "objective": "trace",
        "features": None,
        "variance_y": 0.02,
        "width": 768,
        "batch_size": 256,
        "steps": 6000,
        "validate_every": 500,
        "learning_rate": 2e-3,
        "beta1": 0.9,
        "beta2": 0.999,
    },
    "vae": {
        "objective": "likelihood",
        "variance": "median/dim",
        "learn_variance": True,
        "batch_size": 128,
        "learning_rate": 1e-3,
        "beta1": 0.9,
        "beta2": 0.999,
    },
}
_FEATURES_ONLY = frozenset({"features", "variance_y", "encoder", "encoder_width", "encoder_depth"})
_DENSITY_ONLY = frozenset({"components"})
_SLICED_ONLY = frozenset({"slices"})
_MIXTURE_ONLY = frozenset({"noise_dim", "centers", "eval_centers", "learn_weights"})
#: Defaults of the objective of pairs (row, features), for any model with an encoder. The nuclear
#: norm finds who shares a feature, so one centre for a row is enough.
PAIR_DEFAULTS: dict[str, Any] = {
    "variance": "median",
    "batch_size": 512,
    "centers": 1,
    "learning_rate": 4e-3,
}
#: Defaults of a training by slices, each of which holds rows that share one feature.
SLICE_DEFAULTS: dict[str, Any] = {
    "objective": "debiased",
    "variance": "median",
    "batch_size": 4096,
    "centers": None,
    "eval_centers": 30,
    "learning_rate": 4e-3,
    "beta1": 0.5,
    "beta2": 0.9,
}
# Options without effect for a model. They are refused, because ignoring them would mislead.
_WITHOUT_MEANING = {
    "mixture-density-network": _FEATURES_ONLY | _DENSITY_ONLY | _SLICED_ONLY | {"bound_rows"},
    "encoder-mixture-decoder": _DENSITY_ONLY,
    "autoencoder": _MIXTURE_ONLY | _DENSITY_ONLY | _SLICED_ONLY | {"bound_rows"},
    "latent-mixture": _SLICED_ONLY,
    "vae": _MIXTURE_ONLY | _DENSITY_ONLY | _SLICED_ONLY | {"variance_y", "bound_rows"},
}
#: Objectives that compare every row with one centre: a latent mixture then has no decoder's noise.
ONE_CENTRE = ("trace", "mse")


class RunConfig(Options):
    """All options that determine what a run computes.

    >>> RunConfig(data="moons", batch_size=256).objective
    'debiased'
    """

    # Numbers become strings, because YAML reads `devices: 2` as a number. Infinity is refused.
    model_config = ConfigDict(coerce_numbers_to_str=True, allow_inf_nan=False)

    data: str = _option(
        ...,
        "Name of a data set, or path to a table, an array or a folder of images.",
        _DATA,
    )
    samples: int | None = _option(
        None, "Use at most this many training rows.", _DATA, ge=2, le=MOST_ROWS
    )
    validation_fraction: float = _option(
        HELD_OUT, "Share of a table's or folder's rows kept for validation.", _DATA, gt=0, lt=1
    )
    test_fraction: float = _option(
        HELD_OUT, "Share of a table's or folder's rows kept for testing.", _DATA, gt=0, lt=1
    )
    scale: Literal["standardize", "none"] = _option(
        "standardize", "Whether a table's columns are standardised.", _DATA
    )
    label_column: str | None = _option(
        None, "Column of a table, or attribute of CelebA, that holds class labels.", _DATA
    )

    header: bool | None = _option(
        None,
        "Whether the first line of a text file names the columns. (default: detected)",
        _TABLE,
    )
    delimiter: str | None = _option(
        None,
        "What separates the fields of a text file: a character, tab, or blank. (default: detected)",
        _TABLE,
    )
    decimal: Literal[".", ","] | None = _option(
        None, "The decimal mark of a text file. (default: detected)", _TABLE
    )
    columns: list[str] | None = _option(
        None,
        "The only columns to use, as in height,weight. (default: all)",
        _TABLE,
        min_length=1,
    )
    drop: list[str] = _option([], "Columns to leave out, such as a row's number.", _TABLE)
    missing: Literal["refuse", "drop", "impute"] = _option(
        "refuse",
        "What to do with missing values: refuse them, leave out their rows, or fill them in from "
        "similar rows.",
        _TABLE,
    )

    image_size: int | None = _option(
        None,
        "Height and width to which the central square of images is resized. (default: not resized; "
        "64 for celeba)",
        _IMAGES,
        ge=1,
        le=MOST_PIXELS,
    )
    crop: int | None = _option(
        None,
        "Side in pixels of the central square that is cut out of images first. (default: the "
        "largest if image-size is given; 148 for celeba)",
        _IMAGES,
        ge=1,
        le=MOST_PIXELS,
    )
    grayscale: bool = _option(False, "Make images grey.", _IMAGES)
    classes: str | None = _option(
        None, "The only classes of images to use, by name or number, such as cat,dog.", _IMAGES
    )

    model: str = _option("mixture-density-network", "Name of the model.", _MODEL)
    network: str = _option("mlp", "Kind of all networks of the model: mlp or conv.", _MODEL)
    condition: str | None = _option(
        None,
        "What the model is told beside its noise or features: classes (the labels of the data), or "
        "clusters=32 (k-means clusters of the training rows, for mixture-density-network).",
        _MODEL,
    )
    features: int | None = _option(
        2, "Number of features that an encoder makes.", _MODEL, ge=1, le=MOST_UNITS
    )
    components: int | None = _option(
        None,
        "Components of the density of features. (default: chosen on held-out rows)",
        _MODEL,
        ge=1,
        le=MOST_UNITS,
    )
    variance_y: float | None = _option(
        None,
        "Variance of the noise on features, relative to their own variance. (default: 0.01; no "
        "noise for autoencoder)",
        _MODEL,
        gt=0,
    )
    encoder: str | None = _option(None, "Run folder whose encoder is used and frozen.", _MODEL)
    noise_dim: int = _option(16, "Number of noise coordinates.", _MODEL, ge=1, le=MOST_UNITS)
    width: int = _option(
        512, "Units of a hidden layer, or channels of the coarse grid.", _MODEL, ge=1, le=MOST_UNITS
    )
    depth: int = _option(
        2, "Number of hidden layers, or of upsamplings.", _MODEL, ge=0, le=MOST_LAYERS
    )
    encoder_width: int | None = _option(
        None,
        "Units of a hidden layer of the encoder. (default: as --width)",
        _MODEL,
        ge=1,
        le=MOST_UNITS,
    )
    encoder_depth: int | None = _option(
        None,
        "Number of hidden layers of the encoder. (default: as --depth)",
        _MODEL,
        ge=0,
        le=MOST_LAYERS,
    )
    learn_weights: bool = _option(False, "Learn a weight for every centre.", _MODEL)
    learn_variance: bool = _option(False, "Learn a variance for every centre.", _MODEL)
    min_variance: float | None = _option(
        None,
        "Lower bound of learned variances. (default: a hundredth of the initial variance)",
        _MODEL,
        gt=0,
    )

    objective: str = _option("debiased", "Name of the objective.", _OBJECTIVE)
    objective_options: dict[str, float | bool] = _option(
        {},
        "Option of the objective, such as power=0.7 for schatten. Can be repeated.",
        _OBJECTIVE,
    )
    variance: float | str = _option(
        "median",
        "Variance of the kernel between a point and a centre: a number, median, 0.5*median, "
        "median/dim, another rule (rank, silverman, half-rank), or START:END for a schedule.",
        _OBJECTIVE,
    )
    variance_data: float | str | None = _option(
        None,
        "Variance of a component of the data, if not half of the kernel's: as --variance.",
        _OBJECTIVE,
    )
    variance_model: float | str | None = _option(
        None,
        "Variance of a component of the model, if not half of the kernel's: as --variance.",
        _OBJECTIVE,
    )
    slices: int | None = _option(
        None,
        "Compare p(x|y) with q(x|y) at so many features y in a step, each with rows that share it. "
        "The encoder must be frozen (--encoder). (default: rows are compared one by one)",
        _OBJECTIVE,
        ge=1,
        le=MOST_ROWS,
    )
    batch_size: int = _option(512, "Data points in a step.", _OBJECTIVE, ge=2, le=MOST_ROWS)
    centers: int | None = _option(
        None,
        "Centres of the model in a step. (default: as many as data points; with an encoder, 10 "
        "for every input; for every slice, as many as its rows)",
        _OBJECTIVE,
        ge=1,
        le=MOST_ROWS,
    )
    eval_centers: int | None = _option(
        None,
        "Centres when the model is measured. (default: as in training)",
        _OBJECTIVE,
        ge=1,
        le=MOST_ROWS,
    )
    bound_every: int | None = _option(
        None,
        "Steps between two measurements of the bound. (default: 20; for a conditional bound, "
        "chosen so that measuring takes 3 % of the time)",
        _OBJECTIVE,
        ge=1,
    )
    bound_rows: int = _option(
        800,
        "Number of fixed rows on which a conditional bound is measured.",
        _OBJECTIVE,
        ge=2,
        le=MOST_ROWS,
    )

    steps: int = _option(2000, "Number of training steps.", _TRAINING, ge=1, le=MOST_STEPS)
    learning_rate: float = _option(5e-3, "Learning rate of Adam at the start.", _TRAINING, gt=0)
    decay: bool = _option(True, "Let the learning rate fall to zero along a cosine.", _TRAINING)
    beta1: float = _option(0.5, "Adam's first momentum.", _TRAINING, ge=0, lt=1)
    beta2: float = _option(0.9, "Adam's second momentum.", _TRAINING, ge=0, lt=1)
    validate_every: int = _option(100, "Steps between two validations.", _TRAINING, ge=1)
    patience: int | None = _option(
        None,
        "Stop after this many validations without improvement, and keep the best weights.",
        _TRAINING,
        ge=1,
    )
    seed: int = _option(0, "Seed of everything random.", _TRAINING, ge=0, lt=2**32)
    devices: str = _option("1", "Number of devices, or auto.", _TRAINING)
    accelerator: str = _option("auto", "cpu, gpu, mps or auto.", _TRAINING)
    precision: Literal["32-true", "64-true", "bf16-mixed", "16-mixed"] = _option(
        "32-true", "Precision of the network. Objectives use float32 or more.", _TRAINING
    )
    tensorboard: bool = _option(True, "Write TensorBoard logs into the run folder.", _TRAINING)

    @model_validator(mode="before")
    @classmethod
    def _defaults_of_the_model(cls, options: Any) -> Any:
        if not isinstance(options, dict):
            return options
        own = MODEL_DEFAULTS.get(str(options.get("model")), {})
        if options.get("objective") == "joint-nuclear":
            foreign = _WITHOUT_MEANING.get(str(options.get("model")), frozenset())
            own = own | {k: v for k, v in PAIR_DEFAULTS.items() if k not in foreign}
        if options.get("slices") is not None:
            own = own | SLICE_DEFAULTS
        return own | {k: v for k, v in options.items() if v is not None or k not in own}

    @model_validator(mode="after")
    def _refuse_clusters_of_features(self) -> Self:
        if self.clusters is not None and self.model in MODEL_DEFAULTS:
            raise ValueError(
                f"condition {self.condition!r} is for model 'mixture-density-network', and the "
                f"features of {self.model!r} tell groups of rows apart by themselves: use "
                "condition 'classes', or leave it out"
            )
        return self

    @model_validator(mode="after")
    def _refuse_what_has_no_meaning(self) -> Self:
        if self.model == "latent-mixture" and self.objective in ONE_CENTRE:
            self._refuse_beside_one_centre()
        for name in sorted(_WITHOUT_MEANING.get(self.model, frozenset())):
            if getattr(self, name) != type(self).model_fields[name].default:
                models = [
                    model
                    for model in (*MODEL_DEFAULTS, *_WITHOUT_MEANING)
                    if name not in _WITHOUT_MEANING.get(model, frozenset())
                ]
                raise ValueError(
                    f"{name} has no effect for model {self.model!r}: leave it out, or use "
                    f"{' or '.join(dict.fromkeys(models))}"
                )
        # A VAE learns its variance without being asked; that this objective cannot train it is
        # said when the training is planned.
        if self.model != "vae" and self.objective == "mse" and self.learn_variance:
            raise ValueError(
                "learn_variance has no effect for objective 'mse', which does not use a variance: "
                "leave it out, or use objective 'trace'"
            )
        return self

    @model_validator(mode="after")
    def _refuse_slices_of_what_moves(self) -> Self:
        if self.slices is None:
            return self
        if self.encoder is None:
            raise ValueError(
                f"slices {self.slices} needs features that stay as they are: name the run whose "
                "encoder makes them (encoder), such as one of model 'autoencoder' with variance_y"
            )
        return self

    def _refuse_beside_one_centre(self) -> None:
        for name in sorted(_MIXTURE_ONLY):
            if getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(
                    f"{name} has no effect for objective {self.objective!r}, which compares every "
                    "row with one centre: leave it out, or use objective 'conditional'"
                )

    @field_validator("data", "encoder", mode="before")
    @classmethod
    def _path_as_text(cls, path: object) -> object:
        return str(path) if isinstance(path, Path) else path

    @field_validator("condition")
    @classmethod
    def _classes_or_clusters(cls, value: str | None) -> str | None:
        kind, _, number = (value or "classes").partition("=")
        whole = number.isascii() and number.isdecimal()
        if (kind, number) != ("classes", "") and not (kind == "clusters" and whole):
            raise ValueError("must be classes, or clusters=32 with any number of clusters")
        if kind == "clusters" and int(number) < FEWEST_CLUSTERS:
            raise ValueError(f"must have at least {FEWEST_CLUSTERS} clusters")
        return value

    @field_validator("classes", mode="before")
    @classmethod
    def _list_as_text(cls, classes: object) -> object:
        return ",".join(map(str, classes)) if isinstance(classes, list | tuple) else classes

    @field_validator("objective_options", mode="before")
    @classmethod
    def _read_pairs(cls, value: Any) -> Any:
        """Convert ``["power=0.7"]``, the form on the command line, to ``{"power": 0.7}``."""
        if not isinstance(value, list):
            return value
        pairs = [str(pair).partition("=") for pair in value]
        if not all(name.strip() and text.strip() for name, _, text in pairs):
            raise ValueError("must be written as name=value")
        return {name.strip().replace("-", "_"): text.strip() for name, _, text in pairs}

    @classmethod
    def create(cls, **options: Any) -> Self:
        """Build a configuration. The error has one line for each invalid option.

        Raises:
            InputError: If an option is unknown, missing or out of range.

        >>> RunConfig.create(data="moons", batch_sise=3)
        Traceback (most recent call last):
            ...
        hilbound.errors.InputError: unknown option 'batch_sise': did you mean 'batch_size'?
        """
        return cls.checked(options, also=tuple(Switches.model_fields))

    @property
    def clusters(self) -> int | None:
        """The number of clusters that the model is conditioned on, or ``None``.

        >>> RunConfig(data="moons", condition="clusters=8").clusters
        8
        """
        kind, _, number = (self.condition or "").partition("=")
        return int(number) if kind == "clusters" else None

    @property
    def encoder_size(self) -> tuple[int, int]:
        """Width and depth of the encoder.

        >>> RunConfig(data="moons", model="vae", width=64, depth=3, encoder_depth=1).encoder_size
        (64, 1)
        """
        depth = self.depth if self.encoder_depth is None else self.encoder_depth
        return self.encoder_width or self.width, depth

    @property
    def rows_per_slice(self) -> int:
        """The number of rows of a slice; all rows of a batch if it has no slices.

        >>> RunConfig(data="moons", batch_size=100).rows_per_slice
        100
        """
        return self.batch_size // (self.slices or 1)

    @property
    def by_blocks(self) -> bool:
        """Whether every step compares one mixture for each class or cluster."""
        return self.condition is not None and self.model not in MODEL_DEFAULTS


class Switches(Options):
    """Further options of ``hilbound fit``. The trained weights do not depend on them."""

    output: Path | None = None
    overwrite: bool = False
    report: bool = True
    quiet: bool = False

    @classmethod
    def take(cls, settings: dict[str, Any]) -> Self:
        """Move the switches out of the settings that a YAML file holds.

        Raises:
            InputError: If a value is not a path, or neither true nor false.
        """
        own = {name: settings.pop(name) for name in cls.model_fields if name in settings}
        return cls.checked(own, also=tuple(RunConfig.model_fields))
