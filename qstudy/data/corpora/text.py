"""Written English to the words that a recognizer learns: lower-case letters, apostrophes, single spaces."""

import re
import unicodedata

_REPLACED = str.maketrans(
    {"’": "'", "‘": "'", "´": "'", "&": " and ", **dict.fromkeys('-–—/⁄:;,!?…"“”()[]', " ")}
    | {"ß": "ss", "æ": "ae", "œ": "oe", "ø": "o", "ł": "l", "đ": "d"}
)
_OUTER_APOSTROPHE = re.compile(r"(?<![a-z])'|'(?![a-z])")  # quotation marks; "don't" keeps its own
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
_DOTS = re.compile(r"\.{2,}")  # a single one ends a sentence, or a part of "a.m."
_DROPPED = re.compile(r"[^a-z0-9' ]")


def normalize(text: str) -> str:
    """Lower-case, without accents and punctuation; digits stay (the check before training names them)."""
    whole = _DOTS.sub(" ", _THOUSANDS.sub("", text.lower()))
    plain = unicodedata.normalize("NFKD", whole.translate(_REPLACED)).translate(_REPLACED)
    spaced = re.sub(r"\s", " ", plain)
    return " ".join(_OUTER_APOSTROPHE.sub(" ", _DROPPED.sub("", spaced)).split())
