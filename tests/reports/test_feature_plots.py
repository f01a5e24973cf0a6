"""Pictures of models with an encoder: what is drawn where, and under which name."""

import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb

from hilbound.errors import InputError
from hilbound.reports.drawing import canvas
from hilbound.reports.feature_plots import (
    COLORS,
    plot_bound,
    plot_feature_density,
    plot_feature_scatter,
    plot_reconstructed_points,
    plot_reconstructions,
    principal_components,
)


@pytest.fixture
def ax():
    return canvas()[1]


def area(collection):
    """The area of a filled polygon, by the shoelace formula."""
    (path,) = collection.get_paths()
    x, y = path.vertices[:-1].T
    return abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1))) / 2


# Bounds


def test_a_bound_is_labelled_with_what_was_reached_at_its_end(ax):
    assert plot_bound(ax, [0, 10, 20], [-9.0, -3.0, -2.0], [-1.0, -1.5, -1.0]) is ax
    (text,) = [t.get_text() for t in ax.texts]
    assert text == f"{100 * np.exp(-1):.1f} % of the limit"
    assert ax.texts[0].xy == (20, -1.5)
    curves = {line.get_label(): line.get_ydata().tolist() for line in ax.lines}
    assert curves == {"cost": [-9, -3, -2], "limit": [-1, -1.5, -1]}
    assert [c.get_label() for c in ax.collections] == ["gap"]


def test_a_bound_of_unequal_lengths_is_refused(ax):
    with pytest.raises(InputError, match="lengths must be equal"):
        plot_bound(ax, [0, 1], [1.0], [1.0, 1.0])


# Reconstructions


@pytest.mark.parametrize("channels", [1, 3])
def test_every_input_stands_before_its_own_reconstructions(ax, generator, channels):
    x = torch.rand(3, channels, 4, 5, generator=generator)
    r = torch.rand(3, 2, channels, 4, 5, generator=generator)
    assert plot_reconstructions(ax, x, r) is ax
    (image,) = ax.images
    seen = np.asarray(image.get_array())
    # Tiles and gaps of one pixel; a band of half a tile sets the inputs apart.
    assert seen.shape == (3 * 5 - 1, 5 + 2 + 2 * 6 - 1, 3)
    for i in range(3):
        rows = slice(5 * i, 5 * i + 4)
        for channel in range(3):
            np.testing.assert_allclose(seen[rows, :5, channel], x[i, channel % channels])
            for j in range(2):
                tile = seen[rows, 7 + 6 * j : 12 + 6 * j, channel]
                np.testing.assert_allclose(tile, r[i, j, channel % channels])
    assert (seen[:, 5:7] == 1).all()
    assert len(ax.lines) == 1
    assert 4.5 <= ax.lines[0].get_xdata()[0] <= 6.5
    assert [(t.get_text(), t.get_position()[0]) for t in ax.texts] == [
        ("input", -0.5),
        ("reconstructions", 6.5),
    ]


@pytest.mark.parametrize(
    ("x", "r", "words"),
    [
        ((2, 1, 4, 4), (3, 2, 1, 4, 4), "reconstructions has shape .* expected"),
        ((2, 1, 4, 4), (2, 2, 1, 4, 5), "reconstructions has shape .* expected"),
        ((2, 16), (2, 2, 16), r"x has shape \(2, 16\)"),
        ((2, 1, 4, 4), (2, 1, 4, 4), "reconstructions has shape"),
    ],
)
def test_images_that_do_not_fit_are_refused(ax, x, r, words):
    with pytest.raises(InputError, match=words):
        plot_reconstructions(ax, torch.zeros(x), torch.zeros(r))


def test_points_have_the_colour_of_their_input(ax, generator):
    x, r = torch.rand(12, 2, generator=generator), torch.rand(12, 4, 2, generator=generator)
    data = torch.rand(30, 2, generator=generator)
    assert plot_reconstructed_points(ax, x, r, data, columns=("a", "$b")) is ax
    behind, *marks = [c for c in ax.collections if len(c.get_offsets())]
    assert len(behind.get_offsets()) == 30
    assert len(marks) == 24
    looks = set()
    for i in range(12):
        few, one = marks[2 * i : 2 * i + 2]
        np.testing.assert_allclose(few.get_offsets(), r[i])
        np.testing.assert_allclose(one.get_offsets(), x[i : i + 1])
        color = tuple(one.get_facecolor()[0, :3])
        assert color == tuple(few.get_facecolor()[0, :3]) == to_rgb(COLORS[i % 10])
        assert one.get_sizes()[0] > 3 * few.get_sizes()[0]
        looks.add((color, one.get_paths()[0].vertices.tobytes()))
    assert len(looks) == 12
    assert [t.get_text() for t in ax.get_legend().get_texts()] == [
        "input",
        "its reconstructions",
        "real data",
    ]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("a", "$b")


def test_points_of_other_shapes_are_refused(ax):
    with pytest.raises(InputError, match=r"x has shape \(2, 3\)"):
        plot_reconstructed_points(ax, torch.zeros(2, 3), torch.zeros(2, 4, 3))
    with pytest.raises(InputError, match="reconstructions has shape"):
        plot_reconstructed_points(ax, torch.zeros(2, 2), torch.zeros(3, 4, 2))


# Features


def test_a_density_is_one_and_lies_where_the_features_are(ax):
    y = torch.tensor([[-0.5], [0.5], [0.5], [0.5]])
    assert plot_feature_density(ax, y, variance=0.01) is ax
    (line,) = ax.lines
    x, p = line.get_data()
    expected = sum(
        w * np.exp(-((x - c) ** 2) / 0.02) / np.sqrt(2 * np.pi * 0.01)
        for w, c in ((0.25, -0.5), (0.75, 0.5))
    )
    np.testing.assert_allclose(p, expected, rtol=1e-6)
    assert np.trapezoid(p, x) == pytest.approx(1, abs=0.01)


