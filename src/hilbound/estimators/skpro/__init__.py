"""skpro's manners, for tables: a conditional density as one of skpro's regressors."""

try:
    from hilbound.estimators.skpro.distribution import PredictedMixture
    from hilbound.estimators.skpro.regressor import ConditionalDensityRegressor
except ModuleNotFoundError as error:
    if (error.name or "").partition(".")[0] != "skpro":
        raise
    raise ModuleNotFoundError(
        "hilbound.estimators.skpro needs the package skpro: pip install 'hilbound[skpro]'",
        name="skpro",
    ) from error

__all__ = ["ConditionalDensityRegressor", "PredictedMixture"]
