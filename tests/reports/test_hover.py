"""Values under the pointer lie where the curve is drawn."""

import itertools
import math
from base64 import b64decode
from io import BytesIO

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from hilbound.errors import InputError
from hilbound.reports.drawing import canvas
from hilbound.reports.hover import curve_figure, fields_of, marks_of
from hilbound.reports.page import Fact, Figure, Page, Section, figure_uri, render
from hilbound.reports.plots import plot_tightness


def test_marks_lie_on_the_dots_of_the_picture():
    figure, ax = canvas()
    ax.plot([0, 1, 2, 3], [1.0, 3.0, 2.0, 5.0], "o", color="red", markersize=6, label="cost")
    marks = marks_of(figure)
    picture = Image.open(BytesIO(b64decode(figure_uri(figure, "png").split(",")[1])))
    red = np.asarray(picture.convert("RGB")).astype(int)
    is_red = (red[..., 0] > 200) & (red[..., 1:].max(-1) < 60)
    assert len(marks) == 4
    for mark in marks:
        x, y = round(mark.left * picture.width), round(mark.top * picture.height)
        assert is_red[y - 4 : y + 5, x - 4 : x + 5].any()


def test_texts_have_the_values_and_their_unit():
    ax = plot_tightness(canvas()[1], {"train": ([0, 1000], [0.5, 0.875])})
    texts = [mark.text for mark in marks_of(ax.figure)]
    assert texts == ["train at 0: 50 %", "train at 1,000: 87.5 %"]


def test_curves_that_coincide_share_their_marks():
    figure, ax = canvas()
    steps = [0, 1, 2, 3]
    ax.plot(steps, [1.0, 2.0, 3.0, 4.0], label="one")
    ax.plot(steps, [1.0, 2.0, 0.0, 4.0], label="two")
    ax.plot([0.5, 3], [2.5, 4.001], label="three")
    texts = [mark.text for mark in marks_of(figure)]
    assert texts == [
        "one at 0: 1\ntwo at 0: 1",
        "one at 1: 2\ntwo at 1: 2",
        "one at 2: 3",
        "one at 3: 4\ntwo at 3: 4\nthree at 3: 4.001",
        "two at 2: 0",
        "three at 0.5: 2.5",
    ]


places = st.tuples(st.floats(0, 0.5), st.floats(0, 0.5))


@given(st.lists(st.lists(places, max_size=9), max_size=4))
def test_no_field_of_a_curve_lies_below_that_of_another(curves):
    named = [[(*place, f"{i} {k}") for k, place in enumerate(c)] for i, c in enumerate(curves)]
    fields = fields_of(named)
    told = [text for _, _, texts in fields for text in texts]
    assert sorted(told) == sorted(text for curve in named for *_, text in curve)
    for one, other in itertools.combinations(fields, 2):
        # A field has a radius of 7 pixels, of which an inch has 96. Points of one curve are given.
        same = one[2][0].split()[0] == other[2][0].split()[0]
        assert same or math.dist(one[:2], other[:2]) > 7 / 96


def test_points_that_a_logarithmic_axis_presses_together_are_thinned():
    figure, ax = canvas()
    ax.plot(range(1, 41), np.ones(40), label="flat")
    ax.set_xscale("log")
    marks = marks_of(figure)
    assert (marks[0].text, marks[-1].text) == ("flat at 1: 1", "flat at 40: 1")
    gaps = np.diff([mark.left for mark in marks[:-1]]) * figure.get_tightbbox().width
    assert min(gaps) > 7 / 96
    assert len(marks) < 30


def test_long_curves_have_few_marks_and_gaps_none():
    figure, ax = canvas()
    values = np.arange(1000.0)
    values[500] = np.nan
    ax.plot(range(1000), values, label="long")
    ax.plot([0, 1], [0, 1], label="_unnamed")
    assert 20 < len(marks_of(figure)) < 50


def test_a_page_shows_marks_and_draws_without_a_script():
    figure, ax = canvas()
    ax.plot([0, 1], [1, 2], label="<cost>")
    curve = curve_figure(figure, "a curve", "")
    grid = Figure(figure_uri(canvas()[0]), "a grid", "", others=(figure_uri(canvas(2, 2)[0]),))
    html = render(Page("run", "", (Fact("a", "1"),), (Section("s", "", (curve, grid)),), ""))
    assert "&lt;cost&gt; at 1: 2" in html
    assert html.count('type="radio"') == 2
    assert "<script" not in html
    with pytest.raises(InputError, match="uri must be a data URI"):
        Figure(curve.uri, "a", "", others=("picture.png",))
