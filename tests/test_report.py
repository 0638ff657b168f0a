"""harness.report: the page as text, and in a real Chromium from file://: what it shows, keeps and never asks for."""

import hashlib
import json
import os
import re
import shutil
from pathlib import Path

import pytest
import synthetic

from harness.analysis import plots, report, tables, terms
from harness.report import main as run_report

pytestmark = pytest.mark.slow  # a browser

AXE = Path(__file__).parent / "data" / "axe" / "axe.min.js"
TITLE = "Self-correction results: study"
EVIL = "</script><script>document.title='pwned'</script><img src=x onerror=\"document.title='pwned'\"> & \u2028 \\u003c"

HOSTILE_TEX = (
    r"$\href{javascript:alert(1)}{x}$ $\color{red}{y}$ $\rule{900em}{1em}$ $\includegraphics{http://x.example/a.png}$"
)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = synthetic.write_suite(tmp_path_factory.mktemp("results") / "study", problems=30, seeds=(1, 2))
    rows = synthetic.records((0.5, 0.3, 0.1, 0.2), 1, problems=30)
    for row in rows:
        row["attempts"][0]["text"] += EVIL
        row["attempts"][1]["text"] = f"{EVIL} {row['attempts'][1]['text']}"
    rows[0]["attempts"][0]["answer"] = EVIL
    rows[0] |= {"prompt": EVIL, "gold": EVIL}
    rows[0]["attempts"][1]["reason"] = EVIL
    synthetic.write_run(root, "evil_row", 1, rows)
    for seed in (1, 2):  # formulas, a gold answer and reasons; some formulas want what they must not get
        rows = synthetic.records((0.5, 0.3, 0.1, 0.2), seed, problems=30)
        for row in rows:
            row |= {"prompt": r"Find $x^2$ for $5 and $6, or \[\frac{1}{2}\].", "gold": r"\frac{3}{2}"}
            for i, attempt in enumerate(row["attempts"]):
                attempt["text"] = rf"so $\frac{{{i}}}{{2}}$ {HOSTILE_TEX} and \boxed{{\frac{{{i}}}{{2}}}}"
                attempt["answer"], attempt["reason"] = rf"\frac{{{i}}}{{2}}", "compared as fractions"
        synthetic.write_run(root, "maths_row", seed, rows, commit="0123456789abcdef", started="2026-01-02T00:00:00Z")
    synthetic.write_run(root, "crashed", 1, [], status="failed", error=EVIL)
    return root


@pytest.fixture(scope="module")
def page(root):
    return report.build_report(root)


def data_of(page):
    return json.loads(page.split('id="data">')[1].split("</script>")[0])


def test_the_page_is_self_contained(page):
    for library in report.VENDOR.glob("*.js"):
        assert library.read_text(encoding="utf-8") in page
        page = page.replace(library.read_text(encoding="utf-8"), "")
    assert "http://" not in re.sub(r"http://(www\.w3\.org/[\w/]+|x\.example)", "", page)
    assert "https://" not in page
    assert not re.search(r"<(link|iframe|object|embed)\b|@import|url\(", page)


def test_equal_results_give_equal_pages(page, root):
    assert page == report.build_report(root)


def test_the_libraries_are_as_published_and_bring_their_licence(page):
    listed = dict(re.findall(r"^\| `(\S+)` \|.*\| ([0-9a-f]{64}) \|$", (report.VENDOR / "README.md").read_text(), re.M))
    assert set(listed) == {file.name for file in report.VENDOR.iterdir() if file.suffix in (".js", ".css")}
    for name, digest in listed.items():
        assert hashlib.sha256((report.VENDOR / name).read_bytes()).hexdigest() == digest
    for name in ("uPlot", "katex"):
        assert (report.VENDOR / f"{name}.LICENSE").read_text(encoding="utf-8") in page


def test_every_column_head_is_explained(tmp_path):
    board = plots.read_scopes(synthetic.write_everything(tmp_path))[1]
    heads = {head for block in tables.build_blocks(board) for head in block.header} | set(tables.CONTROLS.values())
    heads |= {"per first attempt", "seeds for 3 points", "Acc@t10", "p (same within 3 points)", "within 3 points?"}
    assert {head for head in heads if not terms.define_head(head)} == set()
    assert terms.define_head("Acc@t10") == "Share of problems whose attempt 10 is right."
    assert terms.define_head("no such head") == ""


def test_a_page_that_would_be_too_large_holds_fewer_problems(root, monkeypatch):
    whole = report.build_report(root, figures=False)
    monkeypatch.setattr(report, "MOST_BYTES", len(whole.encode()) - 40_000)
    page = report.build_report(root, figures=False)
    assert len(page.encode()) <= report.MOST_BYTES
    kept = [{item[0] for item in run["items"]} for run in data_of(page)["runs"]]
    assert 1 < len(kept[0]) < 30
    assert kept == [kept[0]] * len(kept)  # the same problems of every run


