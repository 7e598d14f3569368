"""`qstudy train` and `qstudy evaluate`."""

import json as json_format
from pathlib import Path
from typing import Literal

from qstudy.data.cache import FeatureSet
from qstudy.errors import UserError
from qstudy.files import content_hash, write_text
from qstudy.load import load_recognizer
from qstudy.training.config import RunConfig, to_dict
from qstudy.training.devices import join
from qstudy.training.evaluation import recognize, score
from qstudy.training.run import MODEL_FILE, run


def train(config: RunConfig, out: Path | None = None, name: str | None = None) -> None:
    """Train one model under one policy; the same command goes on where it stopped.

    Args:
        config: YAML file with any of the fields below; later options override it.
        out: Folder of the run; by default runs/NAME.
        name: Of the run; by default the policy and a hash of the configuration.
    """
    name = name or f"{config.policy.get('name')}-{content_hash(to_dict(config))[:8]}"
    folder = out or Path("runs") / name
    record = run(config, folder, name=name)
    if not join(config.trainer).is_global_zero:
        return
    for label, scores in record["metrics"].items():
        low, high = 100 * scores["wer_low"], 100 * scores["wer_high"]
        print(f"{label}: WER {100 * scores['wer']:.2f} % (95 %: {low:.2f}-{high:.2f}), {scores['words']} words")
    latency = ", ".join(f"{value['latency_ms']:.2f} ms on {key}" for key, value in record["latency"].items())
    print(f"{folder / MODEL_FILE}: {record['size_bytes']:,} bytes; simulated latency {latency}")
    print(f"Next: qstudy transcribe {folder / MODEL_FILE} some.wav")


def evaluate(
    model: Path,
    manifest: Path,
    decode: Literal["greedy"] = "greedy",
    json: bool = False,
    hypotheses: Path | None = None,
    cache: Path = Path("cache"),
    skip_broken: bool = False,
) -> None:
    """Word and character error rates of a model on a manifest.

    Args:
        model: A packed model (.qst) or a checkpoint (.ckpt).
        manifest: JSON lines with audio_filepath, duration, text.
        decode: How labels are searched.
        json: Print one JSON object instead of a line of text.
        hypotheses: File to write the recognized texts to, one JSON line per utterance.
        cache: Folder of the feature cache.
        skip_broken: Leave out utterances with broken audio or text, instead of stopping.
    """
    recognizer = load_recognizer(model)
    features = FeatureSet.open(manifest, recognizer.features, recognizer.tokenizer, cache / "features", skip_broken)
    if not len(features):
        raise UserError(f"{manifest} has no utterance to evaluate.")
    texts, seconds = recognize(recognizer.model, features, recognizer.tokenizer, manifest.name)
    scores = score(features, texts, seconds)
    if hypotheses is not None:
        pairs = zip(features.texts, texts, strict=True)
        lines = [json_format.dumps({"reference": r, "hypothesis": h}, ensure_ascii=False) for r, h in pairs]
        write_text(hypotheses, "\n".join(lines) + "\n")
    if json:
        print(json_format.dumps({"model": str(model), "manifest": str(manifest), "decode": decode, **scores}))
        return
    print(
        f"WER {100 * scores['wer']:.2f} % (95 %: {100 * scores['wer_low']:.2f}-{100 * scores['wer_high']:.2f}), "
        f"CER {100 * scores['cer']:.2f} %; {scores['substitutions']} substitutions, {scores['insertions']} insertions, "
        f"{scores['deletions']} deletions in {scores['words']} words of {scores['utterances']} utterances; "
        f"real-time factor {scores['rtf']:.4f}"
    )
