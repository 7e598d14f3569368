"""The Conformer: torchaudio's where they agree, the same in chunks as in one piece, and in every policy's widths."""

import copy
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import BINS, FEATURES, LSTM, TOKENIZER, filled, packed, run_config, speech, talkative
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torchaudio.models import Conformer

from qstudy.errors import UserError
from qstudy.hardware.workload import layer_operators
from qstudy.model import RNNT, ModelConfig
from qstudy.model.encoders import attention
from qstudy.model.encoders.attention import BandAttention, by_distance, by_key
from qstudy.model.encoders.conformer_block import ConformerBlocks, ConformerSettings, padded_frames
from qstudy.quant.integer.accumulator import recorded_accumulators
from qstudy.quant.layers import UNKNOWN, quantizable, training_slots
from qstudy.quant.packed.model import PackedModel
from qstudy.quant.watching import watching
from qstudy.recognize.greedy import greedy, greedy_labels
from qstudy.recognize.recognizer import recognizer_from_packed
from qstudy.training.run import run

pytestmark = pytest.mark.usefixtures("one_thread")  # small tensors

FRAMES = 80
CAUSAL = {"size": 16, "blocks": 2, "heads": 2, "kernel": 5, "left": 6, "stack": 2, "reduction": 2}
LOOKING_AHEAD = {**CAUSAL, "right": 3, "causal": False}
EIGHT = {"weight": 8, "activation": 8}
INTEGER: list[dict[str, Any]] = [
    {"name": "native_int", "layers": {"*": EIGHT}},
    {"name": "native_int", "layers": {"*": {"weight": 4, "activation": 4}, "joiner.*": EIGHT}},
    {"name": "int4_e2e"},
    {"name": "accelerator_aware", "layers": {"*": EIGHT}},
]
POLICIES: list[dict[str, Any]] = [
    *INTEGER,
    {"name": "fake_qat", "layers": {"*": EIGHT}},
    {"name": "fake_qat", "layers": {"*": EIGHT}, "symmetric": False},
    {"name": "s8bqat", "layers": {"*": {"weight": 4, "activation": 8}}},
    {"name": "ptq", "layers": {"*": {"weight": 4}}},
    {"name": "ptq", "layers": {"*": EIGHT}, "symmetric": False},
]


def config(options: dict[str, Any]) -> ModelConfig:
    return ModelConfig({"name": "conformer", **options}, dict(LSTM), {"hidden": 12})


def policy_id(policy: dict[str, Any]) -> str:
    layers = policy.get("layers", {"*": {}})["*"]
    kind = "" if policy.get("symmetric", True) else " asymmetric"
    return f"{policy['name']} {'/'.join(map(str, layers.values()))}{kind}".strip()


def device(model: RNNT, policy: dict[str, Any], options: dict[str, Any]) -> PackedModel:
    return packed(model, filled(model, policy), config(options))


