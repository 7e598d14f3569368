"""`qstudy evaluate`."""

import json as json_format
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from qstudy.arguments import given_files
from qstudy.errors import UserError
from qstudy.files import require_file, require_other, write_text
from qstudy.recognize.options import Decoding, told


def evaluate(
    model: Path,
    manifest: Path,
    decoding: Decoding,
    pass_: Literal["first", "last"] = "last",
    json: bool = False,
    hypotheses: Path | None = None,
    cache: Path = Path("cache"),
    skip_broken: bool = False,
    trust: Path | None = None,
) -> None:
    """Word and character error rates of a model on a manifest.

    The real-time factor is seconds of decoding per second that is heard: of speech and of the silence after it (the
    model's `features.tail_ms`).

    Args:
        model: A packed model (.qst) or a checkpoint (.ckpt).
        manifest: JSON lines with audio_filepath, duration, text.
        decoding: YAML file of how labels are searched: any of decode, beam, search, prune, max_labels, lm, lm_weight,
            source_lm, source_weight, length_reward, fusion.
        pass_: Which pass of a cascaded encoder is decoded.
        json: Print one JSON object instead of a line of text.
        hypotheses: File to write the recognized texts to, one JSON line per utterance.
        cache: Folder of the feature cache.
        skip_broken: Leave out utterances with broken audio or text, instead of stopping.
        trust: A Python file of yours whose classes model files may name; they can run no other code.
    """
    from qstudy.data.feature_set import FeatureSet
    from qstudy.data.manifest import groups_of
    from qstudy.named import trusting
    from qstudy.recognize.build import build_decoder
    from qstudy.recognize.score import recognize, score
    from qstudy.training.load import load_recognizer

    if hypotheses is not None:
        require_file(hypotheses)
    if hypotheses is not None and hypotheses.exists():
        given = [path for path in (trust, *_language_files(decoding)) if path is not None]
        require_other(hypotheses, "--hypotheses", model, manifest, *given_files, *given, *_sounds(manifest))
    with trusting(trust):
        recognizer = load_recognizer(model)
        decoder = build_decoder(decoding, recognizer.tokenizer)
    recognizer.decode_from(pass_)
    features = FeatureSet.open(manifest, recognizer.features, recognizer.tokenizer, cache / "features", skip_broken)
    if not len(features):
        raise UserError(f"{manifest} has no utterance to evaluate.")
    groups = groups_of(manifest, features.lines.tolist())  # before what takes long, meanwhile the file may be edited
    texts, seconds = recognize(recognizer.model, features, recognizer.tokenizer, manifest.name, decoder)
    scores = score(features, texts, seconds, groups)
    asked = {"model": str(model), "manifest": str(manifest), **told(decoding), "pass": pass_}
    print(json_format.dumps({**asked, **scores}) if json else _sentence(scores), flush=True)
    if hypotheses is not None:  # last: the scores are told even where nothing can be written
        pairs = zip(features.texts, texts, strict=True)
        lines = [json_format.dumps({"reference": r, "hypothesis": h}, ensure_ascii=False) for r, h in pairs]
        write_text(hypotheses, "\n".join(lines) + "\n")


def _sentence(scores: Mapping[str, Any]) -> str:
    return (
        f"WER {100 * scores['wer']:.2f} % (95 %: {100 * scores['wer_low']:.2f}-{100 * scores['wer_high']:.2f}), "
        f"CER {100 * scores['cer']:.2f} %; {scores['substitutions']} substitutions, {scores['insertions']} insertions, "
        f"{scores['deletions']} deletions in {scores['words']} words of {scores['utterances']} utterances; "
        f"real-time factor {scores['rtf']:.4f}"
    )


def _language_files(decoding: Decoding) -> tuple[Path | None, ...]:
    settings = decoding.fusion_settings()
    return decoding.fusion, settings.lm, settings.source_lm


def _sounds(manifest: Path) -> Iterator[Path]:
    """The sound files of the lines that can be read; the others are told of later."""
    from qstudy.data.manifest import manifest_lines, parse_line

    for line in manifest_lines(manifest):
        with suppress(UserError):
            yield parse_line(line, manifest).audio
