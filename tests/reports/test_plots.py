import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.colors import to_rgb

from hilbound.errors import InputError
from hilbound.reports.drawing import PALETTE, canvas, mass_levels
from hilbound.reports.plots import (
    plot_curve,
    plot_images,
    plot_marginals,
    plot_neighbours,
    plot_points,
    plot_spectrum,
    plot_tightness,
)


@pytest.fixture
def ax():
    return canvas()[1]


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


def legend(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def picture(ax):
    (image,) = ax.images
    return np.asarray(image.get_array())


def labelled(ax, label):
    (line,) = [line for line in ax.lines if line.get_label() == label]
    return line


def test_importing_and_drawing_leaves_matplotlib_alone():
    code = (
        "import matplotlib, sys; before = matplotlib.rcParams.copy()\n"
        "from hilbound.reports.plots import canvas, plot_curve\n"
        "plot_curve(canvas()[1], [0, 1], [0.0, 1.0]).figure.draw_without_rendering()\n"
        "assert matplotlib.rcParams.copy() == before\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)  # noqa: S603 - our own code


def test_palette_stays_apart_in_lightness_or_hue_and_on_white():
    colors = np.array([to_rgb(color) for color in PALETTE])
    assert len(np.unique(colors, axis=0)) == len(PALETTE)
    assert (np.abs(colors - 1).max(axis=1) > 0.5).all()


# Images


@settings(deadline=None)
@given(
    n=st.integers(1, 7), columns=st.integers(1, 9), channels=st.sampled_from([1, 3]), h=st.just(5)
)
def test_every_image_stands_in_its_place_of_the_grid(n, columns, channels, h):
    w = 4
    images = torch.arange(n * channels * h * w, dtype=torch.float64) / (n * channels * h * w)
    images = images.reshape(n, channels, h, w)
    ax = canvas()[1]
    assert plot_images(ax, images, columns) is ax
    mosaic = picture(ax)
    across = min(columns, n)
    down = -(-n // across)
    assert mosaic.shape == (down * (h + 1) - 1, across * (w + 1) - 1, 3)
    seen = np.zeros(mosaic.shape[:2], dtype=bool)
    for i in range(n):
        top, left = (i // across) * (h + 1), (i % across) * (w + 1)
        for c in range(3):
            expected = images[i, c % channels].numpy()
            np.testing.assert_array_equal(mosaic[top : top + h, left : left + w, c], expected)
        seen[top : top + h, left : left + w] = True
    assert (mosaic[~seen] == 1).all()


def test_images_are_clipped_and_shown_with_sharp_pixels_and_no_axes(ax):
    plot_images(ax, torch.tensor([-0.5, 0.25, 1.5, 1.0]).reshape(1, 1, 2, 2))
    np.testing.assert_array_equal(picture(ax)[..., 0], [[0, 0.25], [1, 1]])
    assert ax.images[0].get_interpolation() == "nearest"
    assert not ax.axison


def test_images_fill_a_square_by_default_and_need_no_gradient(ax):
    plot_images(ax, torch.zeros(9, 1, 16, 16, requires_grad=True, dtype=torch.bfloat16))
    assert picture(ax).shape == (3 * 17 - 1, 3 * 17 - 1, 3)


def test_neighbours_stand_beside_their_sample_behind_a_wide_gap(ax, generator):
    samples = torch.rand(3, 1, 6, 6, generator=generator, dtype=torch.float64)
    neighbours = torch.rand(3, 2, 1, 6, 6, generator=generator, dtype=torch.float64)
    assert plot_neighbours(ax, samples, neighbours) is ax
    mosaic = picture(ax)[..., 0]
    assert mosaic.shape == (20, 6 + 3 + 13)
    for i in range(3):
        row = slice(7 * i, 7 * i + 6)
        np.testing.assert_array_equal(mosaic[row, :6], samples[i, 0])
        np.testing.assert_array_equal(mosaic[row, 9:15], neighbours[i, 0, 0])
        np.testing.assert_array_equal(mosaic[row, 16:22], neighbours[i, 1, 0])
    assert (mosaic[:, 6:9] == 1).all()
    assert [(t.get_text(), t.get_position()[0]) for t in ax.texts] == [
        ("sample", -0.5),
        ("nearest training images", 8.5),
    ]


# Points and marginals


def test_points_are_where_they_belong(ax, generator):
    data = torch.randn(40, 2, generator=generator)
    samples = torch.randn(30, 2, generator=generator) + 1
    assert plot_points(ax, data, samples, columns=("width", r"cost in $\nonsense$")) is ax
    drawn = [np.asarray(c.get_offsets()) for c in ax.collections if len(c.get_offsets())]
    np.testing.assert_allclose(drawn[0], data)
    np.testing.assert_allclose(drawn[1], samples)
    assert ax.get_aspect() == 1
    assert legend(ax) == ["data", "samples"]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("width", r"cost in $\nonsense$")
    ax.figure.draw_without_rendering()


def test_contours_enclose_their_share_of_a_gaussian():
    # The region of a 2-d standard Gaussian with mass a is r^2 <= -2 log(1 - a).
    x = np.linspace(-6, 6, 400)
    r2 = x[:, None] ** 2 + x**2
    levels = mass_levels(-r2.ravel() / 2)
    np.testing.assert_allclose(levels, np.log1p(-np.array([0.95, 0.8, 0.6, 0.4, 0.2])), atol=0.01)


def test_contours_are_drawn_from_the_density_and_keep_the_view(ax, generator):
    data = torch.randn(500, 2, generator=generator, dtype=torch.float64)
    without = plot_points(canvas()[1], data, data)
    calls = []

    def log_density(x):
        calls.append(x)
        return 7.0 - x.square().sum(-1) / 2

    plot_points(ax, data, data, log_density, density_label="truth")
    assert legend(ax) == ["data", "samples", "truth"]
    assert ax.get_xlim() == without.get_xlim()
    assert ax.get_ylim() == without.get_ylim()
    assert {x.dtype for x in calls} == {torch.float64}
    (contours,) = [c for c in ax.collections if hasattr(c, "levels")]
    widest = contours.get_paths()[0].vertices
    # The picture cuts off the tails, so the mass within it is a little less than all.
    radius = np.hypot(*widest.T).max()
    assert radius == pytest.approx(np.sqrt(-2 * np.log(0.05)), abs=0.1)


def test_a_uniform_density_is_one_plateau(ax):
    corners = torch.tensor([[-1.0, -1.0], [1.0, 1.0]])

    def log_density(x):
        return torch.where((x.abs() < 0.5).all(-1), 0.0, -torch.inf)

    plot_points(ax, corners, corners, log_density)
    (contours,) = [c for c in ax.collections if hasattr(c, "levels")]
    assert len(contours.levels) == 2
    assert np.abs(contours.get_paths()[0].vertices).max() == pytest.approx(0.5, abs=0.03)


def test_marginal_ranges_are_quantiles_in_the_datas_own_scale(ax, generator):
    data = torch.randn(200, 3, generator=generator, dtype=torch.float64) * torch.tensor([1, 9, 0.1])
    samples = data[:100] * 1.5 + 0.3
    names = ["a", r"$\nonsense$", "<c>"]
    assert plot_marginals(ax, data, samples, names) is ax
    assert [label.get_text() for label in ax.get_yticklabels()] == names
    medians = [np.asarray(line.get_xdata()) for line in ax.lines]
    z = (samples.numpy() - data.numpy().mean(0)) / data.numpy().std(0)
    np.testing.assert_allclose(medians[1], np.median(z, axis=0))
    thin = np.array([s[:, 0] for s in ax.collections[2].get_segments()])
    np.testing.assert_allclose(thin, np.quantile(z, [0.05, 0.95], axis=0).T)
    thick = np.array([s[:, 0] for s in ax.collections[3].get_segments()])
    np.testing.assert_allclose(thick, np.quantile(z, [0.25, 0.75], axis=0).T)
    assert legend(ax) == ["data", "samples"]
    ax.figure.draw_without_rendering()


def test_marginals_show_the_first_coordinates_and_bear_a_constant_one(ax):
    x = torch.arange(40.0).reshape(2, 20) * (torch.arange(20) > 0)
    plot_marginals(ax, x, x)
    assert [label.get_text() for label in ax.get_yticklabels()] == [f"x{i}" for i in range(1, 17)]
    assert np.isfinite(np.asarray(ax.lines[0].get_xdata())).all()


def test_one_coordinate_gives_histograms_with_common_bins(ax, generator):
    data = torch.randn(300, 1, generator=generator)
    samples = torch.randn(200, 1, generator=generator) + 1
    plot_marginals(ax, data, samples, [r"price in $\nonsense$"])
    bars = [(p.get_x(), p.get_width(), p.get_height()) for p in ax.patches[:40]]
    edges = np.histogram_bin_edges(torch.cat([data, samples]).double().numpy(), 40)
    heights, _ = np.histogram(data.double().numpy(), edges, density=True)
    np.testing.assert_allclose([b[0] for b in bars], edges[:-1], atol=1e-9)
    np.testing.assert_allclose([b[2] for b in bars], heights, atol=1e-9)
    assert legend(ax) == ["data", "samples"]
    assert ax.get_xlabel() == r"price in $\nonsense$"
    ax.figure.draw_without_rendering()


# Curves


def test_a_curve_its_limit_and_the_gap(ax):
    steps, values = [0, 10, 20, 30], [-3.0, -2.0, float("nan"), -1.0]
    out = plot_curve(
        ax, steps, values, limit=torch.tensor(-0.5), label="cost", validation=([0, 30], [-4, -2])
    )
    assert out is ax
    assert legend(ax) == ["cost", "validation", "limit", "gap"]
    line = labelled(ax, "cost")
    np.testing.assert_array_equal(line.get_xdata(), steps)
    np.testing.assert_array_equal(line.get_ydata(), values)
    np.testing.assert_array_equal(labelled(ax, "validation").get_ydata(), [-4, -2])
    assert labelled(ax, "limit").get_linestyle() == "--"
    assert set(labelled(ax, "limit").get_ydata()) == {-0.5}
    shaded = np.concatenate([path.vertices for path in ax.collections[0].get_paths()])
    # A lone value has no area to shade, so that its polygon is as thin as a line.
    area = shaded[shaded[:, 0] < 30]
    assert area[:, 0].max() == 10
    assert (area[:, 1].min(), area[:, 1].max()) == (-3, -0.5)


def test_a_value_between_two_gaps_is_a_dot(ax):
    nan, inf = float("nan"), float("inf")
    plot_curve(ax, range(7), [1.0, 2.0, nan, 3.0, -inf, nan, 4.0])
    dots = [line for line in ax.lines if line.get_marker() == "o"]
    assert [list(dot.get_xdata()) for dot in dots] == [[3, 6]]
    assert [list(dot.get_ydata()) for dot in dots] == [[3, 4]]
    np.testing.assert_array_equal(
        np.isnan(ax.lines[0].get_ydata()), [False, False, True, False, True, True, False]
    )


def test_the_limit_may_move_with_the_steps(ax):
    plot_curve(ax, torch.arange(3), torch.tensor([0.0, 1.0, 2.0]), limit=[1.0, 2.0, 3.0])
    np.testing.assert_array_equal(labelled(ax, "limit").get_ydata(), [1, 2, 3])


def test_tightness_is_in_percent_below_a_line_at_a_hundred(ax):
    curves = {"a": ([0, 1], [0.25, 0.5]), "b": (torch.arange(2), torch.tensor([0.5, torch.nan]))}
    assert plot_tightness(ax, curves) is ax
    np.testing.assert_array_equal(labelled(ax, "a").get_ydata(), [25, 50])
    np.testing.assert_array_equal(labelled(ax, "b").get_ydata(), [50, np.nan])
    assert set(ax.lines[0].get_ydata()) == {100}
    assert ax.get_ylim() == (0, 105)
    assert legend(ax) == ["a", "b"]
    assert labelled(ax, "a").get_linestyle() != labelled(ax, "b").get_linestyle()
    assert labelled(ax, "a").get_color() != labelled(ax, "b").get_color()


def test_a_spectrum_falls_on_logarithmic_axes(ax):
    assert (
        plot_spectrum(
            ax, {"q": torch.tensor([0.0, 2.0, 1e-15, 4.0]), r"$\nonsense$": torch.ones(2)}
        )
        is ax
    )
    np.testing.assert_array_equal(labelled(ax, "q").get_xdata(), [1, 2, 3, 4])
    np.testing.assert_allclose(labelled(ax, "q").get_ydata(), [4, 2, 1e-15, np.nan])
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")
    assert ax.get_ylim()[0] == pytest.approx(4e-9)
    assert legend(ax) == ["q", r"$\nonsense$"]
    ax.figure.draw_without_rendering()  # as a formula, the name would be an error


# Refusals: each message names the argument

IMAGES, POINTS = torch.zeros(2, 1, 4, 4), torch.zeros(3, 2)
NAN = torch.full((3, 2), torch.nan)
REFUSED = {
    "images has shape (2, 4, 4)": lambda ax: plot_images(ax, IMAGES[:, 0]),
    "images has shape (2, 2, 4, 4)": lambda ax: plot_images(ax, IMAGES.repeat(1, 2, 1, 1)),
    "images has shape (0, 1, 4, 4)": lambda ax: plot_images(ax, IMAGES[:0]),
    "images has dtype torch.uint8": lambda ax: plot_images(ax, IMAGES.byte()),
    "images holds 32 of 32": lambda ax: plot_images(ax, IMAGES / 0),
    "columns must be at least 1": lambda ax: plot_images(ax, IMAGES, 0),
    "neighbours has shape (2, 1, 4, 4)": lambda ax: plot_neighbours(ax, IMAGES, IMAGES),
    "neighbours has shape (1, 2, 1, 4, 4)": lambda ax: plot_neighbours(ax, IMAGES, IMAGES[None]),
    "data has shape (3, 1)": lambda ax: plot_points(ax, POINTS[:, :1], POINTS),
    "samples must have shape (n, d), one point in a row, got (3,)": lambda ax: plot_points(
        ax, POINTS, POINTS[:, 0]
    ),
    "samples must be finite, but 3 of 3 rows": lambda ax: plot_points(ax, POINTS, NAN),
    "columns must hold 2": lambda ax: plot_points(ax, POINTS, POINTS, columns=["x"]),
    "log_density returned shape (1500, 2)": lambda ax: plot_points(ax, POINTS, POINTS, lambda x: x),
    "log_density is NaN": lambda ax: plot_points(ax, POINTS, POINTS, lambda x: x[:, 0] / 0),
    "samples has shape (3, 1)": lambda ax: plot_marginals(ax, POINTS, POINTS[:, :1]),
    "columns holds 1": lambda ax: plot_marginals(ax, POINTS, POINTS, ["x"]),
    "maximum must": lambda ax: plot_marginals(ax, POINTS, POINTS, maximum=0),
    "values has 2": lambda ax: plot_curve(ax, [1, 2, 3], [1, 2]),
    "values has shape (1, 2)": lambda ax: plot_curve(ax, [1, 2], [[1, 2]]),
    "values holds no finite": lambda ax: plot_curve(ax, [1], [float("nan")]),
    "steps of values": lambda ax: plot_curve(ax, [float("nan")], [1]),
    "limit has shape (3,)": lambda ax: plot_curve(ax, [1, 2], [1, 2], limit=[1, 2, 3]),
    "validation has 1": lambda ax: plot_curve(ax, [1, 2], [1, 2], validation=([1, 2], [1])),
    "curves is empty": lambda ax: plot_tightness(ax, {}),
    "curves['a'] has 1": lambda ax: plot_tightness(ax, {"a": ([1, 2], [1])}),
    "spectra is empty": lambda ax: plot_spectrum(ax, {}),
    "spectra['a'] must": lambda ax: plot_spectrum(ax, {"a": torch.tensor([-1.0])}),
    "spectra['a'] has shape": lambda ax: plot_spectrum(ax, {"a": torch.ones(2, 2)}),
    "spectra: every": lambda ax: plot_spectrum(ax, {"a": torch.zeros(2)}),
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_cannot_be_drawn_is_refused_by_name(ax, message):
    with pytest.raises(InputError) as refusal:
        REFUSED[message](ax)
    assert str(refusal.value).startswith(message)
