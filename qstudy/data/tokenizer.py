"""Tokenizers: text to labels and back; characters or SentencePiece. Label 0 is the blank and never part of a text."""

import base64
import io
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Any

import sentencepiece
from annotated_types import Ge, Le

from qstudy.data.manifest import LONGEST_TEXT
from qstudy.errors import UserError

Labels = Annotated[int, Ge(2), Le(1_000_000)]
"""V, the number of labels, the blank included."""
ALPHABET = " 'abcdefghijklmnopqrstuvwxyz"
SPACE = "\u2581"
"""Stands for a space where white space separates labels, as in SentencePiece's pieces."""


class Tokenizer(ABC):
    """A reversible map between texts and labels 1 .. size - 1."""

    size: int
    """Number of labels, the blank included."""

    @abstractmethod
    def encode(self, text: str) -> list[int]:
        """The labels of a text.

        Raises:
            UserError: a character that no label covers; the message names it.
        """

    @abstractmethod
    def decode(self, labels: Sequence[int]) -> str:
        """The text of labels (no blanks among them); any sequence has one."""

    @abstractmethod
    def names(self) -> list[str]:
        """How labels 1 .. size - 1 are written where white space separates them (n-gram files), each differently.

        Raises:
            UserError: two labels would be written alike.
        """

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """A JSON-able, self-contained description, for `tokenizer_from_dict`."""


class CharTokenizer(Tokenizer):
    """One label per character; good for small vocabularies."""

    def __init__(self, alphabet: str = ALPHABET) -> None:
        if not isinstance(alphabet, str) or len(set(alphabet)) != len(alphabet) or not alphabet:
            raise UserError(f"tokenizer: alphabet {alphabet!r} must hold at least one character, and each only once.")
        if not alphabet.isprintable():
            raise UserError(f"tokenizer: alphabet {alphabet!a} must hold characters that can be printed.")
        self.alphabet = alphabet
        self.size = len(alphabet) + 1
        self._labels = {character: label for label, character in enumerate(alphabet, 1)}

    def encode(self, text: str) -> list[int]:
        try:
            return [self._labels[character] for character in text]
        except KeyError as error:
            raise UserError(_outside(error.args[0], text, f"the alphabet {self.alphabet!r}")) from None

    def decode(self, labels: Sequence[int]) -> str:
        return "".join(self.alphabet[label - 1] for label in labels)

    def names(self) -> list[str]:
        if SPACE in self.alphabet and " " in self.alphabet:
            raise UserError(f"tokenizer: alphabet {self.alphabet!r} has a space and {SPACE}, which stands for it.")
        return [SPACE if character.isspace() else character for character in self.alphabet]

    def to_dict(self) -> dict[str, Any]:
        return {"kind": "characters", "alphabet": self.alphabet}


class SentencePieceTokenizer(Tokenizer):
    """Byte-pair pieces (Kudo and Richardson 2018, arXiv 1808.06226); `<unk>` has id 0, which serves as the blank."""

    def __init__(self, model: bytes) -> None:
        self.model = model
        try:
            self._pieces = sentencepiece.SentencePieceProcessor(model_proto=model)
        except RuntimeError as error:
            raise UserError("tokenizer: the SentencePiece model is damaged; train or export it again.") from error
        if self._pieces.unk_id() != 0:
            raise UserError("tokenizer: the SentencePiece model must have <unk> as id 0 (train it with unk_id=0).")
        self.size = self._pieces.get_piece_size()

    @classmethod
    def train(cls, texts: Iterable[str], size: int) -> "SentencePieceTokenizer":
        """Learn `size` labels (the blank included) from texts; every character of theirs is covered.

        Raises:
            UserError: the texts do not have so many pieces, or have more characters than that.
        """
        model = io.BytesIO()
        try:
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=iter(texts),
                model_writer=model,
                vocab_size=size,
                model_type="bpe",
                character_coverage=1.0,
                normalization_rule_name="identity",  # references are compared as they are written
                unk_id=0,
                bos_id=-1,
                eos_id=-1,
                pad_id=-1,
                max_sentence_length=4 * LONGEST_TEXT,  # bytes; it would leave longer ones out without a word
                minloglevel=2,
            )
        except RuntimeError as error:
            reason = str(error).rsplit("] ", 1)[-1].strip().rstrip(".")
            raise UserError(f"tokenizer: size {size} does not suit the training texts: {reason}.") from error
        return cls(model.getvalue())

    def encode(self, text: str) -> list[int]:
        labels = self._pieces.encode(text)
        if 0 in labels:
            raise UserError(_outside(self._unknown(text), text, f"the {self.size} SentencePiece labels"))
        return labels

    def decode(self, labels: Sequence[int]) -> str:
        return self._pieces.decode([int(label) for label in labels])

    def names(self) -> list[str]:
        return [self._pieces.id_to_piece(label) for label in range(1, self.size)]

    def to_dict(self) -> dict[str, Any]:
        return {"kind": "sentencepiece", "model": base64.b64encode(self.model).decode()}

    def _unknown(self, text: str) -> str:
        return next((character for character in text if 0 in self._pieces.encode(character)), text)


_KINDS: dict[str, Callable[[dict[str, Any]], Tokenizer]] = {
    "characters": lambda values: CharTokenizer(values["alphabet"]),
    "sentencepiece": lambda values: SentencePieceTokenizer(base64.b64decode(values["model"])),
}


def tokenizer_from_dict(values: Any) -> Tokenizer:
    """Rebuild the tokenizer that `to_dict` described.

    Raises:
        UserError: the kind is unknown, or its field is missing or damaged.
    """
    kind = values.get("kind") if isinstance(values, Mapping) else None
    if not isinstance(kind, str) or kind not in _KINDS:
        raise UserError(f"tokenizer: kind {kind!r} is not one of {', '.join(_KINDS)}.")
    try:
        return _KINDS[kind](values)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"tokenizer: the description of kind {kind!r} is incomplete or damaged ({error!r}).") from error


def _outside(character: str, text: str, labels: str) -> str:
    return f"The character {character!r} in the text {text!r} is outside {labels}; change the text or the tokenizer."
