"""Tokenizers: there and back, self-contained, and clear about what they cannot spell."""

import json
import unicodedata
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qstudy.data.tokenizer import ALPHABET, CharTokenizer, SentencePieceTokenizer, Tokenizer, tokenizer_from_dict
from qstudy.errors import UserError

TEXTS = [
    f"{verb} the {thing} {place}"
    for verb in ("turn on", "turn off", "don't dim")
    for thing in ("light", "lamp", "music", "heating")
    for place in ("in the kitchen", "upstairs", "next door")
]


@pytest.fixture(scope="module", params=["characters", "sentencepiece"])
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    return CharTokenizer() if request.param == "characters" else SentencePieceTokenizer.train(TEXTS, 60)


def test_there_and_back(tokenizer: Tokenizer) -> None:
    for text in [*TEXTS, ""]:
        labels = tokenizer.encode(text)
        assert tokenizer.decode(labels) == text
        assert all(1 <= label < tokenizer.size for label in labels)


def test_rebuilt_from_json(tokenizer: Tokenizer) -> None:
    again = tokenizer_from_dict(json.loads(json.dumps(tokenizer.to_dict())))
    assert again.size == tokenizer.size
    assert [again.encode(text) for text in TEXTS] == [tokenizer.encode(text) for text in TEXTS]


def test_any_labels_have_a_text(tokenizer: Tokenizer) -> None:
    assert isinstance(tokenizer.decode(list(range(1, tokenizer.size))), str)


def test_outside_character_is_named(tokenizer: Tokenizer) -> None:
    with pytest.raises(UserError, match="'é' in the text 'turn on the café'"):
        tokenizer.encode("turn on the café")


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_a_text_comes_back_as_it_is_written(form: Literal["NFC", "NFD"]) -> None:
    """Not composed, nor with ligatures and fractions taken apart: references are compared as they are written."""
    texts = [unicodedata.normalize(form, text) for text in ("café noir", "crème brûlée", "ﬁve ½ ｗide")]
    tokenizer = SentencePieceTokenizer.train(texts * 3, 40)
    assert [tokenizer.decode(tokenizer.encode(text)) for text in texts] == texts


@given(st.text(ALPHABET))
def test_characters_are_exact(text: str) -> None:
    assert CharTokenizer().decode(CharTokenizer().encode(text)) == text


def test_sizes() -> None:
    assert CharTokenizer().size == 29
    assert CharTokenizer("ab").encode("ba") == [2, 1]
    pieces = SentencePieceTokenizer.train(TEXTS, 60)
    assert pieces.size == 60
    assert len(pieces.encode(TEXTS[0])) < len(TEXTS[0])


@pytest.mark.parametrize("size", [5, 100_000], ids=["too few", "too many"])
def test_impossible_size(size: int) -> None:
    with pytest.raises(UserError, match=f"size {size} does not suit"):
        SentencePieceTokenizer.train(TEXTS, size)


WRONG: list[dict[str, object]] = [
    {},
    {"kind": "words"},
    {"kind": "characters"},
    {"kind": "characters", "alphabet": "aa"},
    {"kind": "characters", "alphabet": 3},
    {"kind": "sentencepiece", "model": "!"},
    {"kind": "sentencepiece", "model": "QUJD"},
]


@pytest.mark.parametrize("wrong", WRONG, ids=str)
def test_wrong_description(wrong: dict[str, object]) -> None:
    with pytest.raises(UserError, match="tokenizer"):
        tokenizer_from_dict(wrong)
