"""Chat templates with the traits of public ones: which token ends a reply, and what stands around it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import transformers
from factories import write_model
from tiny import CHATML, SHAPE, tokenizer
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers

from harness.policy import HF
from harness.policy.chat import ChatFormat
from harness.policy.engine import Policy

CHATML_TEMPLATE = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LLAMA2 = (
    "{% for m in messages %}{% if m['role'] == 'user' %}{{ bos_token + '[INST] ' + m['content'] | trim + ' [/INST]' }}"
    "{% else %}{{ ' ' + m['content'] | trim + ' ' + eos_token }}{% endif %}{% endfor %}"
)
MISTRAL = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}{{ '[INST] ' + m['content'] + ' [/INST]' }}"
    "{% else %}{{ ' ' + m['content'] + eos_token }}{% endif %}{% endfor %}"
)
ZEPHYR = (
    "{% for m in messages %}{{ '<|' + m['role'] + '|>\n' + m['content'] + eos_token + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)
CODER = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}{{ '### Instruction:\n' + m['content'] + '\n' }}"
    "{% else %}{{ '### Response:\n' + m['content'] + '\n<|EOT|>\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '### Response:\n' }}{% endif %}"
)
LLAMA3 = (
    "{{ bos_token }}{% for m in messages %}{{ '<|start_header_id|>' + m['role'] + '<|end_header_id|>\n\n' "
    "+ m['content'] | trim + '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
HARMONY = (
    "{% for m in messages %}{% if m['role'] == 'assistant' %}"
    "{{ '<|start|>assistant<|channel|>final<|message|>' + m['content'] + '<|end|>' }}"
    "{% else %}{{ '<|start|>' + m['role'] + '<|message|>' + m['content'] + '<|end|>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start|>assistant' }}{% endif %}"
)
USER = [{"role": "user", "content": "Hi"}]


def load(fast: Any, folder: Path, ends: list[int], **spec: Any) -> Policy:
    """A tiny Llama whose generation config names `ends`, with that tokenizer."""
    write_model(folder, fast, ends=ends, **SHAPE)
    return HF(path=str(folder), max_new_tokens=4, **spec).load("cpu")


def byte_level(special: list[str], eos: str, template: Any, bos: str | None = None) -> Any:
    fast = tokenizer(special, special[-1], eos, bos)
    fast.chat_template = template
    return fast


def pieces(scheme: str, template: str) -> Any:
    """A sentencepiece-like tokenizer: blanks are U+2581, and one is put before a text by its scheme."""
    vocab = {"<unk>": 0, "<s>": 1, "</s>": 2, **{f"<0x{i:02X}>": i + 3 for i in range(256)}}
    for letter in "\u2581abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.,?!:[]/":
        vocab[letter] = len(vocab)
    bpe = Tokenizer(models.BPE(vocab=vocab, merges=[], byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    if scheme == "legacy":
        bpe.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])  # type: ignore[assignment]
    else:
        bpe.pre_tokenizer = pre_tokenizers.Metaspace(replacement="\u2581", prepend_scheme=scheme, split=False)  # type: ignore[assignment]
    bpe.decoder = decoders.Sequence(  # type: ignore[assignment]
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=bpe, bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token="</s>"
    )
    fast.chat_template = template
    return fast


def whole(fast: Any, answer: str, ask: str | None = None) -> list[int]:
    """Token ids of the conversation rendered and tokenised at once."""
    chat = [*USER, {"role": "assistant", "content": answer}, *([{"role": "user", "content": ask}] if ask else [])]
    return fast(
        fast.apply_chat_template(chat, tokenize=False, add_generation_prompt=bool(ask)), add_special_tokens=False
    )["input_ids"]


@pytest.mark.parametrize(
    ("special", "eos", "template", "rest"),
    [
        (["<s>", "</s>", "<pad>"], "</s>", LLAMA2, "<s>[INST] Again [/INST]"),
        (["<s>", "<|EOT|>", "<pad>"], "<|EOT|>", CODER, "\n### Instruction:\nAgain\n### Response:\n"),
    ],
)
def test_the_end_token_is_found_behind_blanks(
    special: list[str], eos: str, template: str, rest: str, tmp_path: Path
) -> None:
    policy = load(byte_level(special, eos, template, "<s>"), tmp_path, [1])
    assert policy.chat.closing_token == 1
    written = policy.tokenizer("340", add_special_tokens=False)["input_ids"]
    assert policy.tokenizer.decode(policy.chat.encode_followup("Again", [*written, 1])) == rest  # the end stands once
    assert 1 in policy.chat.encode_followup("Again", written)  # of a truncated reply the template's own stands there
    opening = policy.chat.encode_opening(USER)
    assert [*opening, *policy.chat.encode_given("The answer")] == whole(policy.tokenizer, "The answer")[
        : -1 if "\n" in rest else None
    ]


@pytest.mark.parametrize("plain", [False, True])
def test_a_turns_end_that_the_files_do_not_name_ends_a_reply(plain: bool, tmp_path: Path) -> None:
    """Llama 3's <|eot_id|> is special in tokenizer.json alone; some fine-tunes add <|im_end|> as a plain token."""
    if plain:
        fast = byte_level(["<|endoftext|>"], "<|endoftext|>", CHATML_TEMPLATE)
        fast.add_tokens([AddedToken(mark, special=False) for mark in ("<|im_start|>", "<|im_end|>")])
        end, eos = "<|im_end|>", "<|endoftext|>"
    else:
        marks = ["<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|end_of_text|>"]
        fast = byte_level(marks, "<|end_of_text|>", LLAMA3, "<|begin_of_text|>")
        end, eos = "<|eot_id|>", "<|end_of_text|>"
    ids = fast.convert_tokens_to_ids([eos, end])
    policy = load(fast, tmp_path, ids[:1])
    assert policy.end_ids == ids
    reply = [*policy.tokenizer("340", add_special_tokens=False)["input_ids"], ids[1]]
    assert ids[1] not in policy.chat.encode_followup("Again", reply)[:1]
    assert [*policy.chat.encode_opening(USER), *reply, *policy.chat.encode_followup("Again", reply)] == whole(
        fast, "340", "Again"
    )


