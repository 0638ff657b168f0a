"""harness.report: the page as text, and in a real Chromium from file://: sort, filter, diff, keyboard, no network."""

import json
import os
import re
import shutil

import pytest
import synthetic

from harness.analysis import report
from harness.report import main as run_report

pytestmark = pytest.mark.slow  # a browser

EVIL = "</script><script>document.title='pwned'</script><img src=x onerror=\"document.title='pwned'\"> & \u2028 \\u003c"


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = synthetic.write_suite(tmp_path_factory.mktemp("results"), problems=30, seeds=(1, 2))
    rows = synthetic.records((0.5, 0.3, 0.1, 0.2), 1, problems=30)
    for row in rows:
        row["attempts"][0]["text"] += EVIL
        row["attempts"][1]["text"] = f"{EVIL} {row['attempts'][1]['text']}"
    rows[0]["attempts"][0]["answer"] = EVIL
    synthetic.write_run(root, "evil_row", 1, rows)
    synthetic.write_run(root, "crashed", 1, [], status="failed", error=EVIL)
    return root


@pytest.fixture(scope="module")
def page(root):
    return report.build(root)


def test_the_page_is_self_contained_and_stable(page, root):
    assert "http://" not in re.sub(r"http://www\.w3\.org/[\w/]+", "", page)
    assert "https://" not in page
    assert not re.search(r"<(link|iframe|object|embed)\b|@import|url\(", page)
    assert page == report.build(root)


def test_model_text_cannot_leave_its_data_block(page):
    assert page.count("<script") == 2
    assert page.count("</script>") == 2
    assert "<img src=x" not in page
    data = json.loads(page.split('id="data">')[1].split("</script>")[0])
    evil = next(run for run in data["runs"] if run["name"] == "evil_row")
    assert evil["items"][0][2][0][0].endswith(EVIL)


def test_the_policy_names_the_one_script_and_the_one_style(page):
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', page)
    assert policy
    for tag, name in (("script>", "script-src"), ("style>", "style-src")):
        text = page.split(f"<{tag}")[1].split(f"</{tag}")[0]
        assert f"{name} '{report._hash(text)}'" in policy[1].replace("&#43;", "+").replace("&#34;", '"')


def test_every_run_embeds_the_same_problems(root):
    page = report.build(root, trajectories=7, figures=False)
    data = json.loads(page.split('id="data">')[1].split("</script>")[0])
    assert {tuple(item[0] for item in run["items"]) for run in data["runs"]} == {
        tuple(item[0] for item in data["runs"][0]["items"])
    }
    assert len(data["runs"][0]["items"]) == 7
    assert "of 450 greedy trajectories" in page
    assert 'id="figures"' not in page


def test_long_logs_are_averaged_in_bins(tmp_path):
    logged = synthetic.steps(1000, 1)
    synthetic.write_run(tmp_path, "row", 1, synthetic.records((0.5, 0.1, 0.1, 0), 1, problems=4), logged=logged)
    page = report.build(tmp_path, figures=False)
    (curve,) = json.loads(page.split('id="data">')[1].split("</script>")[0])["curves"]
    assert 100 < len(curve["series"]["acc_t1"]) <= report.POINTS
    mean = sum(value for _, value in curve["series"]["acc_t1"]) / len(curve["series"]["acc_t1"])
    assert mean == pytest.approx(sum(step["acc_t1"] for step in logged) / 1000, abs=0.01)


def test_an_empty_folder_gives_a_page(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    assert run_report([str(tmp_path / "empty")]) == 0
    assert "No finished run was found" in (tmp_path / "empty" / "report.html").read_text()
    assert run_report([str(tmp_path / "nowhere")]) == 2
    assert "no results folder" in capsys.readouterr().err


# -- in a browser ------------------------------------------------------------------------------------------------------


def _chromium():
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    return os.environ.get("CHROMIUM") or next((path for name in names if (path := shutil.which(name))), None)


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="playwright is not installed (the `test` extra has it)"
    )
    binary = _chromium()
    if binary is None:
        pytest.skip("no Chromium found: install Debian's `chromium`, or set CHROMIUM to a Chrome or Chromium binary")
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=binary, args=["--no-sandbox", "--disable-gpu"])
        yield chromium
        chromium.close()


@pytest.fixture
def opened(browser, page, tmp_path, request):
    """The page from file://, and everything it asked for or complained of."""
    options = getattr(request, "param", {"viewport": {"width": 1280, "height": 900}})
    file = tmp_path / "report.html"
    file.write_text(page, encoding="utf-8")
    context = browser.new_context(**options)
    tab = context.new_page()
    heard: list[str] = []
    tab.on("request", lambda r: heard.append(f"request {r.url[:80]}") if not r.url.startswith("data:") else None)
    tab.on("console", lambda m: heard.append(f"console {m.type}: {m.text}"))
    tab.on("pageerror", lambda e: heard.append(f"error: {e}"))
    tab.on("dialog", lambda d: (heard.append(f"dialog: {d.message}"), d.dismiss()))
    tab.goto(file.as_uri())
    yield tab
    assert heard == [f"request {file.as_uri()[:80]}"]
    assert tab.title() == "Self-correction results"
    folder = os.environ.get("SCREENSHOTS")
    if folder:
        tab.screenshot(path=f"{folder}/{request.node.name}.png", full_page=True)
    context.close()


