"""The page in a browser: whatever it says can be read on the ground that it stands on, by day and by night."""

import shutil
from pathlib import Path

import pytest
from playwright.sync_api import sync_playwright
from written_runs import write_run

from forgetmenot.report.page import write_page
from forgetmenot.report.runs import find_runs, group_runs

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("chromium") is None, reason="needs Chromium, as Debian has it"),
]

# Plotly draws anew in its own time: the charts are turned when none of their axes has the colour that it had.
CHARTS = "[...document.querySelectorAll('.main-svg .xtick text')].map(text => getComputedStyle(text).fill)"
LEAST = 4.5  # the contrast of text that WCAG 2.2 asks for, section 1.4.3
TEXTS = """() => {
  const channels = colour => colour.match(/[\\d.]+/g).map(Number);
  const light = colour => {
    const [r, g, b] = channels(colour).slice(0, 3).map(c => c / 255).map(
      c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = element => {
    for (let each = element; each; each = each.parentElement) {
      const colour = getComputedStyle(each).backgroundColor;
      if ((channels(colour)[3] ?? 1) > 0) return light(colour);
    }
    return 1;
  };
  const own = element => [...element.childNodes].some(node => node.nodeType === 3 && node.textContent.trim());
  return [...document.body.querySelectorAll("*")]
    .filter(element => !["SCRIPT", "STYLE"].includes(element.tagName) && element.getClientRects().length)
    .filter(own)
    .map(element => {
      const style = getComputedStyle(element), svg = element instanceof SVGElement;
      const levels = [light(svg ? style.fill : style.color), ground(element)].sort((a, b) => a - b);
      return { text: element.textContent.trim(), svg, contrast: (levels[1] + 0.05) / (levels[0] + 0.05) };
    });
}"""


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page with every kind of text: charts, a table with marks, answers, settings, and a run that is left out."""
    place = tmp_path_factory.mktemp("colours")
    for rank, after in ((2, 0.6), (4, 0.7), (8, 0.8)):
        write_run(place / str(rank), "method=lora", f"method.rank={rank}", after=after)
    write_run(place / "failed", "method=full", status="failed")
    runs, others = find_runs([place])
    write_page(place / "page.html", group_runs(runs), others)
    return place / "page.html"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_stands_out_from_its_ground(page_file: Path, scheme: str) -> None:
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        tab = browser.new_context(offline=True, color_scheme=scheme).new_page()
        tab.goto(page_file.as_uri())
        tab.wait_for_selector(".main-svg")
        texts = tab.evaluate(TEXTS)
        ground = tab.evaluate("getComputedStyle(document.body).backgroundColor")
        charts = tab.evaluate(CHARTS)
        tab.emulate_media(color_scheme="light" if scheme == "dark" else "dark")
        tab.wait_for_function("before => getComputedStyle(document.body).backgroundColor !== before", arg=ground)
        tab.wait_for_function(f"before => {CHARTS}.every(fill => !before.includes(fill))", arg=charts)
        turned = tab.evaluate(TEXTS)
        browser.close()

    for shown in (texts, turned):
        faint = {text["text"]: round(text["contrast"], 2) for text in shown if text["contrast"] < LEAST}
        assert faint == {}
        told = {text["text"] for text in shown}
        assert {"mean forgetting", "All figures", "gain", "lora method.rank=8", "+0.500", "Not compared"} <= told
        assert any(text["svg"] for text in shown)
    channels = [int(channel) for channel in ground.strip("rgb()").split(",")]
    assert (max(channels) < 64) == (scheme == "dark")
    assert charts