@pytest.mark.parametrize("named", [False, True])
def test_harmony_is_left_alone(named: bool, tmp_path: Path) -> None:
    """gpt-oss closes its thought with <|end|>: as an end of the reply it would empty every answer."""
    marks = ["<|start|>", "<|end|>", "<|message|>", "<|channel|>", "<|return|>", "<|endoftext|>"]
    fast = byte_level(marks, "<|return|>", HARMONY)
    if named:
        fast.add_special_tokens({"extra_special_tokens": marks})
    policy = load(fast, tmp_path, [4, 5])
    assert policy.end_ids == [4, 5]
    assert policy.chat.encode_given("340")[-1] == 4  # a target ends as the policy's own replies do


def test_of_named_templates_the_default_is_taken(tmp_path: Path) -> None:
    named = {"default": CHATML_TEMPLATE, "tool_use": "{{ 'tools' }}"}
    policy = load(byte_level(CHATML, "<|im_end|>", named), tmp_path / "a", [2])
    assert (
        policy.tokenizer.decode(policy.chat.encode_opening(USER))
        == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    )
    fast = byte_level(CHATML, "<|im_end|>", {"rag": CHATML_TEMPLATE, "tool_use": CHATML_TEMPLATE})
    with pytest.raises(ValueError, match="none is 'default': rag, tool_use"):
        ChatFormat(fast, [2], {})


@pytest.mark.parametrize("scheme", ["legacy", "first", "always", "never"])
@pytest.mark.parametrize("template", [MISTRAL, LLAMA2, ZEPHYR])
def test_pieces_are_those_of_the_whole_conversation(scheme: str, template: str) -> None:
    fast = pieces(scheme, template)
    chat = ChatFormat(fast, [2], {})
    answer = chat.encode_given("The answer")
    found = [*chat.encode_opening(USER), *answer, *chat.encode_followup("Again", answer)]
    assert found == whole(fast, "The answer", "Again")


@pytest.mark.parametrize("scheme", ["legacy", "first", "always", "never"])
def test_plain_texts_get_no_blank_between_them(scheme: str, tmp_path: Path) -> None:
    policy = load(pieces(scheme, MISTRAL), tmp_path, [2], chat="plain")
    chat, fast = policy.chat, policy.tokenizer
    written = chat.encode_given("ok")[:-1]
    at_once = [1, *fast("Hi\n\nok\n\nAgain\n\n", add_special_tokens=False)["input_ids"]]
    assert [*chat.encode_opening(USER), *written, *chat.encode_followup("Again", written)] == at_once


def test_a_given_text_is_graded_without_the_templates_blank(tmp_path: Path) -> None:
    policy = load(byte_level(["<s>", "</s>", "<pad>"], "</s>", MISTRAL, "<s>"), tmp_path, [1])
    session = policy.open([USER], 1, 0, 1.0)
    given = session.give(["def f(): pass"])
    assert policy.tokenizer.decode(given[0].tokens) == " def f(): pass</s>"
    assert given[0].text == "def f(): pass"


def test_a_template_with_tokens_the_model_has_no_row_for_is_refused(tmp_path: Path) -> None:
    policy = load(byte_level(CHATML, "<|im_end|>", CHATML_TEMPLATE), tmp_path, [2])
    fast = policy.tokenizer
    fast.add_special_tokens({"extra_special_tokens": ["<|new_start|>"]})
    fast.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"a prompt has the token '<\|new_start\|>' \(id 320\)"):
        HF(path=str(tmp_path)).load("cpu").encode_prompt([{"role": "user", "content": "<|new_start|>"}])
    fast.chat_template = CHATML_TEMPLATE.replace("<|im_start|>", "<|new_start|>")
    fast.save_pretrained(tmp_path)
    with pytest.raises(
        ValueError, match=r"the chat template has the token '<\|new_start\|>' \(id 320\).* rows for 320"
    ):
        HF(path=str(tmp_path)).load("cpu")
