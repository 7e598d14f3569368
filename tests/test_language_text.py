"""Text for language models: two domains of commands, strings of digits, files; nothing of a test set."""

import json
import random
from pathlib import Path

import pytest

from qstudy.cli import main
from qstudy.data.corpora import sentences
from qstudy.data.corpora.commands import commands
from qstudy.data.corpora.corpus import require_recipe
from qstudy.data.corpora.digits import WORDS
from qstudy.data.corpora.grammar import RULES, distinct_sentences, sentence, topics, vocabulary
from qstudy.data.manifest import read_manifest
from qstudy.data.tokenizer import CharTokenizer
from qstudy.errors import UserError
from qstudy.training.language_text import read_texts


def made(tmp_path: Path, *options: str) -> list[str]:
    out = tmp_path / "text.txt"
    main(["data", "text", "--out", str(out), *options])
    return out.read_text(encoding="utf-8").splitlines()


def test_domains_are_halves_whose_words_differ() -> None:
    home, world = vocabulary("home"), vocabulary("world")
    assert sorted([*topics("home"), *topics("world")]) == sorted(RULES["sentence"]) == sorted(topics("all"))
    assert len(topics("home")) == len(topics("world"))
    assert home | world == vocabulary()
    assert min(len(home - world), len(world - home)) > 100
    found = {word for text in distinct_sentences(20000, random.Random(0), set(), "home") for word in text.split()}
    assert found == home


def test_the_whole_grammar_is_what_it_was_before_there_were_domains() -> None:
    """Corpora of older versions stay valid: their sentences are drawn anew to be told from others."""
    generator = random.Random("0 test")
    assert [sentence(generator) for _ in range(3)] == FORMER


FORMER = [
    "what was the score of the giants game last week",
    "turn the dining room speaker up",
    "order six boxes of salt",
]


def test_a_corpus_of_a_domain(tmp_path: Path) -> None:
    sizes = {"train": 4, "dev": 2, "test": 2}
    for domain in ("all", "home"):
        commands(tmp_path / domain, **sizes, domain=domain, processes=1)
    home, whole = (json.loads((tmp_path / domain / "corpus.json").read_text()) for domain in ("home", "all"))
    assert home.pop("domain") == "home"
    assert home == whole
    texts = [item.text for split in sizes for item in read_manifest(tmp_path / "home" / f"{split}.jsonl")]
    assert {word for text in texts for word in text.split()} <= vocabulary("home")
    for there, here in (("all", "home"), ("home", "all"), ("home", "world")):
        with pytest.raises(UserError, match=f"domain {there} there, {here} here"):
            require_recipe(tmp_path / there, {"corpus": "commands", "domain": here})
        require_recipe(tmp_path / there, {"corpus": "commands", "domain": there})


