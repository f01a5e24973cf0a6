"""Every mistake is refused with what came, what is allowed and what to do."""

import numpy as np
import pandas as pd
import pytest
from sklearn.exceptions import NotFittedError

from hilbound.errors import DataError, InputError
from hilbound.estimators import ConditionalDensityEstimator

RNG = np.random.default_rng(0)
TABLE = pd.DataFrame(
    {"age": RNG.normal(size=40), "city": ["Rome", "Oslo"] * 20, "size": RNG.normal(size=40)}
)
Y = RNG.normal(size=40)


def estimator(**options):
    return ConditionalDensityEstimator(max_epochs=1, random_state=0, **options)


@pytest.fixture(scope="module")
def fitted():
    return estimator().fit(TABLE, Y)


def test_an_unseen_category(fitted):
    table = TABLE.assign(city="Bonn")
    with pytest.raises(DataError, match=r"'city' holds 'Bonn', never seen.*'Oslo', 'Rome'.*miss"):
        fitted.predict(table)
    lenient = estimator(handle_unknown="missing").fit(TABLE, Y)
    missing = lenient.predict(TABLE.assign(city=None))
    np.testing.assert_array_equal(lenient.predict(table), missing)


@pytest.mark.parametrize(
    ("table", "match"),
    [
        (TABLE.drop(columns="city"), "missing:\n- city"),
        (TABLE.assign(extra=1.0), "unseen at fit time:\n- extra"),
        (TABLE.rename(columns={"age": "years"}), "- years"),
        (TABLE[["city", "age", "size"]], "same order"),
    ],
)
def test_columns_that_are_not_those_of_fit(fitted, table, match):
    with pytest.raises(InputError, match=match) as caught:
        fitted.predict(table)
    assert "X[model.feature_names_in_]" in str(caught.value)


def test_a_wrong_number_of_columns():
    model = estimator().fit(TABLE[["age", "size"]].to_numpy(), Y)
    with pytest.raises(ValueError, match=r"X has 1 features, but .* is expecting 2 features"):
        model.predict(TABLE[["age"]].to_numpy())


def test_column_names_that_come_twice(fitted):
    twice = pd.concat([TABLE, TABLE[["age"]]], axis=1)
    for use in (lambda: estimator().fit(twice, Y), lambda: fitted.predict(twice)):
        with pytest.raises(DataError, match=r"several columns named 'age'.*rename"):
            use()


@pytest.mark.parametrize("value", [np.inf, -np.inf])
def test_infinities(fitted, value):
    table = TABLE.copy()
    table.loc[7, "age"] = value
    for use in (lambda: estimator().fit(table, Y), lambda: fitted.predict(table)):
        with pytest.raises(DataError, match=r"'age' holds infinity, first in row 7 .*NaN"):
            use()


def test_texts_where_numbers_were_and_numbers_where_texts_were(fitted):
    with pytest.raises(DataError, match=r"'age' held numbers .* texts now, such as 'old'"):
        fitted.predict(TABLE.assign(age="old"))
    with pytest.raises(DataError, match=r"'city' held texts .* numbers now"):
        fitted.predict(TABLE.assign(city=3))


@pytest.mark.parametrize(
    "dates",
    [
        pd.Series(pd.date_range("2020-01-01", periods=40)),
        pd.Series(pd.timedelta_range("1 day", periods=40)),
        pd.Series(pd.period_range("2020-01", periods=40, freq="M")),
        pd.Series(list(pd.date_range("2020-01-01", periods=40).date), dtype=object),
    ],
)
def test_dates(dates):
    with pytest.raises(DataError, match=r"'day' holds dates or times.*days since"):
        estimator().fit(TABLE.assign(day=dates), Y)


def test_complex_numbers_and_things():
    with pytest.raises(DataError, match="'z' holds complex data"):
        estimator().fit(TABLE.assign(z=1j), Y)
    with pytest.raises(
        TypeError, match="'z': argument must be a string or a real number, got dict"
    ):
        estimator().fit(TABLE.assign(z=[{}] * 40), Y)


@pytest.mark.parametrize(
    "target",
    [
        pd.Series(["yes", "no"] * 20),
        pd.Series(["yes", "no"] * 20, dtype="category"),
        np.array(["yes", "no"] * 20, dtype=object),
        pd.Series([True, False] * 20),
    ],
)
def test_a_target_that_is_a_category(target):
    with pytest.raises(DataError, match=r"y holds categories or texts.*classifier"):
        estimator().fit(TABLE, target)