def _column(tab, number):
    cells = tab.locator("table.accuracy").first.locator("tbody tr td").all()
    rows = tab.locator("table.accuracy").first.locator("tbody tr").count()
    per = len(cells) // rows
    return [cells[row * per + number].get_attribute("data-sort") for row in range(rows)]


def test_tables_sort_and_filter(opened):
    table = opened.locator("table.accuracy").first
    header = table.locator("thead th", has_text="Acc@t2")
    header.locator("button").click()
    assert header.get_attribute("aria-sort") == "descending"
    numbers = [float(x) for x in _column(opened, 1) if x]
    assert numbers == sorted(numbers, reverse=True)
    header.locator("button").click()
    assert header.get_attribute("aria-sort") == "ascending"
    column = _column(opened, 1)
    numbers = [float(x) for x in column if x]
    assert numbers == sorted(numbers)
    assert column[: len(numbers)] == [x for x in column if x]  # rows without the number stay below
    opened.fill("#row-filter", "score_no")
    visible = table.locator("tbody tr:visible th").all_text_contents()
    assert [name.split(" ")[0] for name in visible] == ["score_no_shaping"]


def test_trajectories_filter_open_and_show_a_diff(opened):
    everything = opened.locator("#count").text_content()
    opened.select_option("#f-method", "score_full")
    opened.select_option("#f-outcome", "ic")
    opened.select_option("#f-seed", "2")
    assert opened.locator("#count").text_content() != everything
    kinds = set(opened.locator("#list .what").all_text_contents())
    who = set(opened.locator("#list .who").all_text_contents())
    assert kinds == {"i→c"}
    assert who == {"score_full · 2"}
    opened.locator("#list button").first.click()
    panes = opened.locator("#detail .attempt")
    assert panes.count() == 2
    assert "✗ wrong" in panes.nth(0).text_content()
    assert "✓ right" in panes.nth(1).text_content()
    assert panes.nth(0).locator("del").count() > 0
    assert panes.nth(1).locator("ins").count() > 0
    text = panes.nth(1).locator("pre").text_content()
    assert "\\boxed{" in text


def test_a_script_in_a_trajectory_does_nothing(opened):
    opened.select_option("#f-method", "evil_row")
    opened.locator("#list button").first.click()
    assert "<script>document.title='pwned'</script>" in opened.locator("#detail pre").first.text_content()
    assert opened.locator("#detail script, #detail img").count() == 0
    opened.wait_for_timeout(100)
    assert opened.title() == "Self-correction results"


def test_the_keyboard_is_enough(opened):
    opened.locator("#list button").first.focus()
    opened.keyboard.press("Enter")
    first = opened.locator("#detail h3").text_content()
    opened.keyboard.press("j")
    assert opened.locator("#list button[aria-current=true]").count() == 1
    assert opened.locator("#detail h3").text_content() != first
    opened.keyboard.press("k")
    assert opened.locator("#detail h3").text_content() == first
    opened.keyboard.press("ArrowDown")
    assert opened.locator("#detail h3").text_content() != first


def test_curves_follow_the_chosen_quantity_and_methods(opened):
    lines = opened.locator("#curve-plot path")
    before, shape = lines.count(), lines.first.get_attribute("d")
    opened.select_option("#curve-key", "kl_t1")
    assert opened.locator("#curve-plot path").first.get_attribute("d") != shape
    opened.locator("#curve-legend button").first.click()
    assert opened.locator("#curve-plot path").count() < before


def test_figures_are_shown(opened):
    images = opened.locator("#figures img")
    assert images.count() >= 6
    images.first.scroll_into_view_if_needed()
    decoded = (
        "async () => { const i = document.querySelector('#figures img'); await i.decode(); return i.naturalWidth }"
    )
    assert opened.evaluate(decoded) > 100


@pytest.mark.parametrize(
    "opened",
    [
        {"viewport": {"width": 390, "height": 844}, "device_scale_factor": 2, "is_mobile": True, "has_touch": True},
        {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "color_scheme": "dark"},
        {"viewport": {"width": 1280, "height": 900}, "color_scheme": "dark"},
    ],
    indirect=True,
    ids=["phone", "phone-dark", "desktop-dark"],
)
def test_it_fits_a_phone_and_the_dark(opened):
    opened.select_option("#f-outcome", "ic")
    opened.locator("#list button").first.click()
    assert opened.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), "the page scrolls sideways"
    name = opened.locator("table.accuracy tbody th").first.bounding_box()
    assert name
    assert name["width"] > 100
    assert name["height"] < 90
    background = opened.evaluate("getComputedStyle(document.body).backgroundColor")
    dark = opened.evaluate("matchMedia('(prefers-color-scheme: dark)').matches")
    assert (background == "rgb(255, 255, 255)") != dark
