"""What does not belong into an answer."""

from __future__ import annotations

import pytest

from penstock_postprocess.clean import cut_at_stop, drop_control_tokens, drop_cut_character


@pytest.mark.parametrize(
    ("text", "expected", "count"),
    [
        ("Yes.<|im_end|>", "Yes.", 1),
        ("<|im_start|>Yes.<|eot_id|>\n", "Yes.\n", 2),
        ("a <|b c|> d <|>", "a <|b c|> d <|>", 0),
        ("use `<|im_end|>` here", "use `<|im_end|>` here", 0),
        ("```\n<|im_end|>\n```\n<|im_end|>", "```\n<|im_end|>\n```\n", 1),
        ("```\n<|im_end|>", "```\n<|im_end|>", 0),
        ("<PERSON_1> <|x|>", "<PERSON_1> ", 1),
        ("", "", 0),
    ],
)
def test_control_tokens_go_but_not_out_of_code(text: str, expected: str, count: int) -> None:
    assert drop_control_tokens(text) == (expected, count)


@pytest.mark.parametrize(
    ("text", "expected", "count"),
    [("ab\ufffd", "ab", 1), ("ab\ufffd\ufffd", "ab", 1), ("a\ufffdb", "a\ufffdb", 0), ("ab", "ab", 0)],
)
def test_a_cut_character_goes_at_the_end_alone(text: str, expected: str, count: int) -> None:
    assert drop_cut_character(text) == (expected, count)


@pytest.mark.parametrize(
    ("text", "stop", "expected", "count"),
    [
        ("one END", ("END",), "one ", 1),
        ("one END two", ("two", "END"), "one ", 1),
        ("one", ("END",), "one", 0),
        ("one", (), "one", 0),
        ("<PERSON_1> END", ("_1>",), "<PERSON", 1),
    ],
)
def test_text_ends_before_the_first_stop_string(text: str, stop: tuple[str, ...], expected: str, count: int) -> None:
    assert cut_at_stop(text, stop) == (expected, count)
