"""The report's page as a browser shows it: phone and screen, light and dark; screenshots are kept.

They lie in the folder that REPO_VERL_ARTIFACTS names, tests/artifacts by default.
"""

import os
import shutil
from pathlib import Path

import pytest
from report_logs import steps, write_log, write_seeds

from repo_verl.report import write_report
from repo_verl.report.charts import CHARTS

pytestmark = [pytest.mark.e2e, pytest.mark.full]

ARTIFACTS = Path(os.environ.get("REPO_VERL_ARTIFACTS") or Path(__file__).resolve().parents[1] / "artifacts")
VIEWS = [(390, 844, "light"), (390, 844, "dark"), (1440, 900, "light"), (1440, 900, "dark")]

SEEN = """() => {
  const shown = element => element.getClientRects().length > 0;
  const box = element => { const r = element.getBoundingClientRect(); return [r.left, r.top, r.right, r.bottom]; };
  const name = element => `${element.tagName} ${element.id || element.textContent.trim().slice(0, 40)}`;
  const overlaps = (elements, slack) => {
    const found = [];
    for (const [i, a] of elements.entries()) for (const b of elements.slice(i + 1)) {
      const [p, q] = [box(a), box(b)];
      if (Math.min(p[2], q[2]) - Math.max(p[0], q[0]) > slack && Math.min(p[3], q[3]) - Math.max(p[1], q[1]) > slack)
        found.push(`${name(a)} | ${name(b)}`);
    }
    return found;
  };
  const outside = (elements, frame) => elements.filter(element => {
    const [a, f] = [box(element), box(frame)];
    return a[0] < f[0] - 1 || a[1] < f[1] - 1 || a[2] > f[2] + 1 || a[3] > f[3] + 1;
  }).map(name);
  const luminance = color => {
    const [r, g, b] = color.match(/[\\d.]+/g).map(Number).map(v => v / 255)
      .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const contrast = (a, b) => {
    const [high, low] = [luminance(a), luminance(b)].sort((x, y) => y - x);
    return (high + 0.05) / (low + 0.05);
  };
  const color = (selector, property) => getComputedStyle(document.querySelector(selector))[property];
  const drawings = [...document.querySelectorAll("svg")].filter(shown);
  const texts = drawings.map(svg => [...svg.querySelectorAll("text")]);
  const card = color("figure", "backgroundColor");
  return {
    width: document.documentElement.scrollWidth,
    modes: drawings.map(svg => svg.closest(".light, .dark").className),
    overlaps: [document.querySelector("main"), ...document.querySelectorAll("main *:not(svg):not(svg *)")]
      .flatMap(parent => overlaps([...parent.children].filter(shown), 0.5)),
    overlapping_texts: texts.flatMap(found => overlaps(found, 1)),
    outside: drawings.flatMap((svg, i) => outside(texts[i], svg))
      .concat([...document.querySelectorAll("figure")].flatMap(figure => outside([...figure.children], figure))),
    clipped: [...document.querySelectorAll("main, main *:not(svg):not(svg *)")].filter(element => shown(element)
      && getComputedStyle(element).overflowX !== "auto" && element.scrollWidth > element.clientWidth + 1
      && element.clientWidth > 0).map(name),
    font_sizes: drawings.flatMap((svg, i) => texts[i].map(text => parseFloat(getComputedStyle(text).fontSize)
      * svg.getBoundingClientRect().width / svg.viewBox.baseVal.width)),
    columns: new Set([...document.querySelectorAll("figure")].map(figure => Math.round(box(figure)[0]))).size,
    background: luminance(color("body", "backgroundColor")),
    contrasts: [
      contrast(color("body", "color"), color("body", "backgroundColor")),
      contrast(color("header .soft", "color"), color("body", "backgroundColor")),
      contrast(color("figcaption", "color"), card), contrast(color("figure h3", "color"), card),
      ...texts.flat().map(text => contrast(getComputedStyle(text).fill, card)),
    ],
  };
}"""


@pytest.fixture(scope="module")
def browser():
    """Headless Chromium, the system's own."""
    remedy = "run .venv/bin/pip install playwright (or the dev extra) and apt-get install -y chromium as root"
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        pytest.fail(f"the page is tested in a browser, and playwright is missing: {remedy}", pytrace=False)
    executable = shutil.which("chromium") or shutil.which("google-chrome")
    if executable is None:
        pytest.fail(f"the page is tested in a browser, and chromium is missing: {remedy}", pytrace=False)
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        yield launched
        launched.close()


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """Pages by name: three seeds of two arms; runs that have just begun, with long names and notes."""
    root = tmp_path_factory.mktemp("runs")
    seeds = write_seeds(root)
    for run in seeds:
        (run / "config.yaml").write_text(f"data: {{train_files: /a/long/path{'/folder' * 12}/train.parquet}}\n")
    write_report(seeds, root / "three_seeds", seed=0)
    young = [
        write_log(root / f"{'a_long_name_' * 4}{i}", [*steps("repo", i, 4 + 5 * i), (30, {"x": None})])
        for i in range(4)
    ]
    write_report([*young, write_log(root / "begun", [])], root / "young", refresh=600)
    return {name: root / name / "report.html" for name in ("three_seeds", "young")}


def open_page(browser, path, width, height, scheme):
    """The page, and what it said and asked for."""
    context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
    page, said, asked = context.new_page(), [], []
    page.on("console", lambda message: said.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(path.as_uri(), wait_until="networkidle")
    return page, said, asked


@pytest.mark.parametrize("name", ["three_seeds", "young"])
@pytest.mark.parametrize(("width", "height", "scheme"), VIEWS)
def test_the_page_in_chromium(browser, pages, name, width, height, scheme):
    page, said, asked = open_page(browser, pages[name], width, height, scheme)
    seen = page.evaluate(SEEN)
    ARTIFACTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=ARTIFACTS / f"report_{name}_{width}_{scheme}.png", full_page=True)
    page.locator("summary").click()
    opened = page.evaluate(SEEN)
    page.locator("details").screenshot(path=ARTIFACTS / f"report_{name}_{width}_{scheme}_settings.png")
    assert said == [] and asked == [pages[name].as_uri()]
    for state in (seen, opened):
        assert state["width"] <= width, "scrolls sideways"
        assert state["overlaps"] == [] and state["outside"] == [] and state["clipped"] == []
    assert seen["overlapping_texts"] == []
    assert set(seen["modes"]) == {scheme} and len(seen["modes"]) == (len(CHARTS) if name == "three_seeds" else 12)
    assert seen["columns"] == (1 if width == 390 else 2)
    assert min(seen["font_sizes"]) >= (9 if width == 390 else 11)
    assert seen["background"] < 0.05 if scheme == "dark" else seen["background"] > 0.8
    assert min(seen["contrasts"]) >= 4.5
    page.context.close()


def test_a_watched_page_reads_itself_again(browser, tmp_path):
    run = tmp_path / "run"
    write_report([run], tmp_path, refresh=1)
    page, said, asked = open_page(browser, tmp_path / "report.html", 390, 844, "light")
    assert "metrics.jsonl does not exist" in page.inner_text("main")
    write_log(run, steps("repo", 0, 12))
    write_report([run], tmp_path)
    page.wait_for_selector("figure", timeout=20_000)
    assert said == [] and set(asked) == {(tmp_path / "report.html").as_uri()} and len(asked) >= 2
    page.context.close()
