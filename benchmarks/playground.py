"""How quick the playground is: milliseconds of a step, and frames in a second.

    python benchmarks/playground.py

A step is timed in Chromium's engine at 64 and 128 centres, the rest as the page starts. Frames are
counted for five seconds while the centres flow, in a window of 1440 x 900 pixels. Chromium runs
without a graphics card here, so it paints on the processor: a laptop is quicker. Results go to
``benchmarks/results/playground.json``.
"""

import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, sync_playwright

from hilbound.reports.playground import write_playground
from hilbound.training.machine import processor, versions

RESULT = Path(__file__).resolve().parent / "results" / "playground.json"
OBJECTIVES = ("nuclear", "debiased", "scalar", "likelihood", "trace")
CENTRES = (64, 128)

STEP = """([objective, centres]) => {
  const sim = createSimulation(1);
  sim.setData(preset("moons", 1));
  sim.setSettings({ objective, centres, variance: 0.071, batch: 128 });
  const times = [];
  for (let k = 0; k < 120; k++) {
    const start = performance.now();
    sim.step();
    times.push(performance.now() - start);
  }
  return times.slice(20).sort((a, b) => a - b)[50];
}"""

FRAMES = """() => new Promise((done) => {
  const start = performance.now();
  const gaps = [];
  let last = start;
  const count = (now) => {
    gaps.push(now - last);
    last = now;
    if (now - start < 5000) return requestAnimationFrame(count);
    gaps.sort((a, b) => a - b);
    const median = gaps[gaps.length >> 1];
    done({ per_second: (1000 * gaps.length) / (now - start), median_gap_ms: median });
  };
  requestAnimationFrame(count);
})"""


def measure(page: Page, address: str) -> dict[str, Any]:
    """Return the times of steps and the frames in a second."""
    frames = {}
    for centres in CENTRES:
        page.goto("about:blank")
        page.goto(f"{address}#centres={centres}")
        page.wait_for_timeout(2000)
        frames[f"{centres} centres"] = page.evaluate(FRAMES)
    page.get_by_role("button", name="Pause").click()
    steps = {
        f"{name}, {centres} centres": round(page.evaluate(STEP, [name, centres]), 3)
        for centres in CENTRES
        for name in OBJECTIVES
    }
    return {"frames": frames, "median_step_ms": steps}


def main() -> None:
    """Measure, print and write."""
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as folder:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        result = {
            "processor": processor(),
            "load_before": [round(load, 2) for load in os.getloadavg()],
            "versions": {**versions(), "chromium": browser.version},
            "seed": 1,
            **measure(page, write_playground(Path(folder) / "page.html").as_uri()),
        }
        browser.close()
    RESULT.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
