"""The story that the README tells, from its one command: four methods on sentiment, with defaults.

Two of its three seeds: the longest of all tests, of which a third would make the whole suite longer than an hour.
"""

import shutil
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from statistics import mean

import pytest
from playwright.sync_api import sync_playwright
from tiny_runs import read_lines, read_result

from forgetmenot.cli.compare import main as compare

pytestmark = pytest.mark.slow

SEEDS = (0, 1)
MAJORITY = 0.5  # sentiment's test split is even
Results = dict[str, list[dict]]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which the experiment ran, two members at once."""
    place = tmp_path_factory.mktemp("story")
    seeds = f"seed={','.join(map(str, SEEDS))}"
    settings = ["experiment=forgetting", seeds, "trainer=cpu", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
    command = [sys.executable, "-m", "forgetmenot.cli.main", "train", *settings]
    done = subprocess.run(command, cwd=place, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return place


@pytest.fixture(scope="module")
def results(place: Path) -> Results:
    """The results of every method, one a seed."""
    found = defaultdict(list)
    for file in place.glob("outputs/sweeps/*/*/*/result.json"):
        result = read_result(file.parent)
        found[result["method"]["name"]].append(result)
    assert {len(runs) for runs in found.values()} == {len(SEEDS)}
    return found


def gain(runs: list[dict]) -> float:
    return mean(run["tasks"]["sentiment"]["after"]["accuracy"] for run in runs)


def forgetting(runs: list[dict]) -> float:
    return mean(run["forgetting"]["mean"] for run in runs)


@pytest.mark.parametrize(
    ("method", "points"), [("full", 0.25), ("lora", 0.25), ("regularized", 0.20), ("prompt", 0.12)]
)
def test_a_method_learns_with_its_defaults(results: Results, method: str, points: float) -> None:
    assert gain(results[method]) >= MAJORITY + points


def test_every_run_answers_with_both_labels(place: Path) -> None:
    files = list(place.glob("outputs/sweeps/*/*/*/predictions/sentiment.jsonl"))
    assert len(files) == 4 * len(SEEDS)
    assert all({"positive", "negative"} <= {line["after"] for line in read_lines(file)} for file in files)


def test_full_fine_tuning_forgets_most_of_what_the_base_could_do(results: Results) -> None:
    assert forgetting(results["full"]) >= 0.30


def test_lora_forgets_less_than_full_fine_tuning(results: Results) -> None:
    # measured 0.64 of it on two threads, 0.71 on one (docs/log.md): the order of sums alone moves it by as much
    assert forgetting(results["lora"]) <= 0.85 * forgetting(results["full"])


def test_the_regularized_forgets_half_as_much_at_most_and_gains_nearly_as_much(results: Results) -> None:
    assert forgetting(results["regularized"]) <= forgetting(results["full"]) / 2
    assert gain(results["regularized"]) >= gain(results["full"]) - 0.05


@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs Chromium, as Debian has it")
def test_the_page_of_the_runs_draws_its_charts_and_sorts_its_table_without_network(place: Path) -> None:
    page_file = place / "page.html"
    compare([str(place / "outputs"), "--html", str(page_file)])

    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        context = browser.new_context(offline=True, viewport={"width": 1200, "height": 900})
        tab, errors = context.new_page(), []
        tab.on("console", lambda message: errors.append(message.text) if message.type in ("error", "warning") else None)
        tab.on("pageerror", lambda error: errors.append(str(error)))
        tab.on("requestfailed", lambda request: errors.append(request.url))
        tab.goto(page_file.as_uri())
        tab.wait_for_selector(".main-svg")

        charts = tab.locator(".chart")
        drawn = [charts.nth(i).locator(".main-svg .trace, .main-svg .points").count() for i in range(charts.count())]
        names = {row.split("\n")[0] for row in tab.locator("table.sorts tbody tr td:first-child").all_inner_texts()}
        tab.get_by_role("button", name="gain", exact=True).click()
        gains = [
            float(text.split(" ")[0]) for text in tab.locator("table.sorts tbody tr td:nth-child(4)").all_inner_texts()
        ]
        tab.get_by_role("button", name="gain", exact=True).click()
        turned = [
            float(text.split(" ")[0]) for text in tab.locator("table.sorts tbody tr td:nth-child(4)").all_inner_texts()
        ]
        tab.set_viewport_size({"width": 390, "height": 800})
        fits = "document.documentElement.scrollWidth <= document.documentElement.clientWidth"
        tab.wait_for_function(fits, timeout=10_000)  # a phone need not scroll sideways
        browser.close()

    assert errors == []
    assert len(drawn) >= 3 and all(drawn)
    assert names == {"full", "lora", "prompt", "regularized"}
    assert gains == sorted(gains, reverse=True) and turned == sorted(gains)
