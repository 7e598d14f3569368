"""N-gram models: the ARPA file, back-off look-up against a plain one and kenlm, and their estimation."""

import gzip
import math
import os
import random
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qstudy.data.corpora.grammar import sentence
from qstudy.data.tokenizer import CharTokenizer, SentencePieceTokenizer
from qstudy.errors import UserError
from qstudy.model import ngram
from qstudy.model.arpa import Ngrams, read_arpa, write_arpa
from qstudy.model.ngram import NgramLanguageModel
from qstudy.training.kneser_ney import FALLBACK, estimate

TOKENIZER = CharTokenizer("ab ")
NAMES = TOKENIZER.names()
HAND = r"""
\data\
ngram 1=5
ngram 2=4
ngram 3=1

\1-grams:
-0.5228787	</s>
-99	<s>	-0.30103
-0.39794	a	-0.1760913
-0.69897	b	-0.09691
-1	▁

\2-grams:
-0.2218487	<s> a	-0.2
-0.39794	a a	-0.15
-0.5228787	a b
-0.69897	b </s>

\3-grams:
-0.09691	<s> a a

\end\
"""


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "x.arpa"
    path.write_text(text, encoding="utf-8")
    return path


def log10_rows(model: NgramLanguageModel, text: str) -> list[list[float]]:
    """What follows the start of a text and each of its labels."""
    state, rows = model.start(1, torch.device("cpu")), []
    for label in [0, *TOKENIZER.encode(text)]:
        row, state = model.advance(torch.tensor([label]), state)
        rows.append((row[0] / math.log(10)).tolist())
    return rows


def test_back_off_by_hand(tmp_path: Path) -> None:
    """Columns: end, a, b, space. The rows of this file do not quite sum to one, so that differences are compared."""
    rows = np.array(log10_rows(NgramLanguageModel(read_arpa(written(tmp_path, HAND), NAMES)), "aab "))
    expected = np.array(
        [
            [-0.5228787 - 0.30103, -0.2218487, -0.69897 - 0.30103, -1 - 0.30103],
            # after `<s> a`: its weight, then that of `a`
            [-0.5228787 - 0.1760913 - 0.2, -0.09691, -0.5228787 - 0.2, -1 - 0.1760913 - 0.2],
            # `<s> a a` is of the highest order: the state is `a a`
            [-0.5228787 - 0.1760913 - 0.15, -0.39794 - 0.15, -0.5228787 - 0.15, -1 - 0.1760913 - 0.15],
            [-0.69897, -0.39794 - 0.09691, -0.69897 - 0.09691, -1 - 0.09691],
            [-0.5228787, -0.39794, -0.69897, -1.0],
        ]
    )
    expected -= np.log10((10**expected).sum(1, keepdims=True))
    np.testing.assert_allclose(rows, expected, atol=1e-6)


def test_what_is_left_for_the_unknown_goes_to_labels_that_are_not_listed(tmp_path: Path) -> None:
    text = HAND.replace("-1\t▁", "-1\t<unk>")
    row = log10_rows(NgramLanguageModel(read_arpa(written(tmp_path, text), NAMES)), "")[0]
    assert row == log10_rows(NgramLanguageModel(read_arpa(written(tmp_path, HAND), NAMES)), "")[0]
    without = HAND.replace("ngram 1=5", "ngram 1=4").replace("-1\t▁\n", "")
    with pytest.raises(UserError, match="lack label 3"):
        NgramLanguageModel(read_arpa(written(tmp_path, without), NAMES))


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("\\end\\", "", "line 23: the file ends before"),
        ("\\data\\", "", "the file ends before"),
        ("ngram 2=4", "ngram 3=4", "line 4: 'ngram 3=4' stands where the count of order 2"),
        ("ngram 2=4", "ngram 2=5", r"there are 4 2-grams, but \\data\\ promises 5"),
        (
            "-0.39794	a	",
            "-0.39794	hello	",
            "line 10: 'hello' is not a label of the recognizer.*not over words",
        ),
        ("-0.39794	a	", "0.39794	a	", "'0.39794' is not a log-probability"),
        ("-0.39794	a	", "-1e300	a	", "'-1e300' is not a log-probability"),
        ("-0.1760913", "1e300", "'1e300' is not a back-off"),
        ("-0.39794	a	", "-inf	a	", "'-inf' is not a log-probability"),
        ("-0.1760913", "nan", "'nan' is not a back-off"),
        ("a b", "a a", "line 17: 'a a' occurs twice"),
        ("a b", "a b b b", "a 2-gram has 2 labels"),
        ("a b", "</s> b", "only begins"),
        ("-0.5228787	</s>", "-0.5228787	<unk>", "lack </s>"),
        ("<s> a a", "<s> a a	-1", "a 3-gram has 3 labels"),
        ("\\2-grams:", "\\4-grams:", "stands where"),
    ],
)
def test_what_is_no_arpa_file_is_named_with_its_line(tmp_path: Path, old: str, new: str, said: str) -> None:
    path = written(tmp_path, HAND.replace(old, new, 1))
    with pytest.raises(UserError, match=said) as error:
        read_arpa(path, NAMES)
    assert str(path) in str(error.value)


