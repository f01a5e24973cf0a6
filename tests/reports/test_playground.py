"""The playground's numbers are those of the library, and its page is whole."""

import json
import math
import re
import sys
from pathlib import Path

import pytest

from hilbound.errors import InputError
from hilbound.reports.playground import engine_source, playground_page, write_playground
from support.browser import run_javascript

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = json.loads((ROOT / "tests" / "data" / "playground.json").read_text(encoding="utf-8"))
TOLERANCE = 1e-6

# Everything the page computes, for every case.
COMPUTE = """
const points = (list) => Float64Array.from(list);
return cases.map((c) => {
  const [x, y, draws] = [points(c.x), points(c.y), points(c.draws)];
  const { values } = nuclear(crossGram(x, y, c.variance), count(x), count(y));
  const objectives = {};
  for (const name of Object.keys(c.objectives)) {
    const { loss, gradient } = lossAndGradient(name, x, y, c.variance);
    const { logCost, logLimit } = bound(name, x, y, c.variance, draws);
    objectives[name] = { loss, gradient: [...gradient], log_cost: logCost, log_limit: logLimit };
  }
  const density = densityOnGrid(y, c.variance, points(c.grid.xs), points(c.grid.ys));
  return { values: [...values], rank: effectiveRank(values), density: [...density], objectives };
});
"""


def compute(source: str):
    return run_javascript(f"{engine_source()}\n{source}")


@pytest.fixture(scope="module")
def computed():
    return compute(f"const cases = {json.dumps(GOLDEN)};{COMPUTE}")


def close(got, expected):
    assert got == pytest.approx(expected, abs=TOLERANCE, rel=TOLERANCE)


@pytest.mark.parametrize("case", range(len(GOLDEN)))
def test_the_pages_numbers_are_those_of_python(computed, case):
    got, expected = computed[case], GOLDEN[case]
    for name in ("values", "rank", "density"):
        close(got[name], expected[name])
    assert set(got["objectives"]) == set(expected["objectives"])
    for name, numbers in expected["objectives"].items():
        for key, number in numbers.items():
            close(got["objectives"][name][key], number)


def test_the_golden_values_are_what_python_computes_now(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "docs" / "scripts"))
    import playground_values

    now = playground_values.values()
    sys.modules.pop("playground_values")
    for case, golden in zip(now, GOLDEN, strict=True):
        assert case["x"] == golden["x"]
        for name, numbers in golden["objectives"].items():
            for key, number in numbers.items():
                assert case["objectives"][name][key] == pytest.approx(number, abs=1e-12)


def test_a_large_wide_kernel_keeps_the_tail_of_its_spectrum():
    """64 by 128 points under a kernel as wide as the data: most singular values are tiny."""
    import numpy as np

    rng = np.random.default_rng(0)
    x, y = rng.uniform(-1, 1, (128, 2)), rng.uniform(-1, 1, (64, 2))
    matrix = np.exp(-np.square(x[:, None] - y).sum(-1) / 2) / math.sqrt(128 * 64)
    expected = np.linalg.svd(matrix, compute_uv=False)
    rows = json.dumps(matrix.ravel().tolist())
    got = compute(f"return [...nuclear(Float64Array.from({rows}), 128, 64).values];")
    assert np.abs(np.array(got) - expected).max() < 1e-12


@pytest.mark.parametrize("objective", ["nuclear", "debiased", "scalar", "likelihood", "trace"])
def test_the_flow_makes_every_bound_tighter(objective):
    before, after = compute(
        f"""
        const sim = createSimulation(1);
        sim.setData(preset("moons", 1));
        sim.setSettings({{ objective: "{objective}", centres: 32, variance: 0.1, batch: 64 }});
        const before = sim.measure().tightness;
        for (let k = 0; k < 80; k++) sim.step();
        return [before, sim.measure().tightness];
        """
    )
    assert 0 < before < after <= 1


def test_presets_are_points_of_the_visible_plane():
    for name in ("moons", "rings", "grid"):
        points = compute(f'return [...preset("{name}", 2)];')
        assert len(points) == 512
        assert max(map(abs, points)) < 1.8


def test_the_page_is_one_file():
    page = playground_page()
    assert not re.findall(r"(?:src|href)=|https?://|@import|url\(", page)
    assert "connect-src" not in page
    assert "default-src 'none'" in page
    assert page.count("</script>") == 2


def test_the_page_is_written_where_it_is_wanted(tmp_path):
    path = write_playground(tmp_path / "new" / "page.html")
    assert path.read_text(encoding="utf-8") == playground_page()
    with pytest.raises(InputError, match=r"output must be the name of an \.html file"):
        write_playground(tmp_path)
