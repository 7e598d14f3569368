"""How often layers run that wait for the end of the utterance."""

from qstudy.hardware.stream import REFERENCE
from qstudy.quant.layers import Rate


def after_end(every_ms: float) -> Rate:
    """Of layers that take all frames of so many milliseconds at once, priced by the simulator's own utterance."""
    frames = round(1000 * REFERENCE.durations_s[0] / every_ms)
    return Rate(every_ms=every_ms, frames=max(frames, 1), after_end=True)
