"""The grammar of commands: closed, several hundred words, endlessly many sentences, the tokenizer's letters only."""

import itertools
import random
import re

import pytest

from qstudy.data.corpora import grammar
from qstudy.data.corpora.grammar import GRAMMAR, RULES, distinct_sentences, sentence, vocabulary
from qstudy.data.tokenizer import CharTokenizer
from qstudy.errors import UserError


def test_every_slot_has_a_rule_and_every_rule_is_used():
    slots = {name for options in RULES.values() for option in options for name in re.findall(r"\{(.*?)\}", option)}
    assert slots | {"sentence"} == set(RULES)
    assert all(option for options in RULES.values() for option in options)
    assert len(RULES) == len(re.findall(r"^[a-z ]+ = ", GRAMMAR, re.M))


def test_vocabulary_is_several_hundred_words_and_all_occur():
    found = {word for text in distinct_sentences(20000, random.Random(0), set()) for word in text.split()}
    assert found == vocabulary()
    assert 450 <= len(found) <= 600


def test_sentences_fit_the_character_tokenizer():
    tokenizer = CharTokenizer()
    for seed in range(300):
        text = sentence(random.Random(seed))
        assert tokenizer.decode(tokenizer.encode(text)) == text
        assert 2 <= len(text.split()) <= 20


def test_sentences_are_distinct_repeatable_and_not_taken():
    taken = set(distinct_sentences(500, random.Random(1), set()))
    more = distinct_sentences(3000, random.Random(1), set(taken))
    assert len(set(more)) == 3000
    assert not taken & set(more)
    assert more == distinct_sentences(3000, random.Random(1), set(taken))


def test_more_sentences_than_there_are_end_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = itertools.cycle(sorted({sentence(random.Random(seed), "home") for seed in range(400)}))
    monkeypatch.setattr(grammar, "PATIENCE", 100)
    monkeypatch.setattr(grammar, "sentence", lambda *_: next(parts))  # a domain of four hundred
    with pytest.raises(UserError, match=r"--domain: home has hardly more than"):
        grammar.distinct_sentences(100_000, random.Random(0), set(), "home")
