"""The layers of the digits model (2 M parameters), as `RNNT.shapes()` gives them: what hardware tests price."""

from qstudy.bits import LayerShape

DIGITS = [
    LayerShape("encoder.normalization", "constant", vectors=80),
    *(
        LayerShape(f"encoder.lstm.{i}", "lstm", ((1024, 256 if i else 120), (1024, 256)), 1024, 2, every_ms=30.0)
        for i in range(3)
    ),
    LayerShape("predictor.embedding", "embedding", ((29, 128),), per_label=1.0),
    LayerShape("predictor.lstm", "lstm", ((1024, 128), (1024, 256)), 1024, 2, per_label=1.0),
    LayerShape("joiner.encoder", "linear", ((128, 768),), 128, 1, every_ms=90.0),
    LayerShape("joiner.predictor", "linear", ((128, 256),), 0, 1, per_label=1.0),
    LayerShape("joiner.output", "linear", ((29, 128),), 29, 1, every_ms=90.0, per_label=1.0),
]
