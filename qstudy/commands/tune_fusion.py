"""`qstudy tune-fusion`."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

from annotated_types import Ge, Le

from qstudy.errors import UserError
from qstudy.fields import Seed, checked
from qstudy.files import file_hash, require_file, require_other
from qstudy.locks import try_lock
from qstudy.recognize.options import BEAM, Decoding, FusionSettings, Width, save_fusion

Trials = Annotated[int, Ge(1), Le(100_000)]


def tune_fusion(
    model: Path,
    manifest: Path,
    out: Path,
    lm: Path,
    source_lm: Path | None = None,
    trials: int = 50,
    beam: int = BEAM,
    search: Literal["time", "alignment"] = "time",
    seed: int = 0,
    cache: Path = Path("cache"),
    skip_broken: bool = False,
    trust: Path | None = None,
) -> None:
    """Find how much language models count: the weights with the fewest word errors on a dev set.

    Every trial decodes the set by beam search with other weights; the encoder runs once for all of them. Trials are
    kept in an SQLite file beside --out: the same command goes on after an interruption, and more --trials add to them.
    One command at a time works on a file.

    Args:
        model: A packed model (.qst) or a checkpoint (.ckpt).
        manifest: JSON lines with audio_filepath, duration, text: a dev set, not the one that is reported.
        out: JSON file of the language models and their weights, for `qstudy evaluate --fusion`.
        lm: Language model of the texts to come: packed (.qst) or n-grams (.arpa, .arpa.gz).
        source_lm: Language model of the texts that the recognizer was trained on: density ratio fusion.
        trials: Weights to try.
        beam: Hypotheses that are kept.
        search: As in `qstudy evaluate`.
        seed: Of the sampler.
        cache: Folder of the feature cache.
        skip_broken: Leave out utterances with broken audio or text, instead of stopping.
        trust: A Python file of yours whose classes model files may name; they can run no other code.
    """
    checked(Trials, trials, "--trials")
    checked(Width, beam, "--beam")
    checked(Seed, seed, "--seed")
    models = [file for file in (lm, source_lm) if file is not None]
    require_file(out)
    storage = out.with_name(f"{out.name}.trials.db")
    for file in (out, storage):
        require_other(file, "--out", model, manifest, *models, *([trust] if trust else []))
    from qstudy.data.feature_set import FeatureSet
    from qstudy.data.manifest import identity
    from qstudy.named import trusting
    from qstudy.recognize.build import load_each
    from qstudy.recognize.encoded import EncodedSet
    from qstudy.sweep.decoding.fusion import open_fusion_study, study_name, tried, tune_weights
    from qstudy.training.load import load_recognizer

    with trusting(trust):
        recognizer = load_recognizer(model)
        external, source = load_each((lm, source_lm), recognizer.tokenizer)
    assert external is not None  # its file is
    features = FeatureSet.open(manifest, recognizer.features, recognizer.tokenizer, cache / "features", skip_broken)
    dev, decoding = EncodedSet(recognizer, features, str(manifest)), Decoding(decode="beam", beam=beam, search=search)
    inputs = [*map(file_hash, (model, *models)), identity(manifest)]
    with _alone(out):
        study = open_fusion_study(storage, study_name(inputs, beam, search, seed))
        found = tune_weights(study, dev, decoding, external, source, trials, seed)
        without = tried(study)[0].value or 0.0
        told = {"wer": found.value, "without": without, "trials": trials, "beam": beam, "search": search}
        settings = FusionSettings(lm=lm, source_lm=source_lm, **found.params)
        save_fusion(out, settings, {**told, "model": str(model), "manifest": str(manifest)})
    weights = ", ".join(f"{name} {value:.3f}" for name, value in found.params.items())
    print(f"{trials} trials on {manifest}: WER {100 * without:.2f} % without language models.")
    print(f"Best: WER {100 * (found.value or 0.0):.2f} % with {weights}; written to {out}.")
    searched = f"--decode beam --beam {beam} --search {search} --fusion {out}"
    print(f"Next: qstudy evaluate {model} --manifest TEST {searched}{f' --trust {trust}' if trust else ''}")


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Nobody else works on the file meanwhile: a trial that another began would be taken for an interrupted one."""
    if (lock := try_lock(out.with_name(f"{out.name}.lock"))) is None:
        raise UserError(f"--out: another `qstudy tune-fusion` is writing {out} now; wait for it, or name another file.")
    with lock:
        yield
