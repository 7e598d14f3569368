"""`qstudy train-lm`."""

from pathlib import Path
from typing import Annotated

from annotated_types import Ge, Le

from qstudy.errors import UserError
from qstudy.fields import checked, with_order
from qstudy.files import content_hash, require_other, safe_name
from qstudy.training.language_config import LanguageConfig, to_dict

NgramOrder = Annotated[int, Ge(1), Le(20)]


def train_lm(
    config: LanguageConfig, out: Path | None = None, name: str | None = None, ngram: int | None = None
) -> None:
    """Train a language model of a recognizer's labels; the same command goes on where it stopped.

    Args:
        config: YAML file with any of the fields below; later options override it.
        out: Folder of the run, by default runs/NAME; with --ngram the file to write, x.arpa or x.arpa.gz.
        name: Of the run; by default the policy and a hash of the configuration.
        ngram: Order of an n-gram model over the labels (modified Kneser-Ney), in place of an LSTM; policy and schedules
            are not its.
    """
    checked(NgramOrder | None, ngram, "--ngram")
    if ngram is not None:
        _train_ngram(config, out, ngram)
        return
    from qstudy.recognize.perplexity import lines_of
    from qstudy.training.language_run import run_language
    from qstudy.training.record import MODEL_FILE

    name = safe_name(name or f"lm-{config.policy['name']}-{content_hash(with_order(to_dict(config)))[:8]}", "--name")
    folder = out or Path("runs") / name
    require_other(folder / MODEL_FILE, "--out", *(Path(each) for each in (config.start, config.like) if each))
    record = run_language(config, folder, name)
    if not record:  # of several processes the first speaks
        return
    written = f"{folder / MODEL_FILE}: {record['size_bytes']:,} bytes"
    print("\n".join([*lines_of(record["perplexity"], record["skipped"]), written]))


def _train_ngram(config: LanguageConfig, out: Path | None, order: int) -> None:
    from qstudy.model.arpa import write_arpa
    from qstudy.model.ngram import NgramLanguageModel
    from qstudy.recognize.language import ARPA, is_arpa
    from qstudy.recognize.perplexity import lines_of, perplexity
    from qstudy.training.kneser_ney import estimate
    from qstudy.training.language_run import open_sources

    if out is None or not is_arpa(out):
        raise UserError(f"--out: an n-gram model is a file whose name ends in {' or '.join(ARPA)}; name one.")
    sources = open_sources(config)
    require_other(out, "--out", *(Path(each) for each in (config.text, config.dev, config.like) if each is not None))
    ngrams = estimate(sources.text.labels, sources.tokenizer.size, order)
    write_arpa(out, ngrams, sources.tokenizer.names())
    scored = {"dev": sources.dev} if sources.dev is not None else {}
    model = NgramLanguageModel(ngrams)
    scores = {key: perplexity(model, texts.labels, texts.words).to_dict() for key, texts in scored.items()}
    skipped = {"text": sources.text.skipped, **{key: texts.skipped for key, texts in scored.items()}}
    counts = ", ".join(f"{len(each.codes):,} {n}-grams" for n, each in enumerate(ngrams.orders, 1))
    print("\n".join([*lines_of(scores, skipped), f"{out}: {counts}"]))
