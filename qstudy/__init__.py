"""Quantization studies of RNN-Transducer speech recognizers.

In a notebook, `import qstudy` offers:

    quantize, calibrate, pack, load   any `torch.nn` model, from float to integers to a file and back
    size_bytes, simulate, Rate        what it costs: bytes, and milliseconds on a described accelerator
    transcribe                        text from sound
    rnnt_loss                         the loss that recognizers are trained with
    load_runs                         a study's records as a pandas DataFrame

Each is imported when it is first asked for: `import qstudy` itself takes no time, and no torch.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from analysis.frames import load_runs as load_runs
    from qstudy.loss.rnnt import rnnt_loss as rnnt_loss
    from qstudy.notebook import load as load
    from qstudy.notebook import simulate as simulate
    from qstudy.notebook import transcribe as transcribe
    from qstudy.quant.layers import Rate as Rate
    from qstudy.quant.quantize import calibrate as calibrate
    from qstudy.quant.quantize import pack as pack
    from qstudy.quant.quantize import quantize as quantize
    from qstudy.quant.quantize import size_bytes as size_bytes

__version__ = "0.1.0"

HOMES = {
    "quantize": "qstudy.quant.quantize",
    "calibrate": "qstudy.quant.quantize",
    "pack": "qstudy.quant.quantize",
    "load": "qstudy.notebook",
    "size_bytes": "qstudy.quant.quantize",
    "simulate": "qstudy.notebook",
    "Rate": "qstudy.quant.layers",
    "transcribe": "qstudy.notebook",
    "rnnt_loss": "qstudy.loss.rnnt",
    "load_runs": "analysis.frames",
}
"""Public name -> the module that defines it."""

if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        if name not in HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(importlib.import_module(HOMES[name]), name)


def __dir__() -> list[str]:
    return [*globals(), *HOMES]