def test_a_problem_stands_once_whatever_the_runs(page):
    (scope,) = data_of(page)["scopes"]
    assert len(scope["problems"]) == 30
    assert page.count(r"Find $x^2$") == 29  # the thirtieth has the text of evil_row, which comes first


def test_model_text_cannot_leave_its_data_block(page):
    assert page.count("<script") == 2
    assert page.count("</script>") == 2
    assert "<img src=x" not in page
    data = data_of(page)
    evil = next(run for run in data["runs"] if run["name"] == "evil_row")
    assert evil["items"][0][2][0][0].endswith(EVIL)


def test_the_policy_names_the_one_script_and_the_one_style(page):
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', page)
    assert policy
    for tag, name in (("script>", "script-src"), ("style>", "style-src")):
        text = page.split(f"<{tag}")[1].split(f"</{tag}")[0]
        assert f"{name} '{report._hash(text)}'" in policy[1].replace("&#43;", "+").replace("&#34;", '"')


def test_every_run_embeds_the_same_problems(root):
    page = report.build_report(root, trajectories=7, figures=False)
    data = data_of(page)
    assert {tuple(item[0] for item in run["items"]) for run in data["runs"]} == {
        tuple(item[0] for item in data["runs"][0]["items"])
    }
    assert len(data["runs"][0]["items"]) == 7
    assert "of 510 greedy trajectories" in page
    assert 'id="figures"' not in page


def test_long_logs_are_averaged_in_bins(tmp_path):
    logged = synthetic.steps(1000, 1)
    synthetic.write_run(tmp_path, "row", 1, synthetic.records((0.5, 0.1, 0.1, 0), 1, problems=4), logged=logged)
    page = report.build_report(tmp_path, figures=False)
    (curve,) = data_of(page)["curves"]
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
    assert tab.title() == TITLE
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
    assert opened.locator("table.paper tbody tr:visible").count() > 0  # the paper's rows are no rows of ours
    opened.fill("#row-filter", "no such row")
    assert opened.locator("#row-count").text_content() == "No row has this in its name."


def test_words_sort_from_a_to_z_first(opened):
    header = opened.locator("table.accuracy thead th").first
    header.locator("button").click()
    assert header.get_attribute("aria-sort") == "ascending"


def test_a_column_head_is_explained_to_mouse_keyboard_and_screen_reader(opened):
    button = opened.locator("table.accuracy thead th button", has_text="Δi→c").first
    text = "Fixed: share of all problems that are wrong at attempt 1 and right at the last attempt."
    button.hover()
    assert opened.locator("#tip").text_content() == text
    opened.keyboard.press("Escape")
    assert opened.locator("#tip").is_hidden()
    button.focus()
    assert opened.locator("#tip").is_visible()
    assert opened.locator(f"[id='{button.get_attribute('aria-describedby')}']").text_content() == text
    assert text in opened.locator("#glossary").text_content()


def test_the_head_says_what_the_page_is_of(opened):
    head = opened.locator("dl.head").inner_text().replace("\n", " ")
    for told in ("runs 17", "rows 10", "seeds 2", "commit 0123456789ab", "left out 1 run, listed below"):
        assert told in head
    assert "2001-01-01 to 2026-01-02" in head


def test_the_navigation_stays_in_sight(opened):
    opened.locator("nav a", has_text="Glossary").click()
    assert opened.locator("nav").bounding_box()["y"] == 0
    assert opened.locator("#glossary h2").bounding_box()["y"] < 400
    assert opened.evaluate("location.hash") == "#see=glossary"


def test_one_problem_is_seen_over_all_rows_and_seeds(opened):
    opened.select_option("#f-method", "maths_row")
    opened.locator("#list button").nth(1).click()
    problem = opened.locator("#detail h3").text_content()
    opened.click("#all-rows")
    assert opened.locator("#detail h3").text_content() == problem
    assert opened.locator("#f-method").input_value() == ""
    cards = opened.locator("#detail .card")
    assert cards.count() == 17  # ten rows, of which base, self_refine and evil_row have one seed
    table = opened.locator("table.answers")
    assert table.locator("tbody th").count() == 10
    right = table.locator("td button > span:last-child.right").count()
    told = opened.locator("#list button[aria-current=true] .who").text_content()
    assert told.endswith(f"→ {right} of 17 right")
    assert opened.locator("#detail > .gold math").count() == 1
    mine = opened.locator("#detail .card[aria-label='maths_row, seed 2']")
    assert mine.locator(".attempt").count() == 2
    assert mine.locator(".reason").all_text_contents() == ["compared as fractions"] * 2
    assert mine.locator("del").count() == 2  # the fraction and the box around it
    assert mine.locator("ins").count() == 2
    table.locator("tr", has_text="maths_row").locator("button").nth(1).click()
    assert mine.evaluate("card => card === document.activeElement")


