"""Language models of quantizable layers: what they compute, their packed form, and the files that hold them."""

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch
from test_bit_exact import POLICIES, accumulators, frozen, in_time, mismatches
from tiny import TOKENIZER, filled, packed, talkative
from torch import Tensor
from torch.nn import functional as F

from qstudy.cli import main
from qstudy.data.tokenizer import CharTokenizer
from qstudy.errors import UserError
from qstudy.hardware.size import size_bytes
from qstudy.model.language import LSTMLanguageModel
from qstudy.quant.layers import quantizable
from qstudy.quant.packed.model import PackedModel, pack_model
from qstudy.quant.policies import QuantPolicy, build_policy
from qstudy.recognize.language import describe, language_from_packed, load_language_model
from qstudy.recognize.perplexity import log_likelihoods, perplexity
from qstudy.recognize.recognizer import recognizer_from_packed
from qstudy.settings import LanguageModelConfig
from qstudy.training import price
from qstudy.training.load import load_recognizer, load_tokenizer

ROOT = Path(__file__).parents[1]
CONFIG = LanguageModelConfig(embedding=12, hidden=20, layers=2)
TEXTS = ["turn on the light", "what is the weather in rome", "no", "set a timer for ten minutes"]

pytestmark = pytest.mark.usefixtures("one_thread")  # small tensors


def outspoken(seed: int = 0, config: LanguageModelConfig = CONFIG) -> LSTMLanguageModel:
    """A model with random weights, large enough that its labels are far from equally likely."""
    torch.manual_seed(seed)
    model = LSTMLanguageModel(TOKENIZER.size, config)
    with torch.no_grad():
        for layer in quantizable(model).values():
            for matrix in layer.matrices():
                matrix.mul_(6.0)
    return model.eval()


def targets(texts: list[str]) -> Tensor:
    """(N, U), padded with 0."""
    labels = [torch.tensor(TOKENIZER.encode(text)) for text in texts]
    return torch.nn.utils.rnn.pad_sequence(labels, batch_first=True)


def prepared(model: LSTMLanguageModel, policy: dict[str, Any]) -> QuantPolicy:
    """Fill its slots and fit them to TEXTS."""
    built = build_policy(policy)
    built.prepare(model)

    def passes():  # type: ignore[no-untyped-def]
        for _ in range(2):
            model(targets(TEXTS))
            yield

    with torch.no_grad():
        built.calibrate(model.train(), passes())
    built.project_(model.eval(), 0)
    return built


def packed_language(model: LSTMLanguageModel, policy: QuantPolicy, config: LanguageModelConfig = CONFIG) -> PackedModel:
    shapes = model.shapes()
    return pack_model(model, policy.bit_map(shapes), shapes, describe(config, TOKENIZER, {"name": "any"}))


@torch.no_grad()
def step_by_step(model: LSTMLanguageModel, labels: Tensor) -> Tensor:
    """Rows (N, U + 1, V) of labels (N, U), one call of `advance` for each."""
    state, rows = model.start(len(labels), torch.device("cpu")), []
    for column in F.pad(labels, (1, 0)).T:
        row, state = model.advance(column, state)
        rows.append(row)
    return torch.stack(rows, 1)


