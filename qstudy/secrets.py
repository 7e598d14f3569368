"""A storage's URL may hold a password: how it is kept out of files, messages, and the arguments that others read."""

import os
import re
import sys
import traceback
from collections.abc import Sequence
from types import TracebackType
from urllib.parse import quote, unquote, unquote_plus

STORAGE_VARIABLE = "QSTUDY_STORAGE"
"""The environment variable with the URL, which neither process lists nor Weights & Biases show."""
STARS = "***"
_OPTION = "--storage"
_SCHEME = r"[A-Za-z][\w+.-]{0,30}://"  # bounded: a long text without any URL takes no time
_URL = re.compile(rf"{_SCHEME}\S+")
_ARGUMENT = re.compile(rf"{_SCHEME}.+", re.DOTALL)  # a whole one: its password may hold a space
_PARTS = re.compile(
    r"(?P<scheme>[A-Za-z][\w+.-]*)://"
    r"((?P<user>[^:/?@\s]*)(?P<password>:[^/?@]*)?@)?"
    r"(?P<place>/[^?@]*|[^:/?@]*(:\d*)?(/[^?@]*)?)"
    r"(?P<query>\?[^@]*)?",
    re.DOTALL,
)


def masked(url: str) -> str:
    """The URL without its password and without the values of its query; of one that can be read in two ways, little."""
    parts = _PARTS.fullmatch(url)
    if parts is None:
        scheme, separator, _ = url.partition("://")
        return f"{scheme}{separator}{STARS}" if separator else STARS
    user = "" if parts["user"] is None else f"{parts['user']}{f':{STARS}' if parts['password'] else ''}@"
    query = f"?{STARS}" if parts["query"] else ""
    return f"{parts['scheme']}://{user}{parts['place']}{query}"


def masked_arguments(arguments: Sequence[str]) -> list[str]:
    """Arguments of a command, with every URL in them masked, and whatever is given as a storage."""
    words = [_ARGUMENT.sub(lambda found: masked(found[0]), word) for word in arguments]
    for index, word in enumerate(words):
        name, given, url = word.partition("=")
        if name == _OPTION and given:
            words[index] = f"{name}={masked(url)}"
        elif word == _OPTION and not "".join(words[index + 1 : index + 2]).startswith("-"):
            words[index + 1 : index + 2] = map(masked, words[index + 1 : index + 2])
    return words


def mask_urls(text: str) -> str:
    """A text with every URL in it masked."""
    return _URL.sub(lambda found: masked(url := found[0].rstrip("'\"")) + found[0][len(url) :], text)


def hide(text: str, url: str | None = None) -> str:
    """A message without the secrets of any URL in it, nor of the storage's, however a driver quotes them.

    Args:
        text: what others said, such as an exception or a traceback.
        url: the storage's; by default that in the environment.
    """
    url = url or os.environ.get(STORAGE_VARIABLE, "")
    text = mask_urls(text.replace(url, masked(url)) if url else text)
    for secret in sorted(_secrets(url), key=len, reverse=True):
        text = re.sub(rf"(?<!\w){re.escape(secret)}(?!\w)", STARS, text)
    return text


def _secrets(url: str) -> set[str]:
    """Everything in a URL that may be secret, as it stands there, decoded and encoded."""
    rest = url.partition("://")[2] or url
    ends = (rest.partition("@")[0], rest.rpartition("@")[0]) if "@" in rest else ()
    raw = [end.partition(":")[2] for end in ends]
    raw += [pair.partition("=")[2] for pair in re.split("[?&]", rest)[1:]]
    forms = ((part, unquote(part), unquote_plus(part), quote(unquote(part), safe="")) for part in raw)
    return {form for each in forms for form in each if form}


def storage_to_environment(arguments: Sequence[str]) -> list[str]:
    """Move `--storage URL` from a command's arguments to the environment variable; the other arguments."""
    rest, words = list[str](), list(arguments)
    while words:
        word = words.pop(0)
        name, given, url = word.partition("=")
        if name == _OPTION and not given and words and not words[0].startswith("-"):
            url = words.pop(0)
        if name != _OPTION or not url:
            rest.append(word)
        else:
            os.environ[STORAGE_VARIABLE] = url
    return rest


def print_crash(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """For `sys.excepthook`: the traceback without secrets."""
    sys.stderr.write(hide("".join(traceback.format_exception(kind, error, trace))))
