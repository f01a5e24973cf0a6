"""The settings of the UCI regressions: which tables, which methods, on how many splits."""

from hilbound.experiments.base import Settings

#: Tables with their published splits, and the published test negative log-likelihoods beside which
#: ours stand: the best parametric one, and that of a network whose weights are downloaded.
SETS: dict[str, dict[str, float | None]] = {
    "concrete": {"goal": 2.75, "goal_high": 2.60, "parametric": 2.83, "pretrained": 2.21},
    "energy": {"goal": 0.15, "goal_high": 0.05, "parametric": 0.46, "pretrained": 0.15},
    "power-plant": {"goal": 2.62, "goal_high": 2.52, "parametric": 2.60, "pretrained": 2.28},
    "wine-quality-red": {"goal": 0.88, "goal_high": 0.78, "parametric": 0.89, "pretrained": None},
}


class UciSettings(Settings):
    """What is the same for all cells."""

    sets: tuple[str, ...] = tuple(SETS)
    methods: tuple[str, ...] = ("default", "network", "boosting", "process", "ngboost", "high")
    #: The slow methods are measured on the first splits alone.
    few: tuple[str, ...] = ("high", "process", "ngboost")
    few_splits: int = 3
    #: scikit-learn's Gaussian process takes the cube of this many rows.
    process_rows: int = 1000
    #: Passes over the rows; the estimator's own choice if there is none.
    max_epochs: int | None = None
