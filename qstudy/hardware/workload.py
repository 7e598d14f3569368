"""A model as a list of operators: what a device has to do, how often, and in which widths; no weights.

What no layer does is left out, about a thousandth of a latency: the joiner's sum or product and its tanh, the stateless
predictor's tanh and the weighted one's SiLU.

Shape letters: M input vectors at once (a beam, or the frames of a chunk), K inputs, N outputs of a matrix product.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

from qstudy.bits import BitMap, LayerShape, Then
from qstudy.errors import UserError
from qstudy.hardware.search import GREEDY, Search

MOST_WORK = 10**15
"""Multiply-accumulates of one run of an operator at most: what is counted in 64 bits then stays exact."""


@dataclass(frozen=True)
class Operator:
    """One matrix product, or one piece of element-wise work, and when it runs."""

    name: str
    """`encoder.lstm.0/hidden`: the layer, and its part where a layer has several."""
    layer: str
    """The layer whose widths it computes in."""
    inputs: int = 0
    """K: inputs of a matrix product (K x N weights); 0: no product."""
    outputs: int = 0
    """N: outputs of a product, or values handled by an element-wise operator."""
    groups: int = 1
    """Of the outputs, each with K inputs of its own (heads; a grouped convolution)."""
    vectors: int = 1
    """M: input vectors per run."""
    form: str = "product"
    """`product`; `depthwise`: N channels with K weights each, on the element-wise unit; `lookup`: of a table of K rows
    one row of N values per vector is read (an embedding)."""
    stored: bool = True
    """Whether the second operand is a stored weight; False: activations, as the keys and values of attention."""
    constants: int = 0
    """Words of four bytes read per run (biases)."""
    elementwise: int = 0
    """Additions, products and requantizations per vector."""
    nonlinear: int = 0
    """Sigmoid, tanh or exponential values per vector."""
    every_ms: float | None = None
    """Runs once per this many milliseconds of audio; None: not driven by frames."""
    chunk: int = 1
    """Frames of a run; the last one of an utterance has those that are left, and costs their share of a run."""
    per_label: float = 0.0
    """Runs per emitted label."""
    share: float = 1.0
    """Share of its frames on which it runs (a branch of an amortized network)."""
    after_end: bool = False
    """Waits for the end of the utterance (a bidirectional or non-causal layer)."""
    reuse: int = 1
    """Runs in a row that use the same weights: read once for all of them as far as they fit on chip."""
    error_prone: bool = False
    """Whether its results suffer most from few bits: with its layer's placement `products` it runs on the CPU, if the
    accelerator has no floats for it."""
    on_cpu: bool = False
    """Placed on the CPU whatever its layer's placement."""

    def __post_init__(self) -> None:
        values = self.groups * self.inputs + max(self.inputs, 1) * self.outputs
        work = self.vectors * (values + self.elementwise + self.nonlinear)
        if work > MOST_WORK:
            raise UserError(
                f"{self.name}: {work:.1e} operations a run are too many to be priced; check its sizes, its "
                "frames and the beam."
            )

    @property
    def rate_known(self) -> bool:
        """Whether anyone says when it runs; element-wise work that nobody times (a constant's) counts as none."""
        return self.inputs == 0 or self.every_ms is not None or self.per_label > 0

    @property
    def frame_ms(self) -> float | None:
        """How often a frame comes, of which a run takes `chunk`; None: not driven by frames."""
        return None if self.every_ms is None else self.every_ms / self.chunk

    @property
    def macs(self) -> int:
        """Multiply-accumulates per run."""
        return 0 if self.form == "lookup" else self.vectors * self.inputs * self.outputs


@dataclass(frozen=True)
class Workload:
    """Operators in the order of execution, and the widths of their layers."""

    operators: tuple[Operator, ...]
    bit_map: BitMap
    name: str = "model"


def workload(
    shapes: Sequence[LayerShape],
    bit_map: BitMap,
    *,
    search: Search = GREEDY,
    cpu_operators: Sequence[str] = (),
    name: str = "model",
) -> Workload:
    """Turn a model's layers into operators.

    Args:
        shapes: the model's layers, in the order of execution.
        bit_map: widths by layer name; layers that it does not name compute in float.
        search: work per label, and at joint frames, is done for each of its hypotheses, as often as it says.
        cpu_operators: glob patterns of operators that run on the CPU whatever the widths say, to price one operator's
            hand-over alone; a bit map says the same of all cells by its placement `products`.
        name: for the report.

    Raises:
        UserError: a layer's kind is unknown, or an operator too large.
    """
    operators = [operator for shape in shapes for operator in layer_operators(shape)]
    searched = [_searched(op, search) if op.per_label else op for op in operators]
    placed = [replace(op, on_cpu=any(fnmatchcase(op.name, glob) for glob in cpu_operators)) for op in searched]
    return Workload(tuple(_with_first_pass(placed, shapes)), bit_map, name)


