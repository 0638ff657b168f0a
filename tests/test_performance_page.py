"""docs/performance.md: its measured tables are what the committed results say."""

from __future__ import annotations

import pytest

from benchmarks import pages


def test_the_pages_tables_are_written_from_the_results() -> None:
    text = pages.PAGE.read_text()
    assert pages.fill(text) == text, "run python -m benchmarks.pages"


def test_a_page_without_a_marked_part_is_refused() -> None:
    with pytest.raises(ValueError, match="<!-- step -->"):
        pages.fill("no marks")


def test_a_steps_tables_say_ratios_bounds_and_the_fraction_of_the_peak() -> None:
    phases = dict.fromkeys(pages.PHASES, 0.0)

    def side(seconds: float, peak: float, **more: object) -> dict[str, object]:
        return {"cpu_s": seconds, "cpu_s_all": [seconds], "peak_mb": peak, "phases": phases | {"sample": 1.0}, **more}

    products = {"sample": {"operations": 1e9, "alone": 0.25, "fraction": 0.25}}
    sides = {
        "ours": side(2.0, 40, products=products),
        "former": side(3.0, 100, ratio=[1.5, 1.4, 1.6]),
        "trl": side(6.0, 120, ratio=[3.0, 2.9, 3.1]),
    }
    work = {"rounds": 3, "shape": {"num_hidden_layers": 30}}
    item = {"workload": "long_prompt", "kl": 0.0, "gate": {"loss": 1e-6}, "load": 0.5, "work": work, "sides": sides}
    text = pages.describe_step({**pages.describe_machine(), "results": [item]})
    assert "| long_prompt | 0 | trl | 6.00 (6.00-6.00) | 3.00 (2.90-3.10) | 120 |" in text
    assert "| long_prompt | 0 | CPU seconds, trl / ours | 3.0 | 3.00 | 6.00 | 24.00 |" in text
    assert "| long_prompt | 0 | peak memory, ours / former | 0.50 | 0.40 |  |  |" in text
    assert "| long_prompt | 0 | sample | 1.00 | 0.250 | 1.000 | 4 | 25 % |" in text


def test_a_growth_that_doubles_with_its_size_bends_where_work_decides() -> None:
    points = [{"value": v, "sample": s, "gradient": 1.0} for v, s in ((1, 1.0), (2, 1.2), (8, 4.8))]
    even = {"model": "m", "predicted": 0.2, "plain": 2.0, "shared": 1.5}
    report = {"rounds": 1, "load": 0.0, "base": {"samples": 2}, "growth": {"samples": points}, "sharing": [even]}
    text = pages.describe_growth({**pages.describe_machine(), **report})
    assert "| samples | 1 to 8 | sample | 1.2, 2.0 | 8 |" in text
    assert "| samples | 1 to 8 | gradient | 1.0, 1.0 | not reached |" in text
    assert "| m | 20 % | 2.000 | 1.500 | 25 % |" in text
