"""Names and what they mean: the column heads of the tables, in one sentence each (tooltips and glossary of the report
page); the figures and their axes."""

from __future__ import annotations

import re

_LAST = "the last attempt"
DEFINITIONS = {  # (pattern of a whole head) -> definition; docs/statistics.md has the same with sources
    r"Method": "A row: one method with its settings, named by its gin file, over all its seeds.",
    r"Acc@t(\d+)": "Share of problems whose attempt {0} is right.",
    r"Acc at the last attempt": f"Share of problems for which {_LAST} is right.",
    r"Δ(\(t1,t\d+\))?": f"Accuracy of {_LAST} minus accuracy of attempt 1, in points.",
    r"Δi→c": f"Fixed: share of all problems that are wrong at attempt 1 and right at {_LAST}.",
    r"Δc→i": f"Broken: share of all problems that are right at attempt 1 and wrong at {_LAST}.",
    r"p\(t1=t\d+\)": f"p-value of the hypothesis that attempt 1 and {_LAST} are equally accurate.",
    r"per first attempt": "Accuracy over all fixed first attempts alike, not over each problem's mean.",
    r"seeds": "How many training runs, each from its own random seed, are in the numbers.",
    r"majority@2": "Accuracy of the vote of two sampled first attempts: what two answers give without correction.",
    r"responses": "How many replies the training of one seed sampled.",
    r"updates": "How many gradient updates the training of one seed made.",
    r"difference from parent": "The settings in which this row differs from the row that it varies.",
    r"fix rate": f"Of the problems with a wrong attempt 1, the share for which {_LAST} is right.",
    r"break rate": f"Of the problems with a right attempt 1, the share for which {_LAST} is wrong.",
    r"P\(change \| wrong\)": f"Of the problems with a wrong attempt 1, the share for which {_LAST} is another answer.",
    r"P\(change \| right\)": f"Of the problems with a right attempt 1, the share for which {_LAST} is another answer.",
    r"P\(right \| wrong, changed\)": "Of the problems with a wrong attempt 1 and another last answer, the share for "
    "which the new answer is right.",
    r"answer change": f"Share of problems for which the answers of attempt 1 and of {_LAST} differ.",
    r"edit ratio": "Insertion and deletion distance between the two texts, over the sum of their lengths: 0 is a copy.",
    r"unchanged": "Share of problems for which the last text is a copy of the first.",
    r"no answer": "Share of attempts in which the verifier found no answer.",
    r"truncated": "Share of attempts that hit the limit of length.",
    r"timeout": "Share of attempts that the verifier could not grade within its time limit.",
    r"error": "Share of attempts on which the verifier failed; they pay nothing and count as not right.",
    r"tokens": "Tokens that the policy wrote for one problem, over all attempts.",
    r"t2 after own": "Accuracy of attempt 2 after the row's own attempt 1.",
    r"right|wrong": "Accuracy of attempt 2 after a draft that is {head}.",
    r"other": "Accuracy of attempt 2 after the row's attempt 1 at another problem.",
    r"base's": "Accuracy of attempt 2 after the base model's attempt 1.",
    r"relabelled": "Accuracy of attempt 2 when the row's own attempt 1 is told in the user's turn.",
    r"blind": "Accuracy when the problem is asked again without a draft.",
    r"reliance": "Of the problems for which the own draft and another problem's give different answers, the share on "
    "which the answer of attempt 2 changes with the draft.",
    r"gain over blind": "Accuracy of attempt 2 minus that without a draft, on the same problems: what the draft is "
    "worth.",
    r"gain over other": "Accuracy of attempt 2 minus that after another problem's draft, on the same problems.",
    r"role gap": "Accuracy of attempt 2 minus that with the draft told in the user's turn, on the same problems.",
    r"no right / wrong draft": "Problems for which no right, no wrong draft was found; they are in no rate.",
    r"problems": "How many problems were asked.",
    r"sampled tokens": "Tokens that training sampled, from the policy or the base model; a mean over seeds.",
    r"read tokens": "Tokens that the sampler read in training: prompts, instructions and given replies.",
    r"trained tokens": "Tokens with a weight or a KL coefficient, counted in every update that fits them.",
    r"FLOPs": "Floating-point operations of the training, by the formula of docs/budgets.md.",
    r"test tokens per problem": "Tokens that the policy wrote for one test problem, over all attempts.",
    r"seeds that escaped": "Seeds whose evaluations in mid-training show that attempt 2 has become the better one.",
    r"median": "Updates by which half of the seeds have escaped, by Kaplan and Meier, with 95 % bounds.",
    r"each seed": "Updates until each seed escaped; > is a seed that had not at its last evaluation.",
    r"seeds of each": "How many training runs of every base model are in the numbers.",
    r"Acc@t\d+ − .*'s": "Accuracy of the last attempt minus that of the untrained row, paired by base and problem.",
    r"Comparison": "The two rows that are compared, the first minus the second.",
    r"difference": "Accuracy of the one minus that of the other, in points, paired by problem.",
    r"p": "p-value of the hypothesis that there is no difference.",
    r"p \(Holm\)": "The p-value corrected for all comparisons of this table (Holm).",
    r"smallest shown": "The difference that these data would show four times in five.",
    r"p \(same within .+\)": "p-value of the hypothesis that the difference is at least as large as the margin.",
    r"within .+\?": "Whether the 90 % interval of the difference lies within the margin to either side.",
    r"seeds for .+": "How many seeds it takes to show a difference of the margin four times in five.",
    r"MBPP-R": "Share of wrong programs of MBPP-R that were repaired (the paper's number).",
    r"Run": "The run's folder below the results.",
    r"Why": "What keeps the run out, or what a reader must know of it.",
    r"Row in a table": "Whether the run is in the tables all the same.",
}  # fmt: skip
WORDS = {  # terms that are no column head, for the glossary
    "attempt": "One graded reply to a problem. Attempt 2 is written after the problem, attempt 1 and the instruction "
    "to correct it.",
    "trajectory": "One problem with the attempts made on it, in order.",
    "i→c, c→i, c→c, i→i": "The outcome of a trajectory: incorrect (i) or correct (c) at attempt 1, then at the last.",
    "interval": "95 %, in brackets, over seeds and problems together unless the table says otherwise.",
    "greedy": "Decoding that takes the most probable token at every place: without chance.",
    "control": "An evaluation of second attempts after another draft than the policy's own.",
    "gold answer": "What the verifier compares an answer with, or the tests that it runs.",
    "verifier": "What grades a reply: right or wrong, its status, the answer that it found in it.",
}