def test_a_context_must_be_listed(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="order 3 is listed, but not"):
        NgramLanguageModel(read_arpa(written(tmp_path, HAND.replace("<s> a a", "b b a")), NAMES))


def test_compressed_and_cut_short(tmp_path: Path) -> None:
    packed = tmp_path / "x.arpa.gz"
    packed.write_bytes(gzip.compress(HAND.encode()))
    plain = read_arpa(written(tmp_path, HAND), NAMES)
    for one, other in zip(read_arpa(packed, NAMES).orders, plain.orders, strict=True):
        assert np.array_equal(one.codes, other.codes)
    packed.write_bytes(gzip.compress(HAND.encode())[:-20])
    with pytest.raises(UserError, match="not a complete ARPA file"):
        read_arpa(packed, NAMES)
    with pytest.raises(UserError, match="There is no language model"):
        read_arpa(tmp_path / "gone.arpa", NAMES)


def test_the_same_model_is_the_same_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compressed too, whenever it is written: it is told from others by its hash."""
    model = estimate([*map(TOKENIZER.encode, ["a b ab", "ba b"])], TOKENIZER.size, 2)
    for number in range(2):
        write_arpa(tmp_path / f"{number}.arpa.gz", model, TOKENIZER.names())
        monkeypatch.setattr("time.time", lambda: 0.0)
    first, second = (tmp_path / f"{number}.arpa.gz" for number in range(2))
    assert first.read_bytes() == second.read_bytes()
    write_arpa(tmp_path / "plain.arpa", model, TOKENIZER.names())
    assert gzip.decompress(first.read_bytes()) == (tmp_path / "plain.arpa").read_bytes()


@pytest.mark.parametrize("name", ["x.arpa", "x.arpa.gz"])
def test_a_byte_order_mark_is_read_over_and_never_written(tmp_path: Path, name: str) -> None:
    marked = HAND.strip().encode("utf-8-sig")
    path = tmp_path / name
    path.write_bytes(gzip.compress(marked) if path.suffix == ".gz" else marked)
    read = read_arpa(path, NAMES)
    assert [len(order.codes) for order in read.orders] == [5, 4, 1]
    write_arpa(path, read, NAMES)
    content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    assert content.startswith(b"\\data\\\n")


def test_no_file_but_a_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.arpa")
    with pytest.raises(UserError, match="is not a file"):
        read_arpa(tmp_path / "x.arpa", NAMES)


CHANGES = st.lists(
    st.tuples(
        st.integers(0, len(HAND)),
        st.integers(0, 12),
        st.sampled_from(["", "a", "\t", "\n", "9", "-", "\\", "1e999", "\0"]),
    ),
    min_size=1,
    max_size=3,
)


@given(CHANGES)
@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_was_changed_is_read_or_refused(tmp_path: Path, changes: list[tuple[int, int, str]]) -> None:
    text = HAND
    for place, removed, added in changes:
        text = text[:place] + added + text[place + removed :]
    try:
        model = NgramLanguageModel(read_arpa(written(tmp_path, text), NAMES))
    except UserError:
        return
    rows = torch.tensor(log10_rows(model, "aab b"))
    torch.testing.assert_close((10**rows).sum(1), torch.ones(6))


def test_names_of_labels() -> None:
    assert NAMES == ["a", "b", "▁"]
    with pytest.raises(UserError, match="stands for it"):
        CharTokenizer("a ▁").names()
    pieces = SentencePieceTokenizer.train(["the cat sat on the mat"] * 20, 24).names()
    assert len(pieces) == 23
    assert not any(name.split() != [name] for name in pieces)


def grammar_texts(count: int, seed: int = 0) -> list[list[int]]:
    generator = random.Random(seed)
    return [CharTokenizer().encode(sentence(generator)) for _ in range(count)]


@pytest.fixture(scope="module")
def four_grams() -> Ngrams:
    return estimate(grammar_texts(400), CharTokenizer().size, 4)


def test_rows_are_the_same_whether_kept_or_found_anew(four_grams: Ngrams, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = NgramLanguageModel(four_grams)
    monkeypatch.setattr(ngram, "DENSE", 0)
    anew = NgramLanguageModel(four_grams)
    assert kept._rows is not None
    assert anew._rows is None
    states = [model.start(8, torch.device("cpu")) for model in (kept, anew)]
    generator = torch.Generator().manual_seed(0)
    for _ in range(30):
        labels = torch.randint(0, kept.labels, (8,), generator=generator)
        (first, states[0]), (second, states[1]) = kept.advance(labels, states[0]), anew.advance(labels, states[1])
        assert torch.equal(first, second)
        assert torch.equal(states[0][0], states[1][0])
        torch.testing.assert_close(first.exp().sum(1), torch.ones(8))


def test_hypotheses_can_be_picked_and_replaced(four_grams: Ngrams) -> None:
    model = NgramLanguageModel(four_grams)
    _, state = model.advance(torch.tensor([0, 0, 0]), model.start(3, torch.device("cpu")))
    _, state = model.advance(torch.tensor([4, 20, 9]), state)
    picked = tuple(part[:, [1, 1]] for part in state)
    rows, _ = model.advance(torch.tensor([8, 8]), picked)
    alone, _ = model.advance(torch.tensor([4, 8, 9]), state)
    assert torch.equal(rows[0], rows[1])
    assert torch.equal(rows[0], alone[1])


def plain_kneser_ney(texts: list[list[int]], labels: int, order: int):  # type: ignore[no-untyped-def]
    """Chen & Goodman's formula word by word: a function (context, label) -> probability."""
    raw: dict[int, Counter] = defaultdict(Counter)
    for text in texts:
        line = [labels, *text, 0]
        for n in range(1, order + 1):
            raw[n].update(tuple(line[i : i + n]) for i in range(len(line) - n + 1))
    del raw[1][(labels,)]
    counts = {order: raw[order]}
    for n in range(1, order):
        before = defaultdict(set)
        for gram in raw[n + 1]:
            before[gram[1:]].add(gram[0])
        counts[n] = {g: c if g[0] == labels else len(before[g]) for g, c in raw[n].items()}
    discounts = {}
    for n, level in counts.items():
        of = Counter(level.values())
        found = FALLBACK
        if of[1] and of[2] and of[3]:
            y = of[1] / (of[1] + 2 * of[2])
            estimated = tuple(j - (j + 1) * y * of[j + 1] / of[j] for j in (1, 2, 3))
            found = estimated if all(0 < d <= j for j, d in enumerate(estimated, 1)) else FALLBACK
        discounts[n] = (0.0, *found)

    def probability(context: tuple[int, ...], label: int) -> float:
        n = len(context) + 1
        after = {g[-1]: c for g, c in counts[n].items() if g[:-1] == context}
        lower = 1 / labels if n == 1 else probability(context[1:], label)
        if not after:
            return lower
        total = sum(after.values())
        own = after.get(label, 0)
        left = sum(discounts[n][min(c, 3)] for c in after.values()) / total
        return (own - discounts[n][min(own, 3)]) / total + left * lower

    return probability