def test_a_filter_finds_problems_and_shows_all_their_rows(opened):
    opened.select_option("#f-view", "problems")
    everything = opened.locator("#list button").count()
    opened.select_option("#f-outcome", "ci")
    opened.select_option("#f-seed", "2")
    assert 0 < opened.locator("#list button").count() <= everything == 30
    opened.locator("#list button").first.click()
    assert opened.locator("#detail .card").count() == 7  # of the seed that is chosen
    assert opened.locator("#detail .card h5.ci").count() > 0
    opened.fill("#f-text", "no such text")
    assert "Nothing matches" in opened.locator("#count").text_content()


def _as_seen(tab):
    return tab.evaluate(
        """() => [...document.querySelectorAll("select, input")].map((e) => e.value).concat(
            [...document.querySelectorAll("[aria-sort]")].map((e) => e.textContent + e.getAttribute("aria-sort")),
            [...document.querySelectorAll("#detail h3, #detail > p, #count, #curve-range")].map((e) => e.textContent),
            [...document.querySelectorAll("table.accuracy tbody tr:not([hidden]) th")].map((e) => e.textContent),
            [...document.querySelectorAll("#curve-legend [aria-pressed=false]")].map((e) => e.textContent))"""
    )


def test_the_address_bar_holds_what_is_seen(opened, browser):
    opened.fill("#row-filter", "score_")
    opened.locator("table.accuracy thead th button", has_text="Acc@t2").first.click()
    opened.locator("table.behaviour thead th button", has_text="tokens").first.click()
    opened.select_option("#curve-key", "kl_t1")
    opened.locator("#curve-legend button", has_text="score_full").click()
    opened.click("#zoom-in")
    opened.select_option("#f-method", "score_full")
    opened.select_option("#f-outcome", "ic")
    opened.fill("#f-text", "boxed")
    opened.locator("#list button").nth(2).click()
    seen, address = _as_seen(opened), opened.url
    other = browser.new_context(viewport={"width": 1280, "height": 900}).new_page()
    other.goto(address)
    assert _as_seen(other) == seen
    assert other.locator("#list button[aria-current=true]").is_visible()
    other.evaluate("location.hash = 'method=star_plus'")
    other.wait_for_function("document.querySelector('#f-method').value === 'star_plus'")
    assert other.locator("[aria-sort]").count() == 0
    assert other.locator("#row-filter").input_value() == ""
    other.context.close()


@pytest.mark.parametrize(
    "address",
    [
        "open=%5B%22x%22%5D&view=problems",
        "open=__proto__&method=none&sort=a.b.c,leaderboard.99.up&curve=x&hide=%7B&range=9_1",
    ],
)
def test_an_address_that_names_nothing_here_does_no_harm(opened, address):
    opened.evaluate(f"location.hash = {address!r}")
    opened.wait_for_function("document.querySelector('#detail').textContent.includes('not among the entries')")
    assert opened.locator("#list button").count() > 0


def test_formulas_are_set_and_hostile_ones_stay_text(opened):
    opened.select_option("#f-method", "maths_row")
    opened.locator("#list button").nth(1).click()
    last = opened.locator("#detail .attempt pre").nth(1)
    assert last.locator("mfrac").count() == 2
    assert last.locator("menclose mfrac").count() == 1
    assert r"$\href{javascript:alert(1)}{x}$" in last.text_content()
    assert r"$\includegraphics{http://x.example/a.png}$" in last.text_content()
    assert opened.locator("#detail a, #detail img, #detail [style], #detail [href], #detail [mathcolor]").count() == 0
    assert last.evaluate("pre => pre.querySelector('mspace').getBoundingClientRect().width") < 300
    prompt = opened.locator("#detail .prompt")
    assert "for $5 and $6, or" in prompt.text_content()
    assert prompt.locator("math").count() == 2
    assert opened.locator("#detail .gold mfrac").count() == 1
    opened.select_option("#f-maths", "raw")
    assert opened.locator("#detail math").count() == 0
    assert r"so $\frac{1}{2}$" in opened.locator("#detail .attempt pre").nth(1).text_content()


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
    opened.select_option("#f-maths", "raw")
    assert "\\boxed{" in panes.nth(1).locator("pre").text_content()


def test_a_script_in_a_trajectory_does_nothing(opened):
    opened.select_option("#f-method", "evil_row")
    opened.locator("#list button").first.click()
    assert "<script>document.title='pwned'</script>" in opened.locator("#detail pre").first.text_content()
    assert opened.locator("#detail script, #detail img").count() == 0
    opened.wait_for_timeout(100)
    assert opened.title() == TITLE


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


