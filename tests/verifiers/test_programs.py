"""Finding the program in messy model output."""

from __future__ import annotations

# ruff: noqa: E501  (programs and answers are quoted as they are)
import ast
import gc
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from verifiers.sandbox.programs import canonical_program, extract_program

PROMPT = 'from typing import List\n\n\ndef total(xs: List[int]) -> int:\n    """Sum of xs.\n    >>> total([1, 2])\n    3\n    """\n'
WHOLE = "def total(xs):\n    return sum(xs)"
OTHER = "def helper():\n    return 1"

MESSY = {
    "bare program": WHOLE,
    "completion": "    return sum(xs)\n",
    "completion without its first indentation": "return sum(xs)",
    "completion of several lines, first one bare": "result = 0\n    for x in xs:\n        result += x\n    return result",
    "completion then a new function": "    return sum(xs)\n\n\ndef main():\n    print(total([1]))\n",
    "completion then prose": "    return sum(xs)\n\nThis function adds the numbers up.",
    "completion then a fence": "    return sum(xs)\n```\nExplanation: it sums.",
    "fenced": f"Here is the code:\n```python\n{WHOLE}\n```\nDone.",
    "fence without a language": f"```\n{WHOLE}\n```",
    "fence in capitals": f"```Python\n{WHOLE}\n```",
    "tilde fence": f"~~~python\n{WHOLE}\n~~~",
    "unclosed fence": f"Sure.\n```python\n{WHOLE}\n",
    "prompt opened the fence": f"{WHOLE}\n```\nThis works.",
    "two versions, the last counts": f"```python\ndef total(xs):\n    return 0\n```\nWait, better:\n```python\n{WHOLE}\n```",
    "usage after the program": f"```python\n{WHOLE}\n```\nUse it:\n```python\nprint(total([1, 2]))\n```",
    "shell block after it": f"```python\n{WHOLE}\n```\n```bash\npython total.py\n```",
    "output block after it": f"```python\n{WHOLE}\n```\n```output\n3\n```",
    "helper in a block of its own": f"```python\n{OTHER}\n```\nand\n```python\n{WHOLE}\n```",
    "fenced body": "```python\n    return sum(xs)\n```",
    "fence inside a list": "1. Write:\n   ```python\n   def total(xs):\n       return sum(xs)\n   ```\n",
    "begin and done": f"[BEGIN]\n{WHOLE}\n[DONE]",
    "the prompt held [BEGIN]": f"{WHOLE}\n[DONE]\nNext problem ...",
    "begin, done and fence": f"[BEGIN]\n```python\n{WHOLE}\n```\n[DONE]",
    "python tags": f"[PYTHON]\n{WHOLE}\n[/PYTHON]",
    "windows line ends": f"```python\r\n{WHOLE}\r\n```".replace("\n", "\r\n").replace("\r\r", "\r"),
    "prose around bare code": f"To solve this we add:\n\n{WHOLE}\n\nThat is all there is to it.",
    "prompt repeated": PROMPT + "    return sum(xs)\n",
    "byte order mark": "\ufeff" + WHOLE,
    "assigned lambda": "```python\ntotal = lambda xs: sum(xs)\n```",
    "indented as a whole": "    def total(xs):\n        return sum(xs)\n",
    "backticks in a docstring": '```python\ndef total(xs):\n    """Adds `xs`."""\n    return sum(xs)\n```',
    "fence behind the last line": f"```python\n{WHOLE}```",
    "fence inside a docstring": '```python\ndef total(xs):\n    """\n    ```\n    total([1])\n    ```\n    """\n    return sum(xs)\n```',
    "chat mark after it": f"{WHOLE}<|im_end|>\n<|im_start|>user",
    "end of sentence": f"{WHOLE}</s>",
    "end mark behind a completion": "    return sum(xs)<|endoftext|>",
    "prose, then the body": "Here is the completed function:\n\n    return sum(xs)\n",
    "fenced body without any indentation": "```python\nresult = 0\nfor x in xs:\n    result += x\nreturn result\n```",
    "broken off after the program": f"```python\n{WHOLE}\n\ndef helper(",
    "another language's print after it": f"{WHOLE}\nprint total([1, 2])",
    "hard blanks": "def total(xs):\n\u00a0\u00a0\u00a0\u00a0return sum(xs)",
    "thinking before it": f"<think>\n```python\ndef total(xs):\n    return 0\n```\n</think>\n```python\n{WHOLE}\n```",
    "async and decorators": "```python\nimport functools\n\n@functools.cache\ndef cached(n):\n    return n\n\ndef total(xs):\n    return sum(xs)\n```",
}


@pytest.mark.parametrize("name", MESSY)
def test_messy_answers_give_a_program_that_works(name):
    program = extract_program(MESSY[name], PROMPT, ["total"])
    assert program is not None
    names: dict = {}
    exec(compile(program, "<program>", "exec"), names)
    assert names["total"]([1, 2, 3]) == 6


@pytest.mark.parametrize(
    "text",
    [
        "",
        "   \n",
        "I cannot solve this.",
        "```python\n```",
        "```python\ndef total(xs:\n```",
        "def other():\n    return 1",
    ],
)
def test_answers_without_a_program_give_none(text):
    assert extract_program(text, PROMPT, ["total"]) is None or "total" not in text


def test_no_program_without_a_prompt_to_continue():
    assert extract_program("return 5", "", ["total"]) is None
    assert extract_program("just words here", "", []) is None


def test_equal_programs_are_one_answer_whatever_their_formatting():
    tidy = "def f(a, b):\n    return a + b"
    assert canonical_program("def f( a,b ):  # sum\n  return (a+b)\n") == tidy == canonical_program(tidy)
    assert canonical_program("def f(a, b):\n    return a - b") != tidy
    assert canonical_program("no program (") == "no program ("
    assert canonical_program("(" * 5_000) == "(" * 5_000
    deep = "x = " + "-" * 3_000 + "1"
    assert canonical_program(deep) in (deep, deep.replace("- ", "-"))


def test_threads_parse_while_garbage_is_collected():
    """Several at once raised SystemError before Python 3.11.8 (python/cpython#106905): a collection lets others go on."""
    code = "def f(x):\n" + "".join(
        f"    y{i} = [a + ({i} * (x - (1 if a else 2))) for a in range(9)]\n" for i in range(40)
    )

    def pause(*_: object) -> None:
        time.sleep(1e-4)

    thresholds = gc.get_threshold()
    gc.callbacks.append(pause)
    gc.set_threshold(50)
    try:
        with ThreadPoolExecutor(8) as threads:
            assert len(set(threads.map(canonical_program, [code + "#" * i for i in range(200)]))) == 1
    finally:
        gc.set_threshold(*thresholds)
        gc.callbacks.remove(pause)


def test_hostile_text_is_answered():
    for text in ("(" * 100_000, "[" * 50_000 + "]" * 50_000, "-" * 90_000 + "1", "```" * 60_000, "def " * 50_000, "\0"):
        program = extract_program(text, PROMPT, ["total"])
        assert program is None or ast.parse(program)
