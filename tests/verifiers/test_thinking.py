"""The final text of a response that thinks aloud: one rule for math and code."""

from __future__ import annotations

import time

import pytest

from verifiers.thinking import final_text

SPLIT = "def f(s):\n    return s.split('</think>')[-1]"


@pytest.mark.parametrize(
    ("text", "final"),
    [
        ("The answer is 5.", "The answer is 5."),
        ("", ""),
        ("<think> maybe 7</think> The answer is 5.", " The answer is 5."),
        ("opened by the prompt, maybe 7</think>\n5", "\n5"),
        ("<think>a</think> b </think> c", " c"),
        ("<think>a <think> b </think> c", " c"),
        ("<think>a</think> b <think>c</think> d", " d"),
        ("<think>a</think>", ""),
        ("<think> so maybe \\boxed{5}", None),
        ("5 <think> or 6", None),
        ("<think>a</think> 5 <think> or 6", None),
        ("I'll see. <think> it's \\boxed{5}, isn't it", None),
        ("```\n<think>\n```python\nx = 1\n```", None),
        ("```python\nx = (\n</think>\n```python\ny = 1\n```", "\n```python\ny = 1\n```"),
        ("<think>I split at '</think>' and\n```python\nx = 1\n</think>\n5", "\n5"),
    ],
)
def test_what_stands_behind_the_thinking(text, final):
    assert final_text(text) == final


@pytest.mark.parametrize(
    "answer",
    [
        SPLIT,
        f"```python\n{SPLIT}\n```",
        f"Here:\n```python\n{SPLIT}\n```\nIt cuts at `</think>`, or at '<think>'.",
        "    return s.replace('<think>', '').replace(\"</think>\", '')",
        "def f(s):\n    # <think> is cut\n    return s[7:]",
        'def f(s):\n    """\n    <think>\n    """\n    return s',
        '```python\nTEXT = """\n<think>\na\n</think>\n"""\ndef f(s):\n    return TEXT\n```\nDone.',
        "return re.sub(r'<think>.*?</think>', '', s)  # the model's own",
        "```python\ndef f(s): return s[s.find(f'<think>{1}') :]\nprint f(1)\n```",
    ],
)
@pytest.mark.parametrize("thought", ["", "<think>\n```python\ndef f(\n</think>", "so I cut it there.\n</think>"])
def test_markers_inside_a_program_are_part_of_it(answer, thought):
    assert final_text(f"{thought}\n{answer}" if thought else answer) == (f"\n{answer}" if thought else answer)


def test_many_markers_cost_little():
    started = time.process_time()
    assert final_text("<think>" * 100_000) is None
    assert final_text("x = '</think>\n" * 10_000 + "</think>5") == "5"
    assert final_text("'" * 100_000 + "<think>") is None
    assert time.process_time() - started < 5
