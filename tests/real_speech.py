"""Real digits, where the checkout has them, and the digits model that the repository holds."""

from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Tensor

from qstudy.data.audio import read_audio
from qstudy.data.features import FeatureSettings, Filterbank, extract
from qstudy.data.manifest import read_manifest
from qstudy.model import RNNT, ModelConfig
from qstudy.quant.layers import quantizable
from qstudy.quant.packed.bitpack import unpack
from qstudy.quant.packed.model import PackedModel
from qstudy.recognize.recognizer import Recognizer, recognizer_from_packed

ROOT = Path(__file__).parents[1]
MANIFEST = ROOT.parent / "shared" / "data" / "digits" / "test.jsonl"
MODEL = ROOT / "reports" / "digits" / "best.qst"


@cache
def recordings(count: int) -> list[Tensor]:
    """The first strings of real digits, (N,) float32 at 16 kHz each; skips the test where there are none."""
    if not MANIFEST.exists():
        pytest.skip("the digits corpus is not beside this checkout")
    return [torch.from_numpy(read_audio(utterance.audio)) for utterance in read_manifest(MANIFEST)[:count]]


@cache
def real_features(settings: FeatureSettings, count: int) -> list[Tensor]:
    """Their features, (F, bins) each."""
    filterbank = Filterbank(settings)
    return [extract(filterbank, wave) for wave in recordings(count)]


def digits_model() -> tuple[RNNT, ModelConfig, Recognizer]:
    """The committed digits model in float (its integers times their scales), what it is made of, and its recognizer."""
    packed = PackedModel.load(MODEL)
    config = ModelConfig(**packed.header["model"])
    recognizer = recognizer_from_packed(packed)
    features = FeatureSettings(**packed.header["features"])
    model = RNNT(config, features, recognizer.tokenizer.size)
    bit_map, shapes = packed.bit_map, {shape.name: shape for shape in packed.shapes}
    for name, layer in quantizable(model).items():
        matrices = [
            unpack(packed.tensors[f"{name}.{i}.codes"], bit_map[name].weight, size)
            * packed.tensors[f"{name}.{i}.scale"].view(-1, 1)
            for i, size in enumerate(shapes[name].matrices)
        ]
        layer.set_float(matrices, packed.tensors.get(f"{name}.bias"))
    model.encoder.normalize.load_state_dict(recognizer.model.encoder.normalize.state_dict())
    return model.eval(), config, recognizer
