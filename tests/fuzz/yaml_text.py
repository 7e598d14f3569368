"""YAML that is hard to read, whatever it says: encodings, aliases, recursion, depth, duplicates."""

from random import Random
from typing import Any

import yaml

BOMB = "zzz: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"zzz{i}: &{chr(98 + i)} [{', '.join(['*' + chr(97 + i)] * 10)}]\n" for i in range(12)
)


def dumped(value: Any) -> bytes:
    """Plain YAML; what YAML cannot say plainly is left to its tags."""
    return yaml.dump(value, sort_keys=False).encode("utf-8", "surrogatepass")


def rewritten(random: Random, value: dict[str, Any]) -> tuple[bytes, str, bool]:
    """The text of a mapping with something done to it; whether it must be refused."""
    text = yaml.safe_dump(value, sort_keys=False)
    key = random.choice(list(value))
    named = key not in ("name", "source")  # these take any text
    first = text.split("\n", 1)[0]
    ways: dict[str, tuple[bytes, bool]] = {
        "not UTF-8": (text.encode() + b"# \xff\xfe\n", True),
        "UTF-16": (text.encode("utf-16"), False),
        "byte order mark": (b"\xef\xbb\xbf" + text.encode(), False),
        "null byte": (text.encode() + b"zzz: a\0b\n", True),
        "tab": (text.encode() + b"\tzzz: 1\n", True),
        "cut": (text.encode()[: random.randrange(1, len(text))], False),
        "empty": (b"", True),
        "comment": (b"# nothing\n", True),
        "list": (b"- a\n- b\n", True),
        "scalar": (b"hello", True),
        "two documents": (text.encode() + b"---\nzzz: 1\n", True),
        "duplicate key": (text.encode() + yaml.safe_dump({key: value[key]}).encode(), True),
        "recursion": (f"{key}: &r {{zzz: *r}}\n".encode() + _without(value, key), True),
        "recursive list": (f"{key}: &r [*r]\n".encode() + _without(value, key), True),
        "alias bomb": (BOMB.encode() + text.encode(), True),
        "alias bomb inside": (BOMB.encode() + f"{key}: *m\n".encode() + _without(value, key), True),
        "deep": (text.encode() + b"zzz: " + b"[" * 20_000 + b"]" * 20_000, True),
        "deep mapping": (f"{key}: {'{a: ' * 5000}1{'}' * 5000}\n".encode() + _without(value, key), True),
        "python tag": (text.encode() + b"zzz: !!python/object/apply:os.system ['touch fuzz_canary']\n", True),
        "unknown tag": (text.encode() + b"zzz: !foo bar\n", True),
        "unknown alias": (text.encode() + b"zzz: *nowhere\n", True),
        "merge": (text.encode() + b"<<: 3\n", True),
        "merge recursion": (b"a: &r\n  <<: *r\n" + text.encode(), True),
        "date": (f"{key}: 2020-01-01\n".encode() + _without(value, key), False),
        "binary": (f"{key}: !!binary aGVsbG8=\n".encode() + _without(value, key), named),
        "set": (f"{key}: !!set {{a, b}}\n".encode() + _without(value, key), named),
        "sexagesimal": (f"{key}: 1:30\n".encode() + _without(value, key), False),
        "numeric key": (text.encode() + b"3: 1\n", True),
        "null key": (text.encode() + b"? \n: 1\n", True),
        "list key": (text.encode() + b"? [a, b]\n: 1\n", True),
        "long integer": (text.encode() + b"zzz: " + b"9" * 5000 + b"\n", True),
        "again": ((first + "\n" + text).encode(), True),
    }
    how = random.choice(list(ways))
    content, invalid = ways[how]
    return content, f"text {how}", invalid


def _without(value: dict[str, Any], key: str) -> bytes:
    return yaml.safe_dump({name: inner for name, inner in value.items() if name != key}, sort_keys=False).encode()