def _searched(operator: Operator, search: Search) -> Operator:
    """What one hypothesis does, as the search has it done for many at once."""
    vectors = operator.vectors
    if operator.every_ms is None:
        return replace(operator, vectors=vectors * search.batch, per_label=operator.per_label * search.batches)
    joined = replace(operator, vectors=vectors * search.hypotheses)
    if search.expansions is None:
        return joined
    return replace(joined, every_ms=operator.every_ms / search.expansions, per_label=0.0)


def _with_first_pass(operators: list[Operator], shapes: Sequence[LayerShape]) -> list[Operator]:
    """The operators of layers that run `twice` again, as those of a stream; what waits for the end comes last. Their
    weights take their place on chip twice, as if the second pass did not find the first one's."""
    twice = {shape.name for shape in shapes if shape.twice}
    first = [replace(op, name=f"{op.name}/first", after_end=False) for op in operators if op.layer in twice]
    return sorted([*operators, *first], key=lambda op: op.after_end) if first else operators


def layer_operators(shape: LayerShape) -> list[Operator]:
    """The operators of one layer.

    Raises:
        UserError: the kind is unknown.
    """
    if shape.kind not in KINDS:
        raise UserError(f"{shape.name}: kind: {shape.kind!r} is not one of {', '.join(KINDS)}.")
    return [_timed(part, shape) for part in KINDS[shape.kind](shape)]


def _timed(part: Operator, shape: LayerShape) -> Operator:
    """`part` with the layer's rates: a chunk of frames goes through it as that many vectors at once, unless it is
    recurrent, when it takes them one after the other with the same weights."""
    if shape.lookups and part.form == "lookup":
        return replace(part, per_label=float(shape.lookups), after_end=shape.after_end)
    period = shape.every_ms
    if part.reuse == 1 and period is not None:
        part, period = replace(part, vectors=shape.frames, chunk=shape.frames), period * shape.frames
    return replace(part, every_ms=period, per_label=shape.per_label, share=shape.share, after_end=shape.after_end)


THEN: dict[Then, tuple[float, float]] = {
    "": (0, 0),
    "silu": (1, 1),
    "glu": (0.5, 0.5),
    "sum": (1, 0),
    "half_sum": (2, 0),
}
"""What follows a layer -> sums and products, and sigmoids, per output."""


def _linear(shape: LayerShape) -> Iterable[Operator]:
    """Products with their biases and requantization; what is done with the outputs of the last."""
    elementwise, nonlinear = THEN[shape.then]
    for index, (rows, columns) in enumerate(shape.matrices):
        name = shape.name if len(shape.matrices) == 1 else f"{shape.name}/{index}"
        constants = shape.vectors if index == 0 else 0
        outputs = rows if index == len(shape.matrices) - 1 else 0
        yield Operator(
            name,
            shape.name,
            columns,
            rows,
            constants=constants,
            elementwise=2 * rows + int(elementwise * outputs),
            nonlinear=int(nonlinear * outputs),
        )


def _conv1d(shape: LayerShape) -> Iterable[Operator]:
    """Rows are output channels, columns the kernel's frames of the input channels of a group."""
    return (replace(part, groups=shape.heads) for part in _linear(shape))


def _lstm(shape: LayerShape) -> Iterable[Operator]:
    """Per direction two products into 4H gates; then the cell: per state, 4 sums of both products, 4 biases,
    4 requantizations, 3 products and 1 sum; 3 sigmoids and 2 tanhs."""
    directions = len(shape.matrices) // 2
    for direction in range(directions):
        suffix = "" if directions == 1 else f"/{('forward', 'backward')[direction]}"
        (gates, inputs), (_, hidden) = shape.matrices[2 * direction : 2 * direction + 2]
        yield Operator(f"{shape.name}{suffix}/input", shape.name, inputs, gates)
        yield Operator(f"{shape.name}{suffix}/hidden", shape.name, hidden, gates, reuse=shape.frames)
        yield Operator(
            f"{shape.name}{suffix}/cell",
            shape.name,
            outputs=hidden,
            constants=shape.vectors // directions,
            elementwise=16 * hidden,
            nonlinear=5 * hidden,
            reuse=shape.frames,
            error_prone=True,
        )


