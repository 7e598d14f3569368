"""`qstudy export`."""

from pathlib import Path

from qstudy.files import require_other


def export(checkpoint: Path, out: Path) -> None:
    """Pack a checkpoint: what the device gets.

    Args:
        checkpoint: a run's `last.ckpt`.
        out: the packed model to write, e.g. model.qst.
    """
    from qstudy.training.checkpoint import pack_checkpoint

    require_other(out, "--out", checkpoint)
    packed = pack_checkpoint(checkpoint)
    packed.save(out)
    print(f"{out}: {packed.size_bytes:,} bytes of tensors, {out.stat().st_size:,} with the header.")
    print(f"Next: qstudy transcribe {out} some.wav")
