"""The animation of samples: every frame in its place, and a last one that stands still."""

import io
from base64 import b64decode

import numpy as np
import pytest
import torch
from PIL import Image

from hilbound.reports.film import film_figure
from hilbound.reports.page import Page, Section, render
from support.browser import browser

X = torch.randn(300, 2, generator=torch.Generator().manual_seed(0))
FAR = torch.full((50, 2), 1.5)


def frames_of(figure):
    with Image.open(io.BytesIO(b64decode(figure.uri.partition(",")[2]))) as strip:
        pixels = np.asarray(strip.convert("RGB")).astype(int)
    return np.split(pixels, figure.frames, axis=1)


def orange(frame):
    """Where samples are drawn: red without blue."""
    return frame[..., 0] - frame[..., 2] > 100


def page_of(figure):
    return render(Page("p", "A run.", (), (Section("Samples", "", (figure,)),), ""))


def test_frames_stand_side_by_side_in_the_order_of_steps():
    figure = film_figure(X, {0: -FAR, 5: 0 * FAR, 9: FAR}, ("a", "b"), equal=True)
    frames = frames_of(figure)
    assert {frame.shape for frame in frames} == {frames[0].shape}
    assert frames[0].shape[1] / frames[0].shape[0] == pytest.approx(figure.aspect)
    below = frames[0].shape[0] // 8  # the legend is above
    places = [np.argwhere(orange(frame)[below:]).mean(0) for frame in frames]
    heights, widths = zip(*places, strict=True)
    assert heights[0] > heights[1] > heights[2]
    assert widths[0] < widths[1] < widths[2]
    # Data and axes do not move.
    grey = [frame[-40:, :, 0] for frame in frames]
    assert (grey[0] == grey[1]).all()


def test_flat_data_leave_no_empty_bands():
    flat = X * torch.tensor([1.0, 0.4])
    (frame, _) = frames_of(film_figure(flat, {0: flat, 1: flat}, ("a", "b"), equal=True))
    assert frame.shape[0] < 0.7 * frame.shape[1]
    inked = np.flatnonzero((frame < 250).any((1, 2)))
    assert len(frame) - (inked[-1] - inked[0]) < 0.2 * len(frame)


def test_stray_samples_do_not_widen_the_window():
    near = film_figure(X, {0: FAR, 1: FAR}, ("a", "b"), equal=False)
    far = film_figure(X, {0: 1e6 * FAR, 1: FAR}, ("a", "b"), equal=False)
    assert (frames_of(near)[1] == frames_of(far)[1]).all()


def test_sixteen_frames_stay_small():
    noise = torch.Generator().manual_seed(1)
    frames = {i: torch.randn(400, 2, generator=noise) for i in range(16)}
    assert len(film_figure(X, frames, ("a", "b"), equal=True).uri) < 400_000


def test_names_are_no_formulas():
    assert film_figure(X, {0: X, 1: X}, ("$x_{$", "a & b"), equal=True).frames == 2


def test_it_moves_can_be_paused_and_stands_still_where_that_is_asked(tmp_path):
    file = tmp_path / "page.html"
    file.write_text(page_of(film_figure(X, {0: -FAR, 5: 0 * FAR, 9: FAR}, ("a", "b"), equal=True)))
    place = "new DOMMatrix(getComputedStyle(document.querySelector('.film img')).transform).e"
    with browser() as opened:
        page = opened.new_page(viewport={"width": 800, "height": 800})
        page.goto(file.as_uri())
        page.evaluate("document.getAnimations()[0].currentTime = 0")
        width = page.evaluate("document.querySelector('.film .window').clientWidth")
        # The last frame stays for a while before it begins again.
        for share, frame in ((0.1, 0), (0.5, 1), (0.85, 2)):
            page.evaluate(f"document.getAnimations()[0].currentTime = {share * 3 * 800}")
            page.get_by_text("Pause").click()
            assert page.evaluate("document.getAnimations()[0].playState") == "paused"
            assert page.evaluate(place) == pytest.approx(-frame * width, abs=1)
            page.get_by_text("Pause").click()
        for kind in ({"media": "print"}, {"media": "screen", "reduced_motion": "reduce"}):
            page.emulate_media(**kind)
            assert page.evaluate("document.getAnimations().length") == 0
            assert page.evaluate(place) == pytest.approx(-2 * width, abs=1)
            assert not page.get_by_text("Pause").is_visible()
