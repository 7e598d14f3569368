"""Which layers a model has, and how many bits each of them gets: plain data, shared by `quant` and `hardware`."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from fnmatch import fnmatchcase
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le
from pydantic import AllowInfNan

from qstudy.errors import UserError, meant, naming
from qstudy.fields import Count, Share, Size

FLOAT = 32  # this width means "no quantization"
WIDTHS = (2, 3, 4, 5, 6, 7, 8, 16, FLOAT)
PLACEMENTS = ("accelerator", "products", "cpu")
ALLOWED: dict[str, tuple[Any, ...]] = {
    "weight": WIDTHS,
    "activation": WIDTHS,
    "accumulator": (32,),
    "quantizer": ("uniform", "codebook"),
    "granularity": ("channel", "tensor", "group"),
    "placement": PLACEMENTS,
}
"""Field of `LayerBits` -> the values that it may have; 4.0 is not 4."""
WHOLE_ROW = 2**31 - 1  # more columns than any matrix has


WITHOUT_MATRICES = ("constant", "lstm_cell", "matmul", "softmax", "layer_norm")
"""Kinds of layers that multiply by no weight."""
WITHOUT_PRODUCTS = ("softmax", "layer_norm")
"""Kinds of layers that compute in float, unless a policy has the accelerator's own operators for them."""


Amount = Annotated[float, Ge(0), AllowInfNan(False)]
Then = Literal["", "silu", "glu", "sum", "half_sum"]
"""What is done with a layer's outputs that is no layer itself: an activation function, a gate that halves them, a sum
with what the layer's module was given (a residual connection), or the same with half of them."""


@dataclass(frozen=True)
class LayerShape:
    """What size and speed depend on, of one layer; no weights."""

    name: str
    """Dotted name in the model: `encoder.lstm.0`."""
    kind: str
    """`linear`, `conv1d`, `depthwise`, `lstm`, `embedding`, `tied` (a table that also is an output layer), `attention`
    (projections and products in one); without matrices `matmul` (of activations), `softmax`, `layer_norm`, and, in
    float under every policy, `constant` and `lstm_cell` (which stores nothing)."""
    matrices: tuple[tuple[Size, Size], ...] = ()
    """Weight matrices (rows = output channels, columns = inputs): an LSTM has (4H, D) and (4H, H)."""
    vectors: Count = 0
    """Float32 numbers stored beside the matrices: biases, normalization."""
    activations: Count = 0
    """Activation quantizers: 1 for a linear layer (its input), 2 for an LSTM (input, hidden state) and for a product of
    activations, 0 for a table."""
    every_ms: Annotated[float, Gt(0), AllowInfNan(False)] | None = None
    """The layer runs once per this many milliseconds of audio; None: not driven by frames."""
    per_label: Amount = 0.0
    """Runs per emitted label, on top of those per frame (predictor: 1, joiner output: 1, encoder: 0)."""
    share: Share = 1.0
    """Share of its frames on which it runs (a branch of an amortized network)."""
    frames: Size = 1
    """Frames that come in one go: a chunk, or the whole utterance of a layer that looks into the future."""
    after_end: bool = False
    """Waits for the end of the utterance (a bidirectional layer, a second pass)."""
    context: Count = 0
    """Frames that attention looks at."""
    heads: Size = 1
    """Heads of attention, or groups of a convolution: the outputs of each are made of inputs of its own."""
    other_bytes: Count = 0
    """Bytes of what is stored in other types than float32: counters, masks, indices."""
    inputs: Count = 0
    """Of a product of activations, per frame: inputs of an output (K)."""
    outputs: Count = 0
    """Likewise: outputs of all heads (N); of a softmax or a normalization, its values."""
    lookups: Annotated[int, Ge(0), Le(1000)] = 0
    """Rows of a tied table that are read per emitted label; the other rates are of its scores. 0: one at each of their
    runs, as in older files."""
    then: Then = ""
    """Element-wise work on the outputs of a linear layer."""
    twice: bool = False
    """Where it waits for the end: it has run as often before, for what decodes a second pass has decoded the first."""

    def __post_init__(self) -> None:
        if self.kind == "lstm" and (not self.matrices or len(self.matrices) % 2):
            raise UserError(f"{self.name}: matrices: an LSTM has two per direction, not {len(self.matrices)}.")
        if (self.kind in WITHOUT_MATRICES) == bool(self.matrices):
            raise UserError(
                f"{self.name}: matrices: {', '.join(WITHOUT_MATRICES)} have none, every other layer has some."
            )
        if self.lookups and self.kind != "tied":
            raise UserError(f"{self.name}: lookups: they are of tied tables; a layer of kind {self.kind!r} has none.")
        if self.then and self.kind != "linear":
            raise UserError(f"{self.name}: then: {self.then!r} follows linear layers, not those of kind {self.kind!r}.")

    @property
    def quantizable(self) -> bool:
        """Whether it has a slot, and a place in bit maps."""
        return self.kind not in ("constant", "lstm_cell")

    @property
    def stored(self) -> tuple[Any, ...]:
        """What a file holds of it, whenever it runs."""
        return self.kind, self.matrices, self.vectors, self.activations, self.other_bytes

    @property
    def parameters(self) -> int:
        """Number of stored weights."""
        return sum(rows * columns for rows, columns in self.matrices) + self.vectors