def test_classes_have_their_names_where_they_are_known(ax):
    y, labels = torch.tensor([[0.0], [0.1], [1.0], [1.1]]), torch.tensor([0, 0, 2, 2])
    plot_feature_density(ax, y, labels, class_names=("ant", "bee", "cat"))
    assert [label.get_text() for label in ax.get_yticklabels()] == ["cat", "ant"]
    ax.clear()
    plot_feature_scatter(ax, y.repeat(1, 2), labels, class_names=("ant", "bee", "cat"))
    assert [text.get_text() for text in ax.texts] == ["ant", "cat"]


def test_every_class_has_a_line_of_its_own_with_its_number(ax, generator):
    centers = {3: -1.0, 1: 0.0, 8: 1.0}
    labels = torch.tensor(list(centers)).repeat_interleave(40)
    y = torch.tensor([[centers[int(c)]] for c in labels])
    y = y + 0.05 * torch.randn(120, 1, generator=generator)
    plot_feature_density(ax, y, labels, variance=0.01)
    ticks = zip(ax.get_yticks(), ax.get_yticklabels(), strict=True)
    places = {label.get_text(): place for place, label in ticks}
    assert places == {"1": 2, "3": 1, "8": 0}
    for line in ax.lines:
        x, p = line.get_data()
        (name,) = [k for k, v in places.items() if v == pytest.approx(p.min(), abs=1e-3)]
        assert x[p.argmax()] == pytest.approx(centers[int(name)], abs=0.1)
    # Equal classes have equal areas: a higher curve is a sharper one, not a larger class.
    areas = [area(c) for c in ax.collections]
    assert areas == pytest.approx([areas[0]] * 3, rel=0.02)


def test_of_many_classes_the_most_frequent_are_drawn(ax, generator):
    labels = torch.cat([torch.arange(14), torch.arange(4, 14)])
    plot_feature_density(ax, torch.rand(24, 1, generator=generator), labels)
    names = [label.get_text() for label in ax.get_yticklabels()]
    assert names == [str(c) for c in reversed(range(4, 14))]
    assert len({tuple(line.get_color()) for line in ax.lines}) == 10


def test_a_constant_feature_is_drawn_too(ax):
    plot_feature_density(ax, torch.zeros(5, 1))
    assert np.isfinite(ax.lines[0].get_ydata()).all()


def test_classes_are_scattered_in_their_colour_and_named_among_their_points(ax, generator):
    labels = torch.arange(10).repeat(20)
    centers = torch.stack([labels * 3.0, (labels % 3) * 3.0], dim=1)
    y = centers + 0.2 * torch.randn(200, 2, generator=generator)
    assert plot_feature_scatter(ax, y, labels, names=("a", "b")) is ax
    assert len(ax.collections) == 10
    assert len({tuple(c.get_facecolor()[0, :3]) for c in ax.collections}) == 10
    for dots in ax.collections:
        own = y[labels == int(dots.get_label())]
        np.testing.assert_allclose(dots.get_offsets(), own, rtol=1e-6)
        (text,) = [t for t in ax.texts if t.get_text() == dots.get_label()]
        assert to_rgb(text.get_color()) == tuple(dots.get_facecolor()[0, :3])
        assert np.abs(np.array(text.get_position()) - own.numpy()).max(1).min() < 1e-6
    assert [t.get_text() for t in ax.get_legend().get_texts()] == [str(c) for c in range(10)]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("a", "b")


def test_a_name_stands_where_most_points_are_and_not_between_two_heaps(ax):
    y = torch.cat([torch.zeros(30, 2), torch.full((20, 2), 8.0)])
    plot_feature_scatter(ax, y, torch.zeros(50, dtype=torch.int64))
    assert ax.texts[0].get_position() == (0, 0)


def test_without_labels_there_are_no_names(ax):
    plot_feature_scatter(ax, torch.eye(2))
    assert len(ax.collections) == 1
    assert len(ax.texts) == 0
    assert ax.get_legend() is None


@pytest.mark.parametrize(
    ("draw", "shape"), [(plot_feature_density, (4, 2)), (plot_feature_scatter, (4, 1))]
)
def test_features_of_other_shapes_are_refused(ax, draw, shape):
    with pytest.raises(InputError, match=r"features has shape \(4, "):
        draw(ax, torch.zeros(shape))
    with pytest.raises(InputError, match=r"labels has shape \(3,\), but .* 4 rows"):
        draw(ax, torch.zeros(4, 3 - shape[1]), torch.zeros(3, dtype=torch.int64))


def test_a_variance_must_be_positive(ax):
    with pytest.raises(InputError, match="variance must be positive, got 0"):
        plot_feature_density(ax, torch.zeros(3, 1), variance=0.0)


def test_principal_components_are_those_of_scikit_learn(generator):
    from sklearn.decomposition import PCA

    y = torch.randn(60, 4, generator=generator) * torch.tensor([1.0, 4.0, 2.0, 0.5]) + 3
    components, shares = principal_components(y)
    pca = PCA(2).fit(y.double().numpy())
    np.testing.assert_allclose(components.abs(), np.abs(pca.transform(y.double())), rtol=1e-5)
    assert shares == pytest.approx(pca.explained_variance_ratio_.tolist(), rel=1e-5)


def test_principal_components_of_a_constant_are_zero():
    components, shares = principal_components(torch.ones(5, 3))
    assert components.abs().max() == 0
    assert shares == (0, 0)