@given(
    st.lists(st.lists(st.integers(1, 3), max_size=9), min_size=1, max_size=12),
    st.lists(st.integers(1, 3), max_size=6),
    st.integers(1, 4),
)
def test_estimates_are_chen_and_goodmans(texts: list[list[int]], asked: list[int], order: int) -> None:
    model, plain = NgramLanguageModel(estimate(texts, 4, order)), plain_kneser_ney(texts, 4, order)
    state = model.start(1, torch.device("cpu"))
    line = [4, *asked]
    for place, label in enumerate([0, *asked]):
        row, state = model.advance(torch.tensor([label]), state)
        context = tuple(line[max(0, place + 2 - order) : place + 1]) if order > 1 else ()
        expected = [plain(context, label) for label in range(4)]
        np.testing.assert_allclose(row[0].exp().numpy(), expected, rtol=2e-5)
        assert sum(expected) == pytest.approx(1)


def test_estimated_discounts_are_used(four_grams: Ngrams) -> None:
    """Not only the fallback: the texts above are few."""
    texts = grammar_texts(60)
    plain = plain_kneser_ney(texts, 29, 3)
    model = NgramLanguageModel(estimate(texts, 29, 3))
    state = model.start(1, torch.device("cpu"))
    for place, label in enumerate([0, *texts[0][:8]]):
        row, state = model.advance(torch.tensor([label]), state)
        context = tuple([29, *texts[0]][max(0, place - 1) : place + 1])
        assert math.exp(float(row[0, texts[0][place]])) == pytest.approx(plain(context, texts[0][place]), rel=1e-4)


def test_orders_that_cannot_be(four_grams: Ngrams) -> None:
    with pytest.raises(UserError, match="order 13 is too high for 29 labels"):
        estimate([[1]], 29, 13)
    with pytest.raises(UserError, match="no text"):
        estimate([], 29, 2)


def test_kenlm_says_the_same(four_grams: Ngrams, tmp_path: Path) -> None:
    """Of the written file, label for label, on texts with n-grams that it has never seen."""
    kenlm = pytest.importorskip("kenlm")
    tokenizer, path = CharTokenizer(), tmp_path / "x.arpa"
    write_arpa(path, four_grams, tokenizer.names())
    theirs, ours = kenlm.Model(str(path)), NgramLanguageModel(read_arpa(path, tokenizer.names()))
    texts = [*grammar_texts(20, seed=1), tokenizer.encode("zzqx' jjk"), []]
    for text in texts:
        state, found = ours.start(1, torch.device("cpu")), []
        for label, following in zip([0, *text], [*text, 0], strict=True):
            row, state = ours.advance(torch.tensor([label]), state)
            found.append(float(row[0, following]) / math.log(10))
        names = " ".join(tokenizer.names()[label - 1] for label in text)
        np.testing.assert_allclose(found, [score[0] for score in theirs.full_scores(names)], atol=2e-6)