METRIC_AXES = {  # quantities of `leaderboard.Row.cells` that a figure can be of -> its axis
    "t1": "accuracy of attempt 1, %", "last": "accuracy of the last attempt, %", "delta": "Δ, points",
    "i_to_c": "wrong → right, % of problems", "c_to_i": "right → wrong, % of problems",
    "answer_change": "changed answers, %", "edit_ratio": "edit ratio, %", "unchanged": "copied texts, %",
    "change_if_wrong": "changed where wrong, %", "change_if_right": "changed where right, %",
    "right_if_changed": "right where wrong and changed, %", "majority_2": "majority of two samples, %",
}  # fmt: skip
# The figures of harness.analysis.plots, for a command line that is read before matplotlib is imported.
FIGURE_NAMES = (
    "answer", "accuracy", "scaling", "edit_distance", "edit_distance_splits", "fixed_against_own", "training",
    "answer_change", "attempts", "discount", "flow", "seeds", "budget_curves", "escape", "kl_first",
    "farming", "bonus_sweep", "controls",
)  # fmt: skip


def define_head(head: str) -> str:
    """The definition of a column head; '' where there is none."""
    for pattern, text in DEFINITIONS.items():
        if found := re.fullmatch(pattern, head):
            return text.format(*found.groups(), head=head)
    return ""