def in_chunks(model: RNNT, x: Tensor, cuts: Sequence[int]) -> Tensor:
    """Encoder frames of features x that arrive in pieces which end at `cuts` (joiner frames)."""
    size = model.encoder.chunk_frames
    state, parts = None, []
    for begin, end in itertools.pairwise(sorted({0, *cuts, x.shape[1] // size})):
        piece = x[:, begin * size : end * size]
        encoded, _, state = model.encoder(piece, torch.full((len(x),), piece.shape[1]), state)
        parts.append(encoded)
    return torch.cat(parts, 1)


def torchaudios(blocks: ConformerBlocks, options: ConformerSettings) -> Conformer:
    """torchaudio's Conformer with the weights of ours, and statistics of batch normalization that matter."""
    inner = options.size * options.expansion
    theirs = Conformer(options.size, options.heads, inner, options.blocks, options.kernel).eval()
    for norm in (each for each in blocks.modules() if isinstance(each, nn.BatchNorm1d)):
        norm.running_mean.uniform_(-0.5, 0.5)  # type: ignore[union-attr]
        norm.running_var.uniform_(0.5, 2.0)  # type: ignore[union-attr]
    for ours, layer in zip(blocks, theirs.conformer_layers, strict=True):
        convolution, attention = layer.conv_module.sequential, layer.self_attn
        pairs = {
            layer.ffn1: ours.first,
            layer.self_attn_layer_norm: ours.norm,
            attention.out_proj: ours.attention.output,
            layer.conv_module.layer_norm: ours.convolution.norm,
            convolution[0]: ours.convolution.expand,
            convolution[2]: ours.convolution.depthwise,
            convolution[3]: ours.convolution.conv_norm,
            convolution[5]: ours.convolution.contract,
            layer.ffn2: ours.second,
            layer.final_layer_norm: ours.final_norm,
        }
        for their_part, our_part in pairs.items():
            state = their_part.state_dict()
            own = our_part.state_dict().values()
            their_part.load_state_dict({key: value.view_as(state[key]) for key, value in zip(state, own, strict=True)})
        attention.in_proj_weight.data.copy_(ours.attention.qkv.weight)
        attention.in_proj_bias.data.copy_(ours.attention.qkv.bias)
    return theirs


@torch.no_grad()
def test_it_is_torchaudios() -> None:
    torch.manual_seed(0)
    options = ConformerSettings(
        16, 3, 4, kernel=7, left=1000, right=1000, causal=False, position="none", conv_norm="batch"
    )
    blocks = ConformerBlocks(options, UNKNOWN).eval()
    theirs = torchaudios(blocks, options)
    x, lengths = torch.randn(4, 30, 16), torch.tensor([30, 21, 30, 8])
    ours = blocks(x, lengths)[0]
    for index, length in enumerate(lengths.tolist()):
        alone = theirs(x[index : index + 1, :length], torch.tensor([length]))[0]
        torch.testing.assert_close(ours[index, :length], alone[0], atol=1e-5, rtol=1e-5)
    # their convolutions hear what comes after the end, so only utterances without padding are right in a batch
    batch = theirs(x, lengths)[0]
    torch.testing.assert_close(ours[[0, 2]], batch[[0, 2]], atol=1e-5, rtol=1e-5)


@given(
    frames=st.integers(1, 9),
    before=st.integers(0, 4),
    left=st.integers(0, 6),
    right=st.integers(0, 6),
)
def test_by_distance_by_hand(frames: int, before: int, left: int, right: int) -> None:
    before = min(before, left)  # a stream keeps no more
    keys = frames + before
    scores = torch.arange(1.0, frames * keys + 1).view(1, frames, keys)
    expected = torch.full((1, frames, left + right + 1), -torch.inf)
    back = torch.zeros(1, frames, keys)
    for t, s in itertools.product(range(frames), range(left + right + 1)):
        key = before + t + s - left
        if 0 <= key < keys:
            expected[0, t, s] = back[0, t, key] = scores[0, t, key]
    banded = by_distance(scores, left, right)
    assert torch.equal(banded, expected)
    assert torch.equal(by_key(banded.masked_fill(banded.isinf(), 0), left, right, keys), back)


@torch.no_grad()
def test_relative_positions_by_hand() -> None:
    """(q + u) k + (q + v) r over the band, and nothing else, in the first block's attention."""
    torch.manual_seed(0)
    attention = ConformerBlocks(ConformerSettings(8, 1, 2, left=2, right=1), UNKNOWN)[0].attention
    x = torch.randn(1, 5, 8)
    heads, size, distances = 2, 4, 4
    weight, bias = attention.qkv.weight.view(3, heads, size, 8), attention.qkv.bias.view(3, heads, size)
    q, k, v = (torch.einsum("td,hsd->hts", x[0], w) + b[:, None] for w, b in zip(weight, bias, strict=True))
    relative, v_r = attention.position.weight.view(heads, distances, size), attention.position.bias.view(heads, -1)
    mixed = torch.zeros(heads, 5, size)
    for head, t in itertools.product(range(heads), range(5)):
        seen = [j for j in range(5) if -2 <= j - t <= 1]
        query = q[head, t] / size**0.5
        scores = [query @ k[head, j] + query @ relative[head, j - t + 2] + v_r[head, j - t + 2] for j in seen]
        mixed[head, t] = torch.softmax(torch.stack(scores), 0) @ v[head, seen]
    expected = attention.output(mixed.transpose(0, 1).flatten(1))
    torch.testing.assert_close(attention(x)[0][0], expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("right", [0, 4096])
def test_a_whole_utterance_has_no_more_keys_than_frames(right: int) -> None:
    options = ConformerSettings(8, 1, 2, left=4096, right=right, causal=False, position="none")
    widths = []
    blocks = ConformerBlocks(options, UNKNOWN)
    blocks[0].attention.softmax.register_forward_hook(lambda module, inputs, output: widths.append(output.shape[-1]))
    blocks(torch.randn(1, 6, 8), torch.tensor([6]))
    assert widths == [6 if not right else 11]


@pytest.mark.parametrize("form", ["causal", "looking ahead", "far", "no position"])
@torch.no_grad()
def test_a_long_utterance_is_attended_to_in_blocks(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """To what it is in one piece, with padding and with a state; scores by key are never more than a block's."""
    forms = {"looking ahead": (6, 3, True), "far": (50, 50, True), "no position": (6, 0, False)}
    left, right, relative = forms.get(form, (6, 0, True))
    layer = BandAttention(8, 2, left, right, relative, UNKNOWN).eval()
    x, lengths = torch.randn(2, 70, 8), torch.tensor([70, 41])
    padded = padded_frames(x, lengths) if right else None
    seen: list[tuple[int, ...]] = []
    layer.scores.register_forward_hook(lambda module, inputs, output: seen.append(tuple(output.shape[-2:])))

    def mixed() -> tuple[Tensor, Tensor]:
        whole, state = layer(x, padded)
        return whole, whole if right else layer(x, None, state)[0]

    expected = mixed()
    assert (70, 70) in seen
    seen.clear()
    monkeypatch.setattr(attention, "BLOCK", 16)
    torch.testing.assert_close(mixed(), expected, atol=1e-6, rtol=1e-5)
    assert max(queries for queries, _ in seen) <= 16 + right
    assert max(keys for _, keys in seen) <= left + 16 + right
    layer.train()
    mixed()
    assert (70, 70) in seen


class Largest(TorchDispatchMode):
    """Within, how many numbers the largest tensor holds that is made."""

    numbers = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = function(*args, **kwargs or {})
        if isinstance(made, Tensor):
            self.numbers = max(self.numbers, made.numel())
        return made


@torch.no_grad()
def test_padding_takes_no_square_of_the_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "BLOCK", 16)
    blocks = ConformerBlocks(ConformerSettings(8, 1, 1, kernel=3, left=4, right=4, causal=False), UNKNOWN).eval()
    with Largest() as largest:
        blocks(torch.randn(1, 90, 8), torch.tensor([80]))
    assert 0 < largest.numbers < 90 * 90


FORMS = {
    "float": talkative(config({**CAUSAL, "running_mean": 20})),
    "float, batch norm": talkative(config({**CAUSAL, "conv_norm": "batch", "position": "none", "kernel": 4})),
    "little context": talkative(config({**CAUSAL, "left": 0, "kernel": 1})),
    "packed": recognizer_from_packed(device(talkative(config(CAUSAL)), INTEGER[1], CAUSAL)).model,
}


@pytest.mark.parametrize("form", FORMS)
@settings(max_examples=10)
@given(cuts=st.lists(st.integers(1, FRAMES // 4 - 1), max_size=20))
@torch.no_grad()
def test_streaming_is_the_whole(form: str, cuts: list[int]) -> None:
    model, x = FORMS[form], speech(2, FRAMES)
    assert model.encoder.streams
    whole = model.encoder(x, torch.tensor([FRAMES, FRAMES]))[0]
    chunks = in_chunks(model, x, cuts)
    if form == "packed":  # what is quantized is the same to the bit, so that all is
        assert torch.equal(chunks, whole)
    else:
        torch.testing.assert_close(chunks, whole, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("policy", [{"name": "float"}, INTEGER[0]], ids=policy_id)
def test_what_quantizers_watch_is_seen_whole(policy: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """And by blocks once they only compute: what is trained is evaluated in no more memory than what is packed."""
    model, frames = talkative(config(CAUSAL)), []
    filled(model, policy)
    monkeypatch.setattr(attention, "BLOCK", 16)
    softmax = model.encoder.blocks[0].attention.softmax
    softmax.register_forward_hook(lambda module, inputs, output: frames.append(output.shape[-2]))
    model.encoder(speech(1, FRAMES), torch.tensor([FRAMES]))
    assert frames == [16, 16, 8]
    frames.clear()
    with watching(model):
        model.encoder(speech(1, FRAMES), torch.tensor([FRAMES]))
    assert frames == ([16, 16, 8] if policy["name"] == "float" else [40])


@torch.no_grad()
def test_a_packed_model_that_looks_ahead_hears_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    made = talkative(config(LOOKING_AHEAD))
    model = recognizer_from_packed(device(made, INTEGER[0], LOOKING_AHEAD)).model
    x, lengths = speech(2, 3 * FRAMES), torch.tensor([3 * FRAMES, FRAMES])
    whole, frames = model.encoder(x, lengths)[0], []
    monkeypatch.setattr(attention, "BLOCK", 16)
    softmax = model.encoder.blocks[0].attention.softmax
    softmax.register_forward_hook(lambda module, inputs, output: frames.append(output.shape[-2]))
    assert torch.equal(model.encoder(x, lengths)[0], whole)
    assert len(frames) > 1
    assert max(frames) <= 16 + 16
    with recorded_accumulators():  # as in training, whose accumulators they are held against
        model.encoder(x, lengths)
    assert max(frames) == 3 * FRAMES // 2  # two feature frames each


@torch.no_grad()
def test_the_future_is_never_heard_unless_it_looks_ahead() -> None:
    x = speech(1, FRAMES)
    other = x.clone()
    other[:, 40:] += 5
    lengths = torch.tensor([FRAMES])
    for model in FORMS.values():
        first, second = (model.encoder(each, lengths)[0] for each in (x, other))
        assert torch.equal(first[:, :10], second[:, :10])
        assert not torch.equal(first[:, 10:], second[:, 10:])
    ahead = talkative(config(LOOKING_AHEAD))
    assert not ahead.encoder.streams
    assert not torch.equal(ahead.encoder(x, lengths)[0][:, :10], ahead.encoder(other, lengths)[0][:, :10])


@pytest.mark.parametrize("options", [CAUSAL, LOOKING_AHEAD], ids=["causal", "looking ahead"])
@torch.no_grad()
def test_padding_does_not_matter(options: dict[str, Any]) -> None:
    model, x = talkative(config(options)), speech(3, FRAMES)
    lengths = [FRAMES, 41, 7]
    batch, valid, _ = model.encoder(x, torch.tensor(lengths))
    assert valid.tolist() == [length // 4 for length in lengths]
    assert batch.isfinite().all()
    for index, length in enumerate(lengths):
        alone = model.encoder(x[index : index + 1, :length], torch.tensor([length]))[0]
        torch.testing.assert_close(batch[index, : length // 4], alone[0], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("options", [CAUSAL, {**LOOKING_AHEAD, "conv_norm": "batch"}], ids=["causal", "looking ahead"])
def test_every_parameter_learns(options: dict[str, Any]) -> None:
    model = talkative(config({**options, "dropout": 0.1})).train()
    for parameter in model.parameters():
        parameter.grad = None
    logits, _, _ = model(speech(3, FRAMES), torch.tensor([FRAMES, 41, 7]), torch.ones(3, 5, dtype=torch.int64))
    logits[:, 0].logsumexp(-1).sum().backward()
    for name, parameter in model.encoder.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().sum() > 0, name


def test_it_is_priced_without_being_made() -> None:
    with torch.device("meta"):
        model = RNNT(config(LOOKING_AHEAD), FEATURES, TOKENIZER.size)
    shapes = {shape.name: shape for shape in model.shapes()}
    frame_ms = FEATURES.hop_ms * 2
    made = talkative(config(LOOKING_AHEAD)).encoder.state_dict().values()
    priced = sum(shape.parameters for name, shape in shapes.items() if name.startswith("encoder."))
    assert priced == sum(each.numel() for each in made)
    scores, position = shapes["encoder.blocks.1.attention.scores"], shapes["encoder.blocks.0.attention.position"]
    assert (scores.inputs, scores.outputs, scores.heads) == (8, 2 * 10, 2)
    assert (scores.every_ms, scores.after_end) == (frame_ms, True)
    assert scores.frames == 4000 / frame_ms
    assert (position.matrices, position.heads) == (((2 * 10, 8),), 2)
    assert shapes["encoder.blocks.0.convolution.depthwise"].kind == "depthwise"
    assert not shapes["encoder.input"].after_end


def test_work_between_the_layers_is_priced() -> None:
    """Two SiLUs and a gate, four residual connections: per frame and block; the third SiLU is the convolution's."""
    with torch.device("meta"):
        shapes = RNNT(config(LOOKING_AHEAD), FEATURES, TOKENIZER.size).shapes()
    inner, size = 64, 16
    totals = []
    for block in ([each for each in shapes if f".blocks.{index}." in each.name] for index in range(2)):
        linear = [part for shape in block if shape.kind == "linear" for part in layer_operators(shape)]
        plain = 2 * sum(part.outputs for part in linear)  # biases, requantization
        totals.append((sum(part.elementwise for part in linear) - plain, sum(part.nonlinear for part in linear)))
        (depthwise,) = (part for shape in block if shape.kind == "depthwise" for part in layer_operators(shape))
        assert depthwise.nonlinear == size
    assert totals == [(2 * inner + size + (2 + 1 + 1 + 2) * size, 2 * inner + size)] * 2


@pytest.mark.parametrize("options", [CAUSAL, LOOKING_AHEAD], ids=["causal", "looking ahead"])
def test_batch_normalization_runs_as_often_as_its_block(options: dict[str, Any]) -> None:
    with torch.device("meta"):
        model = RNNT(config({**options, "conv_norm": "batch"}), FEATURES, TOKENIZER.size)
    shapes = {shape.name: shape for shape in model.shapes()}
    norm, depthwise = (shapes[f"encoder.blocks.0.convolution.{part}"] for part in ("conv_norm", "depthwise"))
    assert norm.kind == "constant"
    rates = {(each.every_ms, each.per_label, each.frames, each.after_end) for each in (norm, depthwise)}
    assert len(rates) == 1


def test_files_from_before_this_was_priced_are_read(tmp_path: Path) -> None:
    model = talkative(config(CAUSAL))
    made = packed(model, filled(model, INTEGER[0]), config(CAUSAL))
    assert {shape.pop("then") for shape in made.header["shapes"]} == {"", "silu", "glu", "sum", "half_sum"}
    for shape in made.header["shapes"]:
        heads = shape.pop("heads")
        if shape["name"].endswith(".scores"):  # they told the inputs of all heads and the outputs of one
            shape.update(inputs=heads * shape["inputs"], outputs=shape["outputs"] // heads)
    made.save(tmp_path / "old.qst")
    recognizer_from_packed(PackedModel.load(tmp_path / "old.qst"))


@pytest.mark.parametrize("policy", POLICIES, ids=policy_id)
@torch.no_grad()
def test_every_policy_fills_every_slot_and_the_file_says_the_same(policy: dict[str, Any], tmp_path: Path) -> None:
    model = talkative(config(CAUSAL))
    built = filled(model, policy)
    bit_map = built.bit_map(model.shapes())
    assert set(bit_map) == set(quantizable(model))
    assert {name for name, slot in training_slots(model).items() if slot} == {
        name for name, bits in bit_map.items() if bits.quantized
    }
    packed(model, built, config(CAUSAL)).save(tmp_path / "model.qst")
    loaded = recognizer_from_packed(PackedModel.load(tmp_path / "model.qst")).model
    x, lengths = speech(3, FRAMES, seed=5), torch.tensor([FRAMES, 60, 33])
    said = greedy_labels(model, x, lengths)
    heard = greedy_labels(loaded, x, lengths)
    if policy in INTEGER:
        assert torch.equal(model.encoder(x, lengths)[0], loaded.encoder(x, lengths)[0])
        assert said == heard
    assert len(heard[0]) > 4
    assert len({*map(tuple, heard)}) == 3
    whole = loaded.encoder(x, lengths)[0]
    chunks = in_chunks(loaded, x, range(1, 20))
    assert greedy(loaded, chunks, lengths // 4).hypotheses == greedy(loaded, whole, lengths // 4).hypotheses == heard


def test_a_state_can_be_used_twice() -> None:
    model = FORMS["packed"]
    x, lengths = speech(1, 8), torch.tensor([8])
    state = model.encoder(x, lengths)[2]
    kept = copy.deepcopy(state)
    model.encoder(x, lengths, state)
    for one, other in zip(state.layers, kept.layers, strict=True):
        assert torch.equal(one.inputs, other.inputs)
        assert torch.equal(one.attention[0], other.attention[0])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"size": 16, "heads": 3}, "heads: 3 heads cannot share 16"),
        ({"causal": False, "kernel": 4}, "kernel: 4 frames"),
        ({"position": "none", "left": 2**31 - 1}, "model.encoder.left: 2147483647 should be less than or equal to"),
        ({"position": "none", "right": 4097, "causal": False}, "model.encoder.right: 4097 should be less than"),
        ({"kernel": 4097}, "model.encoder.kernel: 4097 should be less than"),
    ],
    ids=["heads", "kernel", "left", "right", "a long kernel"],
)
def test_sizes_that_do_not_fit(options: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said), torch.device("meta"):
        RNNT(config(options), FEATURES, TOKENIZER.size)


def test_it_trains(corpus: Path, tmp_path: Path) -> None:
    encoder = {"name": "conformer", **CAUSAL, "size": 24, "stack": 3, "reduction": 3, "dropout": 0.1}
    schedule = {"steps": 40, "learning_rate": 5e-3, "ctc_only": 0.2}
    policy = {"name": "native_int", "layers": {"*": {"weight": 4, "activation": 8}}}
    changes = {"model": {"encoder": encoder}, "training": schedule, "features": {"bins": BINS}}
    record = run(run_config(corpus, tmp_path, **changes), tmp_path / "float", name="float")
    assert record.loss["last"] < 0.8 * record.loss["first"]
    tuned = run(run_config(corpus, tmp_path, **changes, policy=policy), tmp_path / "qat", name="qat")
    assert (tuned.steps, tuned.state) == (12, "complete")
    assert tuned.metrics["dev"]["wer"] == tuned.training_model_wer
    assert tuned.mismatches == 0
    assert tuned.size_bytes < 0.5 * record.size_bytes