def test_a_target_of_dates():
    with pytest.raises(DataError, match=r"y holds dates.*days since"):
        estimator().fit(TABLE, pd.date_range("2020-01-01", periods=40).to_series())


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_target_that_is_not_known(fitted, value):
    y = Y.copy()
    y[[5, 8]] = value
    for use in (lambda: estimator().fit(TABLE, y), lambda: fitted.score(TABLE, y)):
        with pytest.raises(DataError, match=r"NaN or infinity, first in row 5 \(2 rows.*drop"):
            use()


def test_a_constant_target():
    with pytest.raises(DataError, match=r"y is constant \(3 in all 40 rows\)"):
        estimator().fit(TABLE, np.full(40, 3.0))
    with pytest.raises(DataError, match="target 1 is constant"):
        estimator().fit(TABLE, np.stack([Y, 0 * Y], 1))


def test_fewer_rows_than_folds():
    with pytest.raises(DataError, match=r"n_samples=6 rows are fewer than the 10 folds.*n_folds"):
        estimator().fit(TABLE[:6], Y[:6])
    assert estimator(n_folds=3).fit(TABLE[:6], Y[:6]).predict(TABLE[:6]).shape == (6,)


def test_no_rows_and_no_columns():
    with pytest.raises(InputError, match="0 feature"):
        estimator().fit(TABLE[[]], Y)
    with pytest.raises(ValueError, match="at least one row"):
        estimator().fit(TABLE[:0], Y[:0])


def test_targets_of_another_length_or_number(fitted):
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        estimator().fit(TABLE, Y[:-1])
    with pytest.raises(ValueError, match=r"y has 2 targets, but .* 1"):
        fitted.score(TABLE, np.stack([Y, Y], 1))
    with pytest.raises(ValueError, match="y to be passed, but the target y is None"):
        estimator().fit(TABLE, None)


@pytest.mark.parametrize(
    ("weight", "match"),
    [
        (np.ones(39), r"must have shape \(40,\).*\(39,\)"),
        (-np.ones(40), "finite numbers from 0"),
        (np.full(40, np.nan), "finite numbers from 0"),
        (np.zeros(40), "not all of them zero"),
    ],
)
def test_weights(weight, match):
    with pytest.raises(InputError, match=f"sample_weight .*{match}"):
        estimator().fit(TABLE, Y, weight)


@pytest.mark.parametrize(
    "options",
    [
        {"effort": "low"},
        {"n_components": 0},
        {"n_folds": 1},
        {"max_epochs": 0},
        {"variance_floor": 0.0},
        {"handle_unknown": "ignore"},
    ],
)
def test_parameters_are_checked_in_fit(options):
    with pytest.raises(ValueError, match=f"'{next(iter(options))}' parameter"):
        ConditionalDensityEstimator(**options).fit(TABLE, Y)


def test_a_floor_above_the_variance():
    with pytest.raises(InputError, match=r"variance_floor must be below .* got 100"):
        estimator(variance_floor=100.0).fit(TABLE, Y)


@pytest.mark.parametrize("alpha", [0.0, [0.5, 1.0], np.nan, [[0.5]]])
def test_levels_of_quantiles(fitted, alpha):
    with pytest.raises(InputError, match="alpha must be probabilities between 0 and 1"):
        fitted.predict_quantiles(TABLE, alpha)


@pytest.mark.parametrize("coverage", [0, 1, 90])
def test_coverage(fitted, coverage):
    with pytest.raises(InputError, match="coverage must be a probability between 0 and 1"):
        fitted.predict_interval(TABLE, coverage)


@pytest.mark.parametrize("n_samples", [0, 1.5])
def test_number_of_samples(fitted, n_samples):
    with pytest.raises(InputError, match="n_samples must be a whole number from 1"):
        fitted.sample(TABLE, n_samples)


def test_what_is_not_fitted():
    with pytest.raises(NotFittedError):
        ConditionalDensityEstimator().predict(TABLE)


def test_files_that_hold_no_model(fitted, tmp_path):
    file = tmp_path / "model.safetensors"
    with pytest.raises(DataError, match=r"no estimator at .*give a file that `save` wrote"):
        ConditionalDensityEstimator.load(file)
    file.write_bytes(b"damaged")
    with pytest.raises(DataError, match="is no whole estimator file"):
        ConditionalDensityEstimator.load(file)
    fitted.save(file)
    # Of the same length: the header says how long it is.
    file.write_bytes(file.read_bytes().replace(b"Ensemble", b"Popen   "))
    with pytest.raises(DataError, match=r"is damaged or from another version .*Popen"):
        ConditionalDensityEstimator.load(file)
