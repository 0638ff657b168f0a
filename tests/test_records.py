"""harness.runs.schema: what a record may be, quickly for a whole file and slowly for a line, with one answer."""

from __future__ import annotations

import math

import pytest
import synthetic

from harness.runs import schema as records


@pytest.fixture
def rows():
    found = synthetic.records((0.5, 0.2, 0.1, 0.2), 1, problems=5, given=True)
    found[1] |= {"split": "train", "prompt": "a problem", "extra_tokens": 3}
    found[2]["attempts"][0]["flag"] = "compat"
    return found


def test_a_whole_file_of_good_records_has_no_fault(rows) -> None:
    assert records.find_faults(rows) == {}
    assert [records.record_fault(row) for row in rows] == [""] * 5
    assert records.find_faults([]) == {}


@pytest.mark.parametrize(
    ("where", "key", "value", "fault"),
    [
        ("record", "id", 7, "id is 7, not a text of 1 to 10,000 characters"),
        ("record", "id", "", 'id is "", not a text of 1 to 10,000 characters'),
        ("record", "when", "during", 'when is "during", not one of before, after'),
        ("record", "split", "tset", 'split is "tset", not one of test, validation, train'),
        ("record", "sample", True, "sample is true, not an integer from 0"),
        ("record", "temperature", -0.5, "temperature is -0.5, not a finite number from 0"),
        ("record", "attempts", [], "attempts is [], not a list of objects"),
        ("record", "extra_tokens", -1, "extra_tokens is -1, not an integer from 0"),
        ("attempt", "correct", "false", 'attempt 2: correct is "false", not true or false'),
        ("attempt", "correct", 1, "attempt 2: correct is 1, not true or false"),
        ("attempt", "tokens", None, "attempt 2: tokens is null, not an integer from 0"),
        ("attempt", "reward", math.nan, "attempt 2: reward is NaN, not a finite number"),
        ("attempt", "status", "great",
         'attempt 2: status is "great", not one of ok, no_answer, truncated, timeout, error'),
        ("attempt", "by", None, "attempt 2: by is null, not one of policy, given, reference"),
        ("attempt", "answer", 5, "attempt 2: answer is 5, not a text of 0 to 1,048,576 characters or null"),
        ("attempt", "flag", [1], "attempt 2: flag is [1], not a text of 1 to 10,000 characters"),
    ],
)  # fmt: skip
def test_a_fault_is_named_in_its_record_and_in_no_other(rows, where, key, value, fault) -> None:
    (rows[3] if where == "record" else rows[3]["attempts"][1])[key] = value
    assert records.find_faults(rows) == {3: fault}


def test_what_is_missing_is_named_together(rows) -> None:
    del rows[0]["id"], rows[0]["sample"], rows[4]["attempts"][0]["tokens"]
    assert records.find_faults(rows) == {0: "id, sample are missing", 4: "attempt 1: tokens is missing"}


def test_a_line_of_the_log_is_kept_if_its_step_grows_and_its_odd_values_are_left_out() -> None:
    lines = [
        {"phase": "a", "step": 1, "x": 0.5, "on": True, "none": None},
        {"phase": "a", "step": 1, "x": 0.6},
        {"phase": "a", "x": 0.7},
        {"phase": "b", "step": 3, "x": math.inf, "y": "0.1", "z": 2},
    ]
    kept, faults = records.check_steps(enumerate(lines, 1))
    assert kept == [lines[0], {"phase": "b", "step": 3, "z": 2}]
    assert faults == [
        "line 2: step 1 stands behind step 1",
        "line 3: step is nothing, not an integer from 1",
        'line 4: "x" is Infinity, not a finite number',
        'line 4: "y" is "0.1", not a finite number',
    ]
    assert [records.curve_value(lines[0], key) for key in ("x", "on", "none", "other")] == [0.5, None, None, None]
