"""`qstudy export`."""

from pathlib import Path

from qstudy.files import require_other


def export(checkpoint: Path, out: Path, trust: Path | None = None) -> None:
    """Pack a checkpoint: what the device gets.

    Args:
        checkpoint: a run's `last.ckpt`.
        out: the packed model to write, e.g. model.qst.
        trust: a Python file of yours whose classes the checkpoint may name; no other code is run for it.
    """
    from qstudy.named import trusting
    from qstudy.training.checkpoint import pack_checkpoint

    require_other(out, "--out", checkpoint, *([trust] if trust else []))
    with trusting(trust):
        packed = pack_checkpoint(checkpoint)
    packed.save(out)
    print(f"{out}: {packed.size_bytes:,} bytes of tensors, {out.stat().st_size:,} with the header.")
    print(f"Next: qstudy transcribe {out} some.wav")