def test_text_of_a_domain_without_the_sentences_of_manifests(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    every = made(tmp_path, "--domain", "world", "--lines", "4000", "--exclude", "[]")
    assert len(every) == 4000
    assert {word for line in every for word in line.split()} <= vocabulary("world")
    assert len(set(every)) < 4000
    held = tmp_path / "held.txt"
    held.write_text("\n".join(every[:500]))
    manifest = corpus / "test.jsonl"
    rest = made(tmp_path, "--domain", "world", "--lines", "4000", "--exclude", f"[{held}, {manifest}]")
    said = capsys.readouterr().out.splitlines()[-2]
    assert len(rest) == 4000
    assert not set(rest) & {*every[:500], *(item.text for item in read_manifest(manifest))}
    assert int(said.rpartition(": ")[2].replace(",", "")) >= 500
    taken = {*every[:500], *(item.text for item in read_manifest(manifest))}
    kept = [line for line in every if line not in taken]
    assert rest[: len(kept)] == kept


def test_strings_of_digits(tmp_path: Path) -> None:
    lines = made(tmp_path, "--source", "digits", "--lines", "300", "--exclude", "[]")
    assert {len(line.split()) for line in lines} == {3, 4, 5, 6, 7}
    assert lines == made(tmp_path, "--source", "digits", "--lines", "300", "--exclude", "[]")
    assert lines != made(tmp_path, "--source", "digits", "--lines", "300", "--exclude", "[]", "--seed", "1")


def test_numbers_in_digits(tmp_path: Path) -> None:
    every = made(tmp_path, "--source", "numbers", "--lines", "2000", "--exclude", "[]")
    assert sum(line.startswith("four one five") for line in every) == pytest.approx(0.1 * 2000, rel=0.25)
    held = tmp_path / "held.txt"
    held.write_text("\n".join(every[:200]))
    rest = made(tmp_path, "--source", "numbers", "--lines", "2000", "--exclude", f"[{held}]")
    assert len(rest) == 2000
    assert not set(rest) & set(every[:200])


def test_a_file(tmp_path: Path) -> None:
    source = tmp_path / "source.txt"
    source.write_text("It’s HERE,\n\n  naïve -- “yes”\nIt's here!\n", encoding="utf-8")
    assert made(tmp_path, "--source", str(source), "--exclude", "[]") == ["it's here", "naive yes", "it's here"]
    assert made(tmp_path, "--source", str(source), "--lines", "1", "--exclude", "[]") == ["it's here"]


def test_words_are_one_space_apart_however_they_are_written(tmp_path: Path) -> None:
    """As in manifests: two spaces are no label that a recognizer ever learned."""
    text = tmp_path / "text.txt"
    text.write_text("turn  on\tthe fan \n\n\u00a0stop\n", encoding="utf-8")
    found = read_texts(text, CharTokenizer(), skip_unknown=False)
    assert [CharTokenizer().decode(labels) for labels in found.labels] == ["turn on the fan", "stop"]
    assert (found.words, found.skipped) == (5, 0)


def test_a_file_with_a_byte_order_mark(tmp_path: Path) -> None:
    """As Windows writes it: the mark is no character of the first line."""
    marked = tmp_path / "marked.txt"
    marked.write_text("yes\n\nno\n", encoding="utf-8-sig")
    assert sentences.numbered_lines(marked) == [(1, "yes"), (3, "no")]
    source = tmp_path / "source.txt"
    source.write_text("no\nyes\nstop\n", encoding="utf-8")
    assert made(tmp_path, "--source", str(source), "--exclude", f"[{marked}]") == ["stop"]


def test_what_is_excluded_of_a_file_is_told_however_it_is_written(tmp_path: Path) -> None:
    texts = ["It’s HERE,", "naïve -- “yes”", "What time is it?", "Stop!"]
    source, held = tmp_path / "source.txt", tmp_path / "held.txt"
    source.write_text("\n".join(texts), encoding="utf-8")
    held.write_text("\n".join(texts[:2]), encoding="utf-8")
    manifest = tmp_path / "held.jsonl"
    manifest.write_text(json.dumps({"audio_filepath": "a.wav", "duration": 1, "text": texts[2]}))
    assert made(tmp_path, "--source", str(source), "--exclude", f"[{held}, {manifest}]") == ["stop"]


def test_a_file_is_read_to_its_end_however_much_is_excluded(tmp_path: Path) -> None:
    every = [f"{one} {other}" for one in WORDS for other in WORDS]
    source, held = tmp_path / "source.txt", tmp_path / "held.txt"
    source.write_text("\n".join([every[0]] * (sentences.PATIENCE + 2) + every), encoding="utf-8")
    held.write_text(every[0])
    assert made(tmp_path, "--source", str(source), "--exclude", f"[{held}]") == every[1:]


def test_a_grammar_of_which_hardly_anything_is_left_is_given_up(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    held = tmp_path / "held.txt"
    held.write_text(made(tmp_path, "--source", "digits", "--lines", "1", "--exclude", "[]")[0])
    monkeypatch.setattr(sentences, "PATIENCE", 0)
    with pytest.raises(SystemExit):
        made(tmp_path, "--source", "digits", "--exclude", f"[{held}]")
    assert "nearly all sentences of digits are in these files" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--source", "gone.txt", "--exclude", "[]"], "Cannot read gone.txt"),
        (["--source", "digits", "--domain", "home", "--exclude", "[]"], "only commands have domains"),
        (["--exclude", "[gone.jsonl]"], "gone.jsonl"),
        (["--lines", "0", "--exclude", "[]"], "--lines"),
        ([], "exclude"),
    ],
)
def test_bad_input(tmp_path: Path, options: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        made(tmp_path, *options)
    assert stopped.value.code == 2
    assert said in capsys.readouterr().err


def test_a_text_that_would_replace_what_is_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    held = tmp_path / "text.txt"
    held.write_text("turn on the fan\n")
    with pytest.raises(SystemExit):
        made(tmp_path, "--exclude", f"[{held}]")
    assert "choose another name" in capsys.readouterr().err
    assert held.read_text() == "turn on the fan\n"


def test_everything_excluded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "source.txt"
    source.write_text("yes\n")
    with pytest.raises(SystemExit):
        made(tmp_path, "--source", str(source), "--exclude", f"[{source}]")
    assert "has no sentence that is not in a file of --exclude" in capsys.readouterr().err
