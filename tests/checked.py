"""A manifest as training meets it: every file and text checked."""

from pathlib import Path

from qstudy.data.feature_set import FeatureSet
from qstudy.data.features import FeatureSettings
from qstudy.data.manifest import Utterance, read_manifest
from qstudy.data.tokenizer import CharTokenizer


def checked(manifest: Path) -> list[Utterance]:
    """Its utterances; raises UserError if any cannot be trained on."""
    FeatureSet.open(manifest, FeatureSettings(), CharTokenizer(), manifest.parent / "checked")
    return read_manifest(manifest)