def _picture(tab):
    return tab.evaluate("document.querySelector('#curve-plot canvas').toDataURL()")


def test_curves_follow_the_chosen_quantity_and_methods(opened):
    assert opened.locator("#curve-key option:checked").text_content() == "training accuracy of attempt 2"
    pictures = [_picture(opened)]
    opened.select_option("#curve-key", "kl_t1")
    pictures.append(_picture(opened))
    button = opened.locator("#curve-legend button").first
    button.click()
    assert button.get_attribute("aria-pressed") == "false"
    pictures.append(_picture(opened))
    assert len(set(pictures)) == 3


def test_curves_zoom_by_mouse_and_by_button_and_say_where_one_points(opened):
    told = opened.locator("#curve-range")
    assert told.text_content() == "Updates 1 to 40."
    over = opened.locator("#curve-plot .u-over")
    over.scroll_into_view_if_needed()
    box = over.bounding_box()
    opened.mouse.move(box["x"] + box["width"] / 4, box["y"] + 50)
    opened.mouse.down()
    opened.mouse.move(box["x"] + box["width"] / 2, box["y"] + 60, steps=4)
    opened.mouse.up()
    low, high = map(float, re.findall(r"[\d.]+\d", told.text_content()))
    assert low == pytest.approx(1 + 39 / 4, abs=0.5)
    assert high == pytest.approx(1 + 39 / 2, abs=0.5)
    shown = float(opened.locator("#curve-legend button", has_text="score_full").locator("output").text_content())
    assert 0 < shown < 1
    opened.click("#zoom-out")
    opened.click("#zoom-all")
    assert told.text_content() == "Updates 1 to 40."
    opened.click("#zoom-in")
    assert told.text_content() == "Updates 10.75 to 30.25."


def test_the_legend_shows_colour_and_dash_of_each_method(tmp_path, browser):
    for i in range(11):
        rows = synthetic.records((0.5, 0.1, 0.1, 0), i, problems=3)
        synthetic.write_run(tmp_path, f"row{i}", 1, rows, logged=synthetic.steps(10, i))
    (tmp_path / "page.html").write_text(report.build_report(tmp_path, figures=False), encoding="utf-8")
    tab = browser.new_page()
    tab.goto((tmp_path / "page.html").as_uri())
    look = "(line) => line.getAttribute('stroke') + line.getAttribute('stroke-dasharray')"
    looks = tab.evaluate(f"[...document.querySelectorAll('#curve-legend line')].map({look})")
    assert len(looks) == len(set(looks)) == 11
    assert sum(look.endswith("6 3") for look in looks) == 3
    tab.close()


def test_figures_are_shown_and_enlarge_on_click(opened):
    images = opened.locator("#figures img")
    assert images.count() >= 6
    images.first.scroll_into_view_if_needed()
    decoded = (
        "async () => { const i = document.querySelector('#figures img'); await i.decode(); return i.naturalWidth }"
    )
    assert opened.evaluate(decoded) > 100
    small = images.first.bounding_box()["width"]
    opened.locator("button.enlarge").first.click()
    assert opened.locator("#large-image").bounding_box()["width"] > 1.5 * small
    assert "figure=figure-1-answer" in opened.url
    opened.keyboard.press("Escape")
    assert opened.locator("#large").is_hidden()
    assert "figure" not in opened.evaluate("location.hash")
    assert opened.evaluate("document.activeElement.className") == "enlarge"


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
    figure = opened.evaluate("getComputedStyle(document.querySelector('figure img')).filter")
    assert ("invert" in figure) == dark
    opened.click("#all-rows")
    assert opened.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), "the page scrolls sideways"


@pytest.mark.parametrize(("width", "color_scheme"), [(400, "dark"), (1280, "light")])
def test_axe_finds_nothing(browser, page, tmp_path, width, color_scheme):
    """axe-core's rules, on one trajectory and on all rows at a problem; its script needs a page without our policy."""
    file = tmp_path / "report.html"
    file.write_text(page, encoding="utf-8")
    context = browser.new_context(
        viewport={"width": width, "height": 900}, color_scheme=color_scheme, bypass_csp=True, is_mobile=width < 500
    )
    tab = context.new_page()
    tab.goto(file.as_uri())
    tab.add_script_tag(path=AXE)
    tab.select_option("#f-method", "maths_row")
    tab.locator("#list button").first.click()
    for look in ("one", "all"):
        if look == "all":
            tab.click("#all-rows")
        found = tab.evaluate("axe.run(document, {resultTypes: ['violations']})")
        assert [(v["id"], v["nodes"][0]["html"][:200]) for v in found["violations"]] == []
        assert len(found["passes"]) > 30
    context.close()
