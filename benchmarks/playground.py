"""How quick the playground is: milliseconds of a step and of a frame, and frames in a second.

    python benchmarks/playground.py

A step is timed in Chromium's engine at 64 and 128 centres, the rest as the page starts. Frames are
counted for five seconds while the centres flow, in a window of 1440 x 900 pixels. Chromium runs
without a graphics card here, so it paints on the processor: a laptop is quicker.

Other programs on the machine slow frames down, and ``load_before`` says how many there were. So the
processor's time of a frame is measured as well, for each of the three threads that work at once:
the page, the flow, and what puts the picture together. Waiting for a core does not count. With
a core for each, the slowest of them decides how many frames a second can have. Results go to
``benchmarks/results/playground.json``.
"""

import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, sync_playwright

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
    const seconds = (now - start) / 1000;
    done({ frames: gaps.length, per_second: gaps.length / seconds, median_gap_ms: median });
  };
  requestAnimationFrame(count);
})"""


#: What the threads of a page are called by Chromium, and here.
THREADS = {
    "CrRendererMain": "page",
    "DedicatedWorker thread": "flow",
    "VizCompositorThread": "picture",
}


def processor_time(browser: Browser, page: Page) -> dict[str, float]:
    """Return the processor's milliseconds of a frame, for each thread."""
    browser.start_tracing(page=page, categories=["toplevel"])
    frames = page.evaluate(FRAMES)
    events = json.loads(browser.stop_tracing())["traceEvents"]
    names = {(e["pid"], e["tid"]): e["args"]["name"] for e in events if e["name"] == "thread_name"}
    spent = dict.fromkeys(THREADS.values(), 0.0)
    for event in events:
        thread = THREADS.get(names.get((event["pid"], event["tid"]), ""))
        if thread and event["name"] == "ThreadControllerImpl::RunTask":
            spent[thread] += event.get("tdur", 0) / 1000
    return {name: round(time / frames["frames"], 2) for name, time in spent.items()}


def measure(browser: Browser, page: Page, address: str) -> dict[str, Any]:
    """Return the times of steps and the frames in a second."""
    frames = {}
    for centres in CENTRES:
        page.goto("about:blank")
        page.goto(f"{address}#centres={centres}")
        page.wait_for_timeout(5000)  # until the code is compiled
        frames[f"{centres} centres"] = page.evaluate(FRAMES) | {
            "processor_ms_of_a_frame": processor_time(browser, page)
        }
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
            **measure(browser, page, write_playground(Path(folder) / "page.html").as_uri()),
        }
        browser.close()
    RESULT.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