def _attention(shape: LayerShape) -> Iterable[Operator]:
    """Projections of the width D, then scores against `context` keys and a mixture of as many values; a softmax per
    head (an exponential, a sum and a quotient per score)."""
    yield from _linear(shape)
    width, context, heads = shape.matrices[0][0], shape.context, shape.heads
    scores = context * heads
    product = Operator(f"{shape.name}/scores", shape.name, -(-width // heads), scores, groups=heads, stored=False)
    yield replace(product, elementwise=2 * scores, nonlinear=scores)
    yield Operator(f"{shape.name}/mixture", shape.name, context, width, groups=heads, stored=False)


def _depthwise(shape: LayerShape) -> Iterable[Operator]:
    """A product and a sum per weight, a bias, requantization and a non-linear function per channel."""
    for channels, kernel in shape.matrices:
        yield Operator(
            shape.name,
            shape.name,
            kernel,
            channels,
            form="depthwise",
            constants=shape.vectors,
            elementwise=2 * channels * kernel + 2 * channels,
            nonlinear=channels,
        )


def _matmul(shape: LayerShape) -> Iterable[Operator]:
    """Against activations that are kept: keys, values."""
    product = Operator(shape.name, shape.name, shape.inputs, shape.outputs, groups=shape.heads, stored=False)
    yield replace(product, elementwise=2 * shape.outputs)


def _softmax(shape: LayerShape) -> Iterable[Operator]:
    """Per value the largest taken away, an exponential, a sum and a quotient."""
    yield Operator(
        shape.name,
        shape.name,
        outputs=shape.outputs,
        stored=False,
        elementwise=3 * shape.outputs,
        nonlinear=shape.outputs,
        error_prone=True,
    )


def _layer_norm(shape: LayerShape) -> Iterable[Operator]:
    """Per value two sums (mean, variance), a difference, a square, a quotient, a product and a sum; one root."""
    yield Operator(
        shape.name,
        shape.name,
        outputs=shape.outputs,
        stored=False,
        constants=shape.vectors,
        elementwise=7 * shape.outputs,
        nonlinear=1,
        error_prone=True,
    )


def _lstm_cell(shape: LayerShape) -> Iterable[Operator]:
    """An LSTM's without its products: per state 4 sums of both, 3 products and 1 sum; 3 sigmoids and 2 tanhs."""
    yield Operator(
        shape.name,
        shape.name,
        outputs=shape.outputs,
        stored=False,
        elementwise=8 * shape.outputs,
        nonlinear=5 * shape.outputs,
        error_prone=True,
    )


def _embedding(shape: LayerShape) -> Iterable[Operator]:
    for rows, columns in shape.matrices:
        yield Operator(shape.name, shape.name, rows, columns, form="lookup", constants=shape.vectors)


def _tied(shape: LayerShape) -> Iterable[Operator]:
    """A table that scores labels, too: rows are read at a rate of their own, and all of them are multiplied."""
    for rows, columns in shape.matrices:
        yield Operator(f"{shape.name}/row", shape.name, rows, columns, form="lookup")
        yield Operator(f"{shape.name}/scores", shape.name, columns, rows, constants=shape.vectors, elementwise=2 * rows)


def _constant(shape: LayerShape) -> Iterable[Operator]:
    """Normalization and its kind: a product and a sum with every stored number."""
    words = shape.vectors + -(-shape.other_bytes // 4)
    yield Operator(shape.name, shape.name, outputs=shape.vectors, constants=words, elementwise=shape.vectors)


KINDS: dict[str, Callable[[LayerShape], Iterable[Operator]]] = {
    "linear": _linear,
    "conv1d": _conv1d,
    "depthwise": _depthwise,
    "lstm": _lstm,
    "lstm_cell": _lstm_cell,
    "attention": _attention,
    "matmul": _matmul,
    "softmax": _softmax,
    "layer_norm": _layer_norm,
    "embedding": _embedding,
    "tied": _tied,
    "constant": _constant,
}
