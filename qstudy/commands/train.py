"""`qstudy train`."""

from pathlib import Path

from qstudy.fields import with_order
from qstudy.files import content_hash, require_other, safe_name
from qstudy.training.config import RunConfig, to_dict


def train(config: RunConfig, out: Path | None = None, name: str | None = None) -> None:
    """Train one model under one policy; the same command goes on where it stopped.

    Args:
        config: YAML file with any of the fields below; later options override it.
        out: Folder of the run; by default runs/NAME.
        name: Of the run; by default the policy and a hash of the configuration.
    """
    from qstudy.commands.next_command import print_transcribe
    from qstudy.hardware.simulator import milliseconds
    from qstudy.sweep.known import require_same_run
    from qstudy.training.baseline import publish
    from qstudy.training.devices import join
    from qstudy.training.record import MODEL_FILE
    from qstudy.training.run import run

    name = safe_name(name or f"{config.policy.get('name')}-{content_hash(with_order(to_dict(config)))[:8]}", "--name")
    folder = out or Path("runs") / name
    if config.start_file is not None:
        for file in (MODEL_FILE, "last.ckpt"):
            require_other(folder / file, "--out", config.start_file)
    require_same_run(folder, config)
    record = run(config, folder, name=name)
    publish(config, folder)
    if not join(config.trainer).is_global_zero:
        return
    for label, scores in (record.metrics or {}).items():
        rate, low, high = (100 * (scores[key] or 0.0) for key in ("wer", "wer_low", "wer_high"))
        print(f"{label}: WER {rate:.2f} % (95 %: {low:.2f}-{high:.2f}), {scores['words']} words")
    simulated = (record.latency or {}).items()
    latency = ", ".join(f"{milliseconds(value['latency_ms'])} on {key}" for key, value in simulated)
    print(f"{folder / MODEL_FILE}: {record.size_bytes:,} bytes; simulated latency {latency}")
    print_transcribe(folder / MODEL_FILE)
