"""Tables as columns of numbers."""

import numpy as np
import pandas as pd
import pytest

from hilbound.errors import DataError
from hilbound.estimators.columns import Columns
from hilbound.estimators.frames import Column, columns_of_array, columns_of_frame


def read(table, new=None):
    columns = Columns.learn(columns_of_frame(table))
    return columns.read(columns_of_frame(table if new is None else new))


def test_numbers_of_any_scale_have_mean_zero_and_variance_one():
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"a": 1e12 + 1e6 * rng.normal(size=50), "b": 1e-9 * rng.normal(size=50)})
    x = read(table)
    np.testing.assert_allclose(x.mean(0), 0, atol=1e-6)
    np.testing.assert_allclose(x.std(0), 1, rtol=1e-6)


def test_numbers_far_out_are_clipped():
    table = pd.DataFrame({"a": [0.0, 1.0, 2.0]})
    assert read(table, pd.DataFrame({"a": [1e9, -1e9]})).tolist() == [[8.0], [-8.0]]


def test_a_missing_number_is_the_median_and_a_flag():
    table = pd.DataFrame({"a": [0.0, 1.0, np.nan, 5.0, 9.0]})
    x = read(table)
    assert x.shape == (5, 2)
    filled = pd.DataFrame({"a": [3.0]})  # the median of those present
    np.testing.assert_array_equal(x[2, 0], read(table, filled)[0, 0])
    np.testing.assert_allclose(x[:, 1], [-0.5, -0.5, 2, -0.5, -0.5])


def test_a_number_missing_only_later_is_the_median():
    table = pd.DataFrame({"a": [0.0, 1.0, 5.0]})
    later = read(table, pd.DataFrame({"a": [np.nan, 1.0]}))
    assert later.shape == (2, 1)
    assert later[0] == later[1]


def test_constant_and_empty_columns_are_dropped():
    table = pd.DataFrame(
        {"a": [1.0, 2.0], "b": [3.0, 3.0], "c": [np.nan, np.nan], "d": ["u", "u"], "e": [None] * 2}
    )
    assert read(table).shape == (2, 1)


@pytest.mark.parametrize("kind", ["object", "category", "str"])
def test_texts_become_indicators(kind):
    table = pd.DataFrame({"c": pd.Series(["u", "v", "v", "w"], dtype=kind)})
    x = read(table)
    assert x.shape == (4, 3)
    expected = np.array([[0, 1, 0], [1, 0, 0], [1, 0, 0], [0, 0, 1]], float)  # v, u, w
    np.testing.assert_array_equal(x > 0, expected > 0)


def test_a_missing_text_is_a_row_without_indicator():
    table = pd.DataFrame({"c": ["u", None, "v", np.nan]})
    x = read(table)
    assert ((x > 0).sum(1) == [1, 0, 1, 0]).all()


def test_rare_texts_share_one_row():
    texts = [f"common {i % 50}" for i in range(200)] + ["rare", "scarce"]
    x = read(pd.DataFrame({"c": texts}))
    assert x.shape == (202, 50)
    np.testing.assert_array_equal(x[200], x[201])


@pytest.mark.parametrize("kind", ["int8", "Int64", "Float32", "bool", "boolean", "float16"])
def test_numbers_of_any_kind(kind):
    table = pd.DataFrame({"a": pd.Series([0, 1, 1, 0], dtype=kind)})
    np.testing.assert_array_equal(read(table)[:, 0], [-1, 1, 1, -1])


def test_nullable_numbers_may_be_missing():
    table = pd.DataFrame({"a": pd.Series([0, 1, None, 1], dtype="Int64")})
    assert read(table).shape == (4, 2)


def test_objects_that_are_numbers_are_numbers():
    table = pd.DataFrame({"a": pd.Series([0, 1.5, None, True], dtype=object)})
    (column,) = columns_of_frame(table)
    np.testing.assert_array_equal(column.numbers, [0, 1.5, np.nan, 1])


def test_arrays_of_objects_are_read_column_by_column():
    array = np.array([[1, "u"], [2.5, "v"]], dtype=object)
    first, second = columns_of_array(array)
    assert first.numbers.tolist() == [1, 2.5]
    assert second.texts == ["u", "v"]


def test_markup_in_a_name_stays_text():
    table = pd.DataFrame({"<script>": [np.inf, 1.0]})
    with pytest.raises(DataError, match="column '<script>' holds infinity"):
        columns_of_frame(table)


def test_polars_frames():
    polars = pytest.importorskip("polars", reason="install polars to run this")
    table = polars.DataFrame(
        {"a": [1, None, 3], "b": ["u", None, "v"], "c": [True, False, True]},
        schema_overrides={"b": polars.Categorical},
    )
    a, b, c = columns_of_frame(table)
    np.testing.assert_array_equal(a.numbers, [1, np.nan, 3])
    assert b.texts == ["u", None, "v"]
    np.testing.assert_array_equal(c.numbers, [1, 0, 1])
    dates = table.with_columns(d=polars.date(2020, 1, 1))
    with pytest.raises(DataError, match="'d' holds dates"):
        columns_of_frame(dates)


def test_rows_are_taken_by_a_mask():
    mask = np.array([True, False, True])
    assert Column("a", numbers=np.arange(3.0)).take(mask).numbers.tolist() == [0, 2]
    assert Column("b", texts=["u", "v", None]).take(mask).texts == ["u", None]
