"""Written English to the words that a recognizer learns: lower-case letters, apostrophes, single spaces."""

import re
import unicodedata

_REPLACED = str.maketrans({"’": "'", "‘": "'", "´": "'", "&": " and ", "-": " ", "–": " ", "—": " ", "/": " "})
_OUTER_APOSTROPHE = re.compile(r"(?<![a-z])'|'(?![a-z])")  # quotation marks; "don't" keeps its own
_DROPPED = re.compile(r"[^a-z0-9' ]")


def normalize(text: str) -> str:
    """Lower-case, without accents and punctuation; digits stay (the check before training names them)."""
    plain = unicodedata.normalize("NFKD", text.translate(_REPLACED)).lower()
    spaced = re.sub(r"\s", " ", plain)
    return " ".join(_OUTER_APOSTROPHE.sub(" ", _DROPPED.sub("", spaced)).split())