def test_steps_are_the_whole_text() -> None:
    model, labels = outspoken(), targets(TEXTS)
    rows = step_by_step(model, labels)
    torch.testing.assert_close(rows, F.log_softmax(model(labels), -1), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(rows.exp().sum(-1), torch.ones(len(TEXTS), labels.shape[1] + 1))
    assert rows.dtype == torch.float32
    assert rows.exp().max() > 0.3  # far from equally likely


def test_hypotheses_can_be_picked_and_replaced() -> None:
    model = outspoken()
    _, state = model.advance(torch.tensor([0, 0]), model.start(2, torch.device("cpu")))
    assert all(part.shape[1] == 2 for part in state)
    _, state = model.advance(torch.tensor([3, 7]), state)
    rows, _ = model.advance(torch.tensor([5, 6, 5]), tuple(part[:, [1, 1, 0]] for part in state))
    alone = step_by_step(model, torch.tensor([[7, 5], [7, 6], [3, 5]]))[:, -1]
    torch.testing.assert_close(rows, alone)


def test_size_model_and_rates() -> None:
    shapes = outspoken().shapes()
    assert [shape.name for shape in shapes] == ["embedding", "lstm.0", "lstm.1", "output"]
    assert {(shape.per_label, shape.every_ms) for shape in shapes} == {(1, None)}
    assert sum(shape.parameters for shape in shapes) == sum(
        p.numel() for name, p in outspoken().named_parameters() if "bias_hh" not in name
    )


@pytest.mark.parametrize("policy", ["float", *POLICIES, "s8bqat", "ptq"])
def test_bytes_on_disk_are_the_size_models(policy: str, tmp_path: Path) -> None:
    extra = {"float": {"name": "float"}, "ptq": {"name": "ptq", "layers": {"*": {"weight": 4}}}}
    extra["s8bqat"] = {"name": "s8bqat", "layers": {"*": {"weight": 4, "activation": 8}}}
    model = outspoken()
    built = prepared(model, {**POLICIES, **extra}[policy])
    packed_language(model, built).save(tmp_path / "lm.qst")
    loaded = PackedModel.load(tmp_path / "lm.qst")
    shapes = model.shapes()
    assert loaded.size_bytes == size_bytes(shapes, built.bit_map(shapes))
    again = load_language_model(tmp_path / "lm.qst", TOKENIZER)
    assert isinstance(again, LSTMLanguageModel)
    labels = targets(TEXTS)
    with torch.no_grad():
        torch.testing.assert_close(again(labels), model(labels), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("policy", POLICIES)
def test_accumulators_are_those_of_training(policy: str) -> None:
    """Of texts in a batch, with gradients, and of one text label by label, as a decoder asks."""
    model = outspoken()
    loaded, _ = language_from_packed(packed_language(model, prepared(model, POLICIES[policy])))
    labels = targets(TEXTS)
    with accumulators(model) as trained:
        logits = frozen(model)(labels)
    with accumulators(loaded) as served, torch.no_grad():
        again = loaded(labels)
    assert logits.requires_grad
    assert mismatches(trained, served) == 0
    assert torch.equal(again, logits)
    for text in TEXTS:
        with accumulators(model) as trained:
            logits = frozen(model)(targets([text]))
        with accumulators(loaded) as served:
            rows = step_by_step(loaded, targets([text]))
        first, second = in_time(model, trained), in_time(loaded, served)
        assert first.keys() == second.keys()
        assert {"lstm.0.0", "lstm.1.1", "output.0"} <= first.keys()
        for name, whole in first.items():
            assert torch.equal(whole, second[name]), name
        torch.testing.assert_close(rows, F.log_softmax(logits, -1))


def test_perplexity_by_hand() -> None:
    model, encoded = outspoken(), [TOKENIZER.encode(text) for text in TEXTS]
    each = log_likelihoods(model, encoded)
    for text, total in zip(encoded, each, strict=True):
        rows = F.log_softmax(model(torch.tensor([text])), -1)[0].detach()
        assert float(total) == pytest.approx(sum(float(rows[i, y]) for i, y in enumerate([*text, 0])), rel=1e-5)
    found = perplexity(model, encoded, sum(len(text.split()) for text in TEXTS))
    assert (found.texts, found.labels) == (4, sum(map(len, encoded)) + 4)
    assert found.words == sum(len(text.split()) + 1 for text in TEXTS)
    assert found.label**found.labels == pytest.approx(float(torch.exp(-each.sum())), rel=1e-6)
    assert found.word**found.words == pytest.approx(float(torch.exp(-each.sum())), rel=1e-6)


def test_readers_refuse_the_wrong_kind(tmp_path: Path) -> None:
    model = outspoken()
    packed_language(model, prepared(model, {"name": "float"})).save(tmp_path / "lm.qst")
    speaker = talkative()
    policy = filled(speaker, {"name": "float"})
    packed(speaker, policy).save(tmp_path / "am.qst")
    with pytest.raises(UserError, match=r"lm.qst: this is a language model, not a recognizer"):
        load_recognizer(tmp_path / "lm.qst")
    with pytest.raises(UserError, match=r"am.qst: this is not a language model; make one with `qstudy train-lm`"):
        load_language_model(tmp_path / "am.qst", TOKENIZER)
    assert recognizer_from_packed(PackedModel.load(tmp_path / "am.qst")).tokenizer.size == TOKENIZER.size
    for name in ("am.qst", "lm.qst"):
        assert load_tokenizer(tmp_path / name).to_dict() == TOKENIZER.to_dict()


def test_another_tokenizer_than_the_recognizers(tmp_path: Path) -> None:
    model = outspoken()
    packed_language(model, prepared(model, {"name": "float"})).save(tmp_path / "lm.qst")
    with pytest.raises(UserError, match="other labels than the recognizer; train a language model with"):
        load_language_model(tmp_path / "lm.qst", CharTokenizer("abcdefghijklmnopqrstuvwxyz' "))


def test_a_header_of_other_sizes_is_refused(tmp_path: Path) -> None:
    model = outspoken()
    device = packed_language(model, prepared(model, {"name": "float"}))
    for config in (LanguageModelConfig(12, 21, 2), LanguageModelConfig(12, 20, 3)):
        device.header.update(describe(config, TOKENIZER, {}))
        with pytest.raises(UserError, match="describes another model"):
            language_from_packed(device)


# Training


LINES = ["turn on the fan", "turn off the fan", "open the door", "close the door", "turn on the radio"] * 8
SMALL = ["--model.embedding", "8", "--model.hidden", "16", "--model.layers", "1", "--training.precision", "32-true"]


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text("\n".join(LINES) + "\n")
    return path


def trained(out: Path, text: Path, *options: str) -> dict[str, Any]:
    main(["train-lm", "--text", str(text), "--dev", str(text), "--out", str(out), *SMALL, *options])
    return json.loads((out / "record.json").read_text())


def steps(count: int, every: int = 100) -> list[str]:
    return ["--training.steps", str(count), "--training.checkpoint_every", str(every), "--training.batch_size", "8"]


def test_it_learns_and_the_record_says_so(text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = trained(tmp_path / "lm", text, *steps(60), "--training.learning_rate", "0.02")
    assert record["loss"]["last"] < 0.7 * record["loss"]["first"]
    found = record["perplexity"]["dev"]
    assert found["label"] == pytest.approx(record["training_model_perplexity"]["dev"]["label"], rel=1e-5)
    assert 1 < found["label"] < 6 < found["word"]
    assert (found["texts"], found["words"]) == (40, sum(len(line.split()) + 1 for line in LINES))
    assert record["kind"] == "language model"
    model = PackedModel.load(tmp_path / "lm" / "model.qst")
    assert record["size_bytes"] == model.size_bytes == sum(layer["bytes"] for layer in record["layers"].values())
    assert record["file_bytes"] == (tmp_path / "lm" / "model.qst").stat().st_size
    assert f"perplexity {found['label']:.3f} per label" in capsys.readouterr().out
    served = load_language_model(tmp_path / "lm" / "model.qst", TOKENIZER)
    again = perplexity(served, [TOKENIZER.encode(line) for line in LINES], found["words"] - 40)
    assert again.label == pytest.approx(found["label"])
    main(["perplexity", str(tmp_path / "lm" / "model.qst"), "--text", str(text)])
    assert f"perplexity {found['label']:.3f} per label, {found['word']:.2f} per word" in capsys.readouterr().out


def test_four_bits_from_the_float_one(text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = trained(tmp_path / "lm", text, *steps(40), "--training.learning_rate", "0.02")
    start = ["--start", str(tmp_path / "lm" / "model.qst"), "--finetune.steps", "20", "--finetune.batch_size", "8"]
    start += ["--finetune.precision", "32-true"]
    after = trained(tmp_path / "lm4", text, *start, "--policy", "{name: int4_e2e}")
    assert after["steps"] == 20
    assert after["loss"]["first"] < 0.85 * before["loss"]["first"]
    assert {bits["weight"] for bits in after["bit_map"].values()} == {4}
    assert after["size_bytes"] < before["size_bytes"] / 5
    assert after["perplexity"] == after["training_model_perplexity"]
    assert "lstm.0.weights.0" in after["notes"]["choices"]
    with pytest.raises(SystemExit):
        main(["train-lm", "--text", str(text), "--out", str(tmp_path / "other"), *start, *SMALL[:2], *SMALL[4:]])
    assert "has model.hidden 16, not 512; say so by --model, or name another file" in capsys.readouterr().err
    rounded = trained(tmp_path / "ptq", text, *start, "--policy", "{name: ptq, layers: {'*': {weight: 8}}}")
    assert rounded["steps"] == 0
    assert rounded["perplexity"]["dev"]["label"] == pytest.approx(before["perplexity"]["dev"]["label"], rel=0.02)


@pytest.mark.parametrize("option", ["--like", "--start"])
def test_no_model_that_is_read_is_replaced(
    text: Path, tmp_path: Path, option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "model.qst").write_bytes(b"a model")
    with pytest.raises(SystemExit):
        main(["train-lm", "--text", str(text), option, str(tmp_path / "model.qst"), "--out", str(tmp_path)])
    assert "--out" in (said := capsys.readouterr().err)
    assert "is also an input" in said


def test_calibration_is_without_dropout(text: Path, tmp_path: Path) -> None:
    trained(tmp_path / "lm", text, *steps(2))
    policy = "{name: ptq, layers: {'*': {weight: 8, activation: 8}}}"
    options = ["--start", str(tmp_path / "lm" / "model.qst"), "--policy", policy]
    found = []
    for dropout in ("0.5", "0.0"):
        trained(tmp_path / dropout, text, *options, "--model.dropout", dropout)
        found.append(PackedModel.load(tmp_path / dropout / "model.qst").tensors)
    assert all(torch.equal(value, found[1][name]) for name, value in found[0].items())


def test_passes_change_rounding_only(tmp_path: Path) -> None:
    """Whatever the lengths of the texts that they divide: a loss is per label of the whole batch."""
    text = tmp_path / "text.txt"
    text.write_text("\n".join(["no", "turn on the radio in the kitchen and the fan", "yes", "stop"] * 2) + "\n")
    options = [*steps(4), "--training.learning_rate", "0.03"]
    once, thrice = (trained(tmp_path / n, text, *options, "--training.accumulate", n) for n in ("1", "3"))
    assert once["loss"] == pytest.approx(thrice["loss"], abs=1e-4)


def test_a_stopped_training_goes_on_exactly(text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten steps, or seven, Ctrl-C, and six more from the fourth on: the same file, with dropout."""
    from qstudy.training.language_module import LanguageModule

    options = [*steps(10, every=4), "--model.dropout", "0.3"]
    straight = trained(tmp_path / "straight", text, *options)

    class Stop(Exception):
        pass

    def stopping(module: LanguageModule, *_: Any) -> None:
        if module.global_step == 7:
            raise Stop

    with monkeypatch.context() as patched:
        patched.setattr(LanguageModule, "on_train_batch_start", stopping, raising=False)
        with pytest.raises(Stop):
            trained(tmp_path / "stopped", text, *options)
    assert not (tmp_path / "stopped" / "record.json").exists()
    resumed = trained(tmp_path / "stopped", text, *options)
    assert (resumed["loss"], resumed["steps"]) == (straight["loss"], 10)
    models = [(tmp_path / folder / "model.qst").read_bytes() for folder in ("straight", "stopped")]
    assert models[0] == models[1]


def test_another_training_does_not_go_on_from_this_one(
    text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trained(tmp_path / "lm", text, *steps(2))
    text.write_text("open the window\n" * 9)
    with pytest.raises(SystemExit) as stopped:
        trained(tmp_path / "lm", text, *steps(2))
    assert stopped.value.code == 2
    assert "last.ckpt is of a run with another text; remove" in capsys.readouterr().err
    with pytest.raises(UserError, match="a checkpoint of a language model, not of a recognizer"):
        load_recognizer(tmp_path / "lm" / "last.ckpt")


def test_checkpoints_may_come_at_another_distance_when_a_training_goes_on(text: Path, tmp_path: Path) -> None:
    trained(tmp_path / "lm", text, *steps(3, every=1))
    assert trained(tmp_path / "lm", text, *steps(3, every=2))["steps"] == 3


def test_a_model_that_is_only_calibrated_does_not_replace_a_trained_one(
    text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trained(tmp_path / "lm", text, *steps(1))
    trained(tmp_path / "other", text, *steps(1), "--seed", "1")
    model = (tmp_path / "other" / "model.qst").read_bytes()
    options = ["--start", str(tmp_path / "lm" / "model.qst"), "--policy", "{name: ptq, layers: {'*': {weight: 8}}}"]
    with pytest.raises(SystemExit):
        trained(tmp_path / "other", text, *options)
    assert "holds another run (last.ckpt)" in capsys.readouterr().err
    assert (tmp_path / "other" / "model.qst").read_bytes() == model


@pytest.mark.parametrize(
    ("line", "options", "said"),
    [
        ("naïve", [], "text.txt, line 3: The character 'ï' in the text 'naïve' is outside"),
        ("naïve", [], "the option skip_unknown leaves such lines out"),
        ("", ["--policy", "{name: int4_e2e}"], "start: the policy int4_e2e starts from a float language model"),
        ("", ["--start", "gone.qst"], "gone.qst"),
        ("", ["--like", "gone.qst"], "gone.qst"),
        ("", ["--tokenizer", "{name: characters, alphabet: abc}"], "outside the alphabet 'abc'"),
        ("", ["--tokenizer", "{name: words}"], "tokenizer"),
        ("x" * 10_001, [], "line 3: 10,001 characters are more than 10,000"),
        ("", ["--ngram", "3"], "--out: an n-gram model is a file whose name ends in .arpa or .arpa.gz"),
        ("", ["--ngram", "0"], "--ngram: 0"),
    ],
    ids=["unknown", "skip", "policy", "start", "like", "alphabet", "kind", "long", "folder", "order"],
)
def test_bad_input(
    tmp_path: Path, line: str, options: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    text = tmp_path / "text.txt"
    text.write_text(f"yes\n\n{line}\nno\n", encoding="utf-8")
    with pytest.raises(SystemExit) as stopped:
        trained(tmp_path / "lm", text, *options)
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_a_model_too_large_to_be_trained(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(price, "MOST_PARAMETERS", 2000)
    with pytest.raises(SystemExit):
        trained(tmp_path / "lm", text, *steps(1))
    assert "model: 2.32e+03 parameters (9.3e-06 GB in float32) are more than the 2,000" in capsys.readouterr().err
    assert not (tmp_path / "lm").exists()


def test_a_perplexity_above_all_numbers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of a language without spaces, say: JSON knows no infinity."""
    text = tmp_path / "text.txt"
    text.write_text("x" * 2000 + "\n")
    record = trained(tmp_path / "lm", text, *steps(1), "--training.learning_rate", "0.0001")
    assert record["perplexity"]["dev"]["word"] is record["training_model_perplexity"]["dev"]["word"] is None
    assert record["perplexity"]["dev"]["label"] > 1
    assert "per label, above 1e308 per word" in capsys.readouterr().out
    main(["perplexity", str(tmp_path / "lm" / "model.qst"), "--text", str(text), "--json"])
    assert json.loads(capsys.readouterr().out, parse_constant=pytest.fail)["word"] is None


def test_a_perplexity_of_no_numbers() -> None:
    """Not of a model that finds everything unlikely: of one that says nothing."""
    model = outspoken()
    model.name = "lm.qst"
    with torch.no_grad():
        model.output.bias[2] = float("nan")
    with pytest.raises(UserError, match=r"lm\.qst gives log-probabilities that are not numbers"):
        perplexity(model, [[1, 2], [3]], 2)


def test_lines_that_do_not_fit_are_counted_where_the_user_asks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = tmp_path / "text.txt"
    text.write_text("yes\nnaïve\nno\nroom 5\n", encoding="utf-8")
    record = trained(tmp_path / "lm", text, *steps(2), "--skip_unknown", "true")
    assert record["skipped"] == {"text": 2, "dev": 2}
    assert record["perplexity"]["dev"]["texts"] == 2
    assert "text: 2 lines left out" in capsys.readouterr().out
    text.write_text("5\n")
    with pytest.raises(SystemExit):
        trained(tmp_path / "other", text, "--skip_unknown", "true")
    assert "no line that can be used (1 left out)" in capsys.readouterr().err


def test_n_grams_of_a_recognizers_labels(text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    speaker = talkative()
    packed(speaker, filled(speaker, {"name": "float"})).save(tmp_path / "am.qst")
    out = tmp_path / "x.arpa.gz"
    options = ["--text", str(text), "--dev", str(text), "--like", str(tmp_path / "am.qst"), "--ngram", "3"]
    main(["train-lm", *options, "--out", str(out)])
    said = capsys.readouterr().out
    model = load_language_model(out, TOKENIZER)
    found = perplexity(model, [TOKENIZER.encode(line) for line in LINES], sum(len(line.split()) for line in LINES))
    assert f"dev: perplexity {found.label:.3f} per label, {found.word:.2f} per word" in said
    assert "30 1-grams" in said
    main(["perplexity", str(out), "--text", str(text), "--like", str(tmp_path / "am.qst"), "--json"])
    assert json.loads(capsys.readouterr().out)["label"] == pytest.approx(found.label)
    with pytest.raises(SystemExit):
        main(["perplexity", str(out), "--text", str(text)])
    assert "does not say what its labels are" in capsys.readouterr().err
    with pytest.raises(UserError, match=r"x.arpa.gz, line \d+: .* is not a label of the recognizer"):
        load_language_model(out, CharTokenizer("abc"))


def test_the_printed_commands(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As they are printed there, with few lines, few steps and small layers."""
    section = (ROOT / "docs" / "decoding.md").read_text(encoding="utf-8").partition("## Language models")[2]
    commands = [line for line in section.partition("```\n")[2].partition("```")[0].splitlines() if line]
    assert len(commands) == 5
    (tmp_path / "corpora").mkdir()
    (tmp_path / "corpora" / "commands").symlink_to(corpus)
    (tmp_path / "sweeps").symlink_to(ROOT / "sweeps")
    (tmp_path / "dev.txt").write_text("what is the weather in rome\n")
    monkeypatch.chdir(tmp_path)
    small = {"data text": ["--lines", "200"], "train-lm": ["--training.steps", "2", "--finetune.steps", "2"]}
    for command in commands:
        program, *arguments = shlex.split(command.replace("hidden 256", "hidden 8"))
        assert program == "qstudy"
        extra = next((more for name, more in small.items() if " ".join(arguments).startswith(name)), [])
        main([*arguments, *extra])
    packed_file = PackedModel.load(tmp_path / "runs" / "world4" / "model.qst")
    assert {bits.weight for bits in packed_file.bit_map.values()} == {4}


def test_english_sentences(tmp_path: Path) -> None:
    source = ROOT.parent / "shared" / "data" / "english_sentences.txt"
    if not source.exists():
        pytest.skip("needs ../shared/data/english_sentences.txt")
    out = tmp_path / "english.txt"
    main(["data", "text", "--source", str(source), "--lines", "400", "--exclude", "[]", "--out", str(out)])
    dev = tmp_path / "dev.txt"
    lines = out.read_text().splitlines()
    dev.write_text("\n".join(lines[350:]))
    out.write_text("\n".join(lines[:350]))
    options = ["--text", str(out), "--dev", str(dev), "--skip_unknown", "true"]
    main(["train-lm", *options, "--ngram", "5", "--out", str(tmp_path / "5.arpa")])
    model = load_language_model(tmp_path / "5.arpa", TOKENIZER)
    kept = [TOKENIZER.encode(line) for line in lines[350:] if not any(each.isdigit() for each in line)]
    assert perplexity(model, kept, 1).label < 8  # all labels alike: 29
