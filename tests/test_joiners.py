"""Joiners: what each computes of a pair, and that the product of two sides learns from scratch."""

from pathlib import Path

import pytest
import torch
from parts import CLOSE, EXACT, batch, model_and_packed, model_of, require_same_integers, train
from tiny import FEATURES, TOKENIZER, run_config
from torch import nn

from qstudy.model import RNNT, ModelConfig
from qstudy.model.joiners import JOINERS, AdditiveJoiner, MultiplicativeJoiner
from qstudy.training.run import run

pytestmark = pytest.mark.usefixtures("one_thread")  # small tensors
every_joiner = pytest.mark.parametrize("name", JOINERS)
COMBINED = {"additive": torch.add, "multiplicative": torch.mul}


def config(name: str) -> ModelConfig:
    encoder = {"name": "lstm", "hidden": 16, "layers": 1, "stack": 2, "reduction": 2}
    return ModelConfig(encoder, {"name": "lstm", "hidden": 16, "embedding": 8}, {"name": name, "hidden": 12})


@every_joiner
@torch.no_grad()
def test_logits_of_every_pair(name: str) -> None:
    model, given = model_of(config(name)), batch()
    logits, frames, encoded = model(*given)
    assert logits.shape == (3, 20, 6, TOKENIZER.size)
    assert frames.tolist() == [20, 15, 18]
    joiner, predicted = model.joiner, model.predictor(given[2])
    for t, u in ((0, 0), (4, 5), (19, 2)):
        common = COMBINED[name](joiner.encoder(encoded[1, t]), joiner.predictor(predicted[1, u]))
        torch.testing.assert_close(logits[1, t, u], joiner.output(torch.tanh(common)))


def test_sums_and_products_differ_in_one_bias() -> None:
    additive, multiplicative = (kind(8, 6, 5, 40.0, hidden=4) for kind in (AdditiveJoiner, MultiplicativeJoiner))
    extra = set(multiplicative.state_dict()) - set(additive.state_dict())
    assert extra == {"predictor.bias"}
    assert torch.equal(multiplicative.predictor.bias, torch.ones(4))


def test_products_do_not_vanish_at_the_start() -> None:
    """The encoder's gradient is as large as the additive joiner's; without the bias of one it would be far smaller."""

    def gradient(name: str, bias: float) -> float:
        torch.manual_seed(0)
        model = RNNT(config(name), FEATURES, TOKENIZER.size)
        if model.joiner.predictor.bias is not None:
            nn.init.constant_(model.joiner.predictor.bias, bias)
        train(model, 0)
        return float(model.joiner.encoder.weight.grad.norm())

    assert gradient("multiplicative", 1.0) > 0.5 * gradient("additive", 1.0)
    assert gradient("multiplicative", 0.0) < 0.3 * gradient("additive", 1.0)


@every_joiner
def test_the_loss_falls_from_scratch(name: str) -> None:
    torch.manual_seed(0)
    first, last = train(RNNT(config(name), FEATURES, TOKENIZER.size), 60, rate=0.02)
    assert last < 0.4 * first


def test_both_losses_fall_on_speech(corpus: Path, tmp_path: Path) -> None:
    """CTC alone for a fifth of the steps, then both, through a bidirectional encoder."""
    encoder = {"name": "bilstm", "hidden": 16, "layers": 1, "stack": 3, "reduction": 3}
    model = {"encoder": encoder, "joiner": {"name": "multiplicative", "hidden": 16}}
    training = {"steps": 60, "ctc_only": 0.2, "learning_rate": 0.02}
    record = run(run_config(corpus, tmp_path, model=model, training=training), tmp_path / "run", name="product")
    assert record.loss is not None
    assert record.loss["last"] < 0.8 * record.loss["first"]


@pytest.mark.parametrize("policy", EXACT)
@every_joiner
def test_packed_integers_are_those_of_training(name: str, policy: str) -> None:
    model, loaded, _ = model_and_packed(config(name), EXACT[policy])
    assert require_same_integers(model, loaded, batch()) == 2 + 2 + 3


@pytest.mark.parametrize("policy", CLOSE)
@torch.no_grad()
def test_packed_is_close_elsewhere(policy: str) -> None:
    model, loaded, _ = model_and_packed(config("multiplicative"), CLOSE[policy])
    first, second = (each(*batch())[0] for each in (model, loaded))
    assert float((first - second).abs().mean()) < 0.01 * float(first.abs().mean())
