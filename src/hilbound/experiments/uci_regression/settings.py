"""The settings of the UCI regressions: which tables, which methods, on how many splits."""

from pydantic import Field

from hilbound.experiments.base import Settings

#: The published test negative log-likelihoods beside which ours stand: the best parametric one,
#: NGBoost's, and that of a network whose weights are downloaded.
PUBLISHED: dict[str, dict[str, float]] = {
    "concrete": {"best parametric": 2.83, "NGBoost": 3.04, "pretrained": 2.21},
    "energy": {"best parametric": 0.46, "NGBoost": 0.60, "pretrained": 0.15},
    "power-plant": {"best parametric": 2.60, "NGBoost": 2.79, "pretrained": 2.28},
    "wine-quality-red": {"best parametric": 0.89, "NGBoost": 0.91},
}

#: What ours should reach at most, for each effort.
GOALS: dict[str, dict[str, float]] = {
    "concrete": {"default": 2.75, "high": 2.60},
    "energy": {"default": 0.15, "high": 0.05},
    "power-plant": {"default": 2.62, "high": 2.52},
    "wine-quality-red": {"default": 0.88, "high": 0.78},
}


class UciSettings(Settings):
    """What is the same for all cells."""

    sets: tuple[str, ...] = tuple(GOALS)
    methods: tuple[str, ...] = (
        *("default", "high", "network", "boosting", "quantiles", "forest"),
        *("process", "ngboost"),
    )
    #: Some methods are measured on the first splits alone, as many as stand here.
    few: dict[str, int] = Field({"process": 3, "ngboost": 3})
    #: scikit-learn's Gaussian process takes the cube of this many rows.
    process_rows: int = 1000
    #: Passes over the rows; the estimator's own choice if there is none.
    max_epochs: int | None = None
