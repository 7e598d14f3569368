"""`qstudy export`."""

from pathlib import Path
from typing import Any

from qstudy.files import require_other


def export(checkpoint: Path, out: Path, policy: dict[str, Any] | None = None, trust: Path | None = None) -> None:
    """Pack a checkpoint: what the device gets.

    Args:
        checkpoint: A run's `last.ckpt`.
        out: The packed model to write, e.g. model.qst.
        policy: Of a checkpoint that was trained in several widths (`switchable`), the policy with those to pack:
            '{name: mixed, layers: {"*": {weight: 4, activation: 8}}}'; by default the widest.
        trust: A Python file of yours whose classes model files may name; they can run no other code.
    """
    from qstudy.commands.next_command import print_transcribe
    from qstudy.named import trusting
    from qstudy.training.checkpoint import pack_checkpoint

    require_other(out, "--out", checkpoint, *([trust] if trust else []))
    with trusting(trust):
        packed = pack_checkpoint(checkpoint, policy)
    packed.save(out)
    print(f"{out}: {packed.size_bytes:,} bytes of tensors, {out.stat().st_size:,} with the header.")
    print_transcribe(out)
