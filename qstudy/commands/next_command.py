"""What the commands that make a packed model tell the user to do next."""

from pathlib import Path

from qstudy.named import trust_option
from qstudy.quant.packed.file import read


def print_transcribe(model: Path) -> None:
    """Print how to try a packed recognizer, with `--trust` where its file asks for code of the user's own."""
    header = read(model).header
    names = [*(part.get("name", "") for part in header["model"].values()), *header.get("arithmetic", {}).values()]
    print(f"Next: qstudy transcribe {model} some.wav{trust_option(names)}")
