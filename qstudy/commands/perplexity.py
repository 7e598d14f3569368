"""`qstudy perplexity`."""

import json as json_format
from pathlib import Path

from qstudy.errors import UserError


def perplexity(
    model: Path,
    text: Path,
    like: Path | None = None,
    skip_unknown: bool = False,
    json: bool = False,
    trust: Path | None = None,
) -> None:
    """How well a language model predicts a text: the smaller, the better.

    Args:
        model: A packed language model (.qst) or an n-gram model (.arpa, .arpa.gz).
        text: Text file, one sentence per line.
        like: The recognizer whose labels an n-gram model is over (.qst or .ckpt); others know theirs.
        skip_unknown: Leave out lines with characters that no label covers, and count them, instead of stopping.
        json: Print one JSON object instead of a line of text.
        trust: A Python file of yours whose classes model files may name; they can run no other code.
    """
    from qstudy.named import trusting
    from qstudy.recognize.language import is_arpa, load_language_model
    from qstudy.recognize.perplexity import lines_of
    from qstudy.recognize.perplexity import perplexity as score
    from qstudy.training.language_text import read_texts
    from qstudy.training.load import load_tokenizer

    if is_arpa(model) and like is None:
        raise UserError(f"--like: {model} does not say what its labels are; name the recognizer.")
    with trusting(trust):
        tokenizer = load_tokenizer(like or model)
        loaded = load_language_model(model, tokenizer)
    texts = read_texts(text, tokenizer, skip_unknown)
    found = score(loaded, texts.labels, texts.words).to_dict()
    if json:
        print(json_format.dumps({"model": str(model), "text": str(text), "skipped": texts.skipped, **found}))
    else:
        print("\n".join(lines_of({str(text): found}, {str(text): texts.skipped})))
