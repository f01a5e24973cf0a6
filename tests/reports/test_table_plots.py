"""Columns and their pairs are drawn in the user's units, data beside samples."""

import numpy as np
import pytest
import torch

from hilbound.errors import InputError
from hilbound.reports.table_plots import draw_histograms, draw_pairs, strongest_columns

NAMES = ["height (cm)", "children", "income"]


def rows(seed, n=200):
    rng = np.random.default_rng(seed)
    table = np.stack([rng.normal(170, 10, n), rng.poisson(1.5, n), rng.normal(3e4, 5e3, n)], 1)
    return torch.from_numpy(table)


def areas(ax):
    """The share of the rows under each of the two histograms of a panel."""
    bars = sum(p.get_width() * p.get_height() for p in ax.patches if hasattr(p, "get_width"))
    outline = next(p for p in ax.patches if not hasattr(p, "get_width")).get_xy()
    # A step runs along the bottom and back, or along the top alone.
    x, y = outline[:, 0], outline[:, 1]
    return bars, abs(np.sum((x[1:] - x[:-1]) * (y[1:] + y[:-1]) / 2))


def test_histograms_stand_in_the_columns_own_units():
    data, samples = rows(0), rows(1)
    figure = draw_histograms(data, samples, NAMES, whole=[1])
    assert [ax.get_xlabel() for ax in figure.axes] == NAMES
    for j, ax in enumerate(figure.axes):
        low, high = ax.get_xlim()
        middle = float(data[:, j].median())
        assert low < middle < high
        assert areas(ax) == pytest.approx((1, 1), abs=0.03)


def test_bars_of_whole_numbers_are_centred_on_them():
    data, samples = rows(0), rows(1).round()
    ax = draw_histograms(data, samples, NAMES, whole=[1]).axes[1]
    bars = [p for p in ax.patches if hasattr(p, "get_width")]
    assert all(bar.get_width() == pytest.approx(1) for bar in bars)
    for bar in bars:
        value = bar.get_x() + 0.5
        assert bar.get_height() == pytest.approx(float((data[:, 1] == value).double().mean()))


def test_far_samples_do_not_squeeze_the_data():
    data, samples = rows(0), rows(1)
    samples[0] *= 1e6
    ax = draw_histograms(data, samples, NAMES).axes[0]
    low, high = ax.get_xlim()
    assert high - low < 3 * float(data[:, 0].max() - data[:, 0].min())
    # What is left out is missing under the curve: the rest is not raised in its place.
    assert areas(ax)[1] < 1


def test_pairs_show_data_below_the_diagonal_and_samples_above_it():
    data, samples = rows(0), rows(1, n=150)
    axes = draw_pairs(data, samples, NAMES, whole=[1]).axes
    grid = np.array(axes).reshape(3, 3)
    for i in range(3):
        for j in range(3):
            if i != j:
                points = grid[i, j].collections[0].get_offsets()
                expected = data if i > j else samples
                assert np.allclose(points, expected[:, [j, i]])
    assert [ax.get_xlabel() for ax in grid[-1]] == NAMES
    assert [ax.get_ylabel() for ax in grid[:, 0]] == NAMES
    assert len({ax.get_xlim() for ax in grid[:, 2]}) == 1


def test_the_columns_that_depend_most_are_chosen():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 400))
    table = np.stack([rng.normal(size=400), a, np.exp(a), b, b + rng.normal(size=400), a * 0], 1)
    x = torch.from_numpy(table)
    assert strongest_columns(x, 2) == [1, 2]
    assert strongest_columns(x[:, [0, 3, 4, 5]], 2) == [1, 2]
    assert strongest_columns(x, 6) == list(range(6))
    assert len(set(strongest_columns(x, 4))) == 4


def test_what_does_not_fit_is_refused():
    with pytest.raises(InputError, match="names holds 2 names, but data has 3 columns"):
        draw_pairs(rows(0), rows(1), ["a", "b"])
    with pytest.raises(InputError, match="samples has shape"):
        draw_histograms(rows(0), rows(1)[:, :2], NAMES)
    with pytest.raises(InputError, match="data must be finite"):
        draw_histograms(rows(0) / 0, rows(1), NAMES)