@dataclass(frozen=True)
class LayerBits:
    """In which arithmetic one layer computes."""

    weight: int = FLOAT
    """Bits per weight: 2 to 8, 16, or 32 for float."""
    activation: int = FLOAT
    """Bits per activation (inputs; for an LSTM the hidden state too)."""
    accumulator: int = 32
    """Bits of the accumulator of a matrix product: 32, as all of them have here."""
    quantizer: str = "uniform"
    """Where the levels lie: `uniform`, or `codebook` (a table of 2**weight entries of 8 bits)."""
    granularity: str = "channel"
    """Weights that share a scale: `channel` (a row of the matrix), `tensor`, or `group` (part of a row)."""
    group: int = 64
    """Columns of a group, where the granularity is `group`; the last one of a row may have fewer."""
    placement: str = "accelerator"
    """Where the layer runs: `accelerator`, `cpu`, or `products`: its matrix products on the accelerator, its
    error-prone operators (an LSTM's sigmoids, tanhs and element-wise products) on the CPU, unless the accelerator's
    element-wise units compute in floats."""

    def __post_init__(self) -> None:
        for field, allowed in ALLOWED.items():
            value = getattr(self, field)
            if type(value) is not type(allowed[0]) or value not in allowed:
                unit = " bits" if field in ("weight", "activation", "accumulator") else ""
                raise UserError(f"{field}: {value!r}{unit} is not one of {', '.join(map(str, allowed))}.")
        if type(self.group) is not int or not 0 < self.group < WHOLE_ROW:
            raise UserError(f"group: {self.group!r} is not a positive number of columns.")

    @property
    def columns_per_scale(self) -> int:
        """How many columns of a row share a scale; 0: the whole matrix has one."""
        return {"tensor": 0, "channel": WHOLE_ROW}.get(self.granularity, self.group)

    @property
    def quantized(self) -> bool:
        """Whether anything of the layer is quantized."""
        return self.weight != FLOAT or self.activation != FLOAT

    def fits(self, columns: int) -> bool:
        """Whether the sum of a row's products, of so many columns, stays within the accumulator whatever the numbers.

        Of 8 bits those of weights reach -128, codebooks' too, those of activations 255, from a zero point at one end.
        Wider numbers are added otherwise, and groups each on their own.
        """
        if max(self.weight, self.activation) > 8 or self.granularity == "group":
            return True
        weight = 8 if self.quantizer == "codebook" else self.weight
        return columns * 2 ** (weight - 1) * (2**self.activation - 1) < 2 ** (self.accumulator - 1)

    def to_dict(self) -> dict[str, Any]:
        """A JSON-able copy."""
        return asdict(self)


BitMap = dict[str, LayerBits]
"""Layer name -> widths, in the model's order: the single source for size, latency, search space and tables."""


BitPatterns = Mapping[str, Mapping[str, Any]]
"""Ordered glob patterns -> fields of `LayerBits`; the last match wins, field by field."""


def resolve(patterns: BitPatterns, shapes: Iterable[LayerShape], default: LayerBits | None = None) -> BitMap:
    """Turn ordered glob patterns into one `LayerBits` per quantizable layer.

    Args:
        patterns: e.g. `{"encoder.*": {"weight": 4, "activation": 8}, "joiner.*": {"weight": 8}}`; later patterns
            override the fields that they name.
        shapes: the model's layers; constants are left out.
        default: the widths of layers that no pattern matches; float if None.

    Raises:
        UserError: a pattern matches no layer, or names an unknown field or width, or columns of a group where nobody
            says whether there are groups.
    """
    names = [shape.name for shape in shapes if shape.quantizable]
    bit_map = dict.fromkeys(names, default or LayerBits())
    named: dict[str, set[str]] = {name: set() for name in names}
    known = {field.name for field in fields(LayerBits)}
    for pattern, values in patterns.items():
        if not isinstance(values, Mapping) or (unknown := set(values) - known):
            mapping = isinstance(values, Mapping)
            wrong = (
                f"has the unknown field {min(unknown)!r}{meant(min(unknown), known)}" if mapping else "is not a mapping"
            )
            raise UserError(f"layers: {pattern!r} {wrong}; fields are {', '.join(sorted(known))}.")
        for name in matching(pattern, names, "layers"):
            with naming(f"layers: {pattern!r}"):
                bit_map[name] = replace(bit_map[name], **values)
            named[name] |= set(values)
    for name, bits in bit_map.items():
        if "group" in named[name] and "granularity" not in named[name] and bits.granularity != "group":
            raise UserError(f"layers: {name}: group: {bits.group} says nothing without granularity: group; add it.")
    return bit_map


def require_fitting_sums(bit_map: BitMap, shapes: Iterable[LayerShape]) -> None:
    """Raise UserError if the sums of a layer's products could overflow its accumulators."""
    for shape in shapes:
        columns, bits = max((inputs for _, inputs in shape.matrices), default=1), bit_map.get(shape.name, LayerBits())
        if not bits.fits(columns):
            raise UserError(
                f"layers: {shape.name}: sums over {columns:,} inputs at {bits.weight} by {bits.activation} bits do not "
                f"fit into {bits.accumulator} bits; give it fewer, or granularity: group."
            )


def matching(pattern: str, names: Iterable[str], field: str) -> list[str]:
    """The layers that a glob pattern matches.

    Raises:
        UserError: there is none; `field` is where the pattern stands.
    """
    known = list(names)
    if not known:
        raise UserError(
            f"{field}: the model has no quantizable layer; qstudy.quantize(model, policy) makes them of torch's."
        )
    matches = [name for name in known if fnmatchcase(name, str(pattern))]
    if not matches:
        raise UserError(f"{field}: the pattern {pattern!r} matches no layer; layers are {', '.join(known)}.")
    return matches
