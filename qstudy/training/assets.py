"""What a run reads: its tokenizer and its feature sets; made if the configuration says how."""

import importlib
import inspect
import io
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentError, ArgumentParser

from qstudy.data.corpora import CORPORA
from qstudy.data.corpora.corpus import is_unfinished, require_recipe
from qstudy.data.feature_set import FeatureSet
from qstudy.data.manifest import groups_of, read_manifest
from qstudy.data.tokenizer import CharTokenizer, Labels, SentencePieceTokenizer, Tokenizer, tokenizer_from_dict
from qstudy.errors import UserError
from qstudy.fields import checked
from qstudy.files import content_hash, read_json, write_json
from qstudy.locks import locked
from qstudy.named import build, imported
from qstudy.training.config import RunConfig


@dataclass
class Assets:
    """Tokenizer and feature sets of a run."""

    tokenizer: Tokenizer
    train: FeatureSet
    dev: FeatureSet
    test: dict[str, FeatureSet]
    groups: dict[str, list[int]] = field(default_factory=dict)
    """Of the sets below: the group of each utterance, where utterances share speakers or recordings."""

    @property
    def evaluated(self) -> dict[str, FeatureSet]:
        """The sets that a finished model is scored on."""
        return {"dev": self.dev, **self.test}


def open_assets(config: RunConfig) -> Assets:
    """Open tokenizer and feature sets; the corpus and its features are made on first use.

    Raises:
        UserError: a manifest is missing or has broken utterances.
    """
    make_corpus(config)
    tokenizer = open_tokenizer(config)

    def open_set(manifest: str) -> FeatureSet:
        cache = Path(config.cache) / "features"
        return FeatureSet.open(Path(manifest), config.features, tokenizer, cache, config.data.skip_broken)

    test = {name: open_set(manifest) for name, manifest in config.data.test.items()}
    dev = open_set(config.data.dev)  # small sets first: what is wrong there shows before the long work
    assets = Assets(tokenizer, open_set(config.data.train), dev, test)
    manifests = {"dev": config.data.dev, **config.data.test}
    found = {name: groups_of(Path(manifests[name]), each.lines.tolist()) for name, each in assets.evaluated.items()}
    return replace(assets, groups={name: groups for name, groups in found.items() if groups})


def make_corpus(config: RunConfig) -> None:
    """Make the corpus if its training manifest is missing and the configuration says how to make that one.

    Raises:
        UserError: it cannot be made, or lies there already, made from another recipe.
    """
    if not config.data.make:
        return
    corpus, options = _corpus_options(config.data.make)
    if not config.data.is_makeable:
        return
    if not _is_there(config, options):
        with locked(Path(f"{config.data.train}.lock"), "Waiting for another process, which makes the same corpus."):
            if not _is_there(config, options):
                _make_corpus(corpus, options)
    require_recipe(options["out"], {"corpus": corpus, **options})


def _is_there(config: RunConfig, options: Mapping[str, Any]) -> bool:
    return Path(config.data.train).exists() and not is_unfinished(options["out"])


def _corpus_options(make: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The corpus that `data.make` names, and all of its maker's options, checked as on the command line."""
    values = dict(make)
    corpus = str(values.pop("corpus", None))
    parser = ArgumentParser(exit_on_error=False)
    parser.add_function_arguments(corpus_maker(corpus), as_group=False)
    try:
        return corpus, vars(parser.instantiate(parser.parse_object(values)))
    except (ArgumentError, TypeError) as error:
        raise UserError(f"data.make: {' '.join(str(error).split())}") from error


def _make_corpus(corpus: str, options: dict[str, Any]) -> None:
    said = io.StringIO()
    with redirect_stdout(said):
        corpus_maker(corpus)(**options)
    print(said.getvalue().partition("Next:")[0].rstrip())  # the corpus's hint what to do next is for who asked for it


def corpus_maker(corpus: str) -> Callable[..., None]:
    """The function that makes a corpus, as `qstudy data` calls it, or the user's own by its import path.

    Raises:
        UserError: there is no such corpus, or the user's own is not a function with the parameter `out`.
    """
    if corpus in CORPORA:
        maker: Callable[..., None] = getattr(importlib.import_module(f"qstudy.data.corpora.{corpus}"), corpus)
        return maker
    own = imported(corpus, CORPORA, "data.make.corpus")
    if not inspect.isfunction(own) or "out" not in inspect.signature(own).parameters:
        raise UserError(f"data.make.corpus: {corpus!r} is not a function with the parameter `out`, a folder.")
    return own


def open_tokenizer(config: RunConfig) -> Tokenizer:
    """The tokenizer that the configuration names; SentencePiece learns from the training texts, once."""

    def sentencepiece(size: Labels) -> Tokenizer:
        manifest = Path(config.data.train)
        texts = [utterance.text for utterance in read_manifest(manifest)]
        learned = Path(config.cache) / "tokenizers" / f"{content_hash(texts, size)}.json"
        if not learned.exists():
            write_json(learned, SentencePieceTokenizer.train(texts, size).to_dict())
        return tokenizer_from_dict(read_json(learned))

    tokenizer: Tokenizer = build(
        config.tokenizer, {"characters": CharTokenizer, "sentencepiece": sentencepiece}, "tokenizer"
    )
    return tokenizer


def label_count(config: RunConfig) -> int:
    """V, the number of labels with blank, known without reading any text."""
    options = config.tokenizer
    if options["name"] == "sentencepiece" and "size" in options:
        return int(checked(Labels, options["size"], "tokenizer.size"))
    return open_tokenizer(config).size
