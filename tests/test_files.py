"""Files are whole or absent."""

import json
import os
import resource
import time
from pathlib import Path

import pytest

from qstudy.errors import UserError
from qstudy.files import content_hash, read_json, replacing, rows_hash, safe_name, write_json, write_text
from qstudy.quant.packed import file as packed


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "a.txt"
    write_text(path, "old")

    def fail() -> None:
        with replacing(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert path.read_text() == "old"
    assert list(path.parent.iterdir()) == [path]


def test_a_full_disk_is_a_user_error(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
        with pytest.raises(UserError, match=r"Cannot write .*a\.txt: .*free space"):
            write_text(tmp_path / "a.txt", "x" * 100_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list(tmp_path.iterdir())


def test_a_file_where_a_folder_should_be(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="Cannot write"):
        write_text(tmp_path / "file" / "a.txt", "x")


def test_json(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"word": "größe", "numbers": [1, 2.5]})
    assert read_json(path) == {"word": "größe", "numbers": [1, 2.5]}
    with pytest.raises(ValueError, match="nan"):
        write_json(path, {"number": float("nan")})
    assert read_json(path)["numbers"] == [1, 2.5]


@pytest.mark.parametrize("content", [b'{"a": [1, 2', b"\xff\xfe\x00", None], ids=["cut", "binary", "missing"])
def test_broken_json_names_the_file(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "a.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=r"a\.json"):
        read_json(path)


def test_equal_contents_have_equal_hashes() -> None:
    assert content_hash({"a": 1, "b": [2]}) == content_hash({"b": [2], "a": 1})
    assert content_hash({"a": 1}) != content_hash({"a": 2})
    assert len(content_hash("x")) == 16


@pytest.mark.parametrize("rows", [[], [[]], [[1, 2], [], [30]], [[7]] * 1000], ids=["none", "empty", "few", "many"])
def test_a_hash_row_by_row_is_that_of_the_whole(rows: list[list[int]]) -> None:
    """Checkpoints tell of their texts by it: those of older versions still go on."""
    assert rows_hash(rows) == content_hash(rows)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "<script>",
        "a b",
        "$x",
        "=1",
        ".",
        "..",
        "../x",
        "a/b",
        "/etc/x",
        "a\\b",
        "C:x",
        "a\0b",
        "a\nb",
        "-rf",
        ".hidden",
        " a",
        "a ",
        "x" * 101,
        "\ud800",
    ],
    ids=ascii,
)
def test_what_could_leave_its_folder_is_no_name(name: str) -> None:
    with pytest.raises(UserError, match=r"^study: '.*' cannot name a file: use letters") as caught:
        safe_name(name, "study")
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("name", ["digits", "trial-0001-ptq", "lr=0.1,b+c", "größe", "a..b", "x" * 100])
def test_names(name: str) -> None:
    assert safe_name(name, "study") == name


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[" * 100_000, "nested more than 50 times"),
        (b"[" * 60 + b"]" * 60, "nested more than 50 times"),
        (b'{"a": 1, "b": 2, "a": 3}', "the key 'a' occurs twice"),
        (b"1" * 5000, "the number 11111111111111111111... has more than 20 digits"),
        (b"NaN", "NaN is not a finite number"),
        (b"[-Infinity]", "-Infinity is not a finite number"),
        (b"1e999", "1e999 is not a finite number"),
        (b'"\xff"', "is not UTF-8 text"),
        (b'"\\ud800"', "is not UTF-8 text"),
        (b"{", "is not valid JSON (line 1"),
    ],
    ids=lambda value: value[:12] if isinstance(value, bytes) else "",
)
def test_json_of_strangers(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(UserError) as caught:
        read_json(tmp_path / "a.json")
    assert str(caught.value).startswith(f"{tmp_path / 'a.json'} ")
    assert message in str(caught.value)


def test_json_at_its_limits(tmp_path: Path) -> None:
    value = [18446744073709551615, -1.5e300, {"größe 😀": [[[None]]]}]
    (tmp_path / "a.json").write_text(json.dumps(value))
    assert read_json(tmp_path / "a.json") == value


def test_doubled_keys_are_found_at_once(tmp_path: Path) -> None:
    keys = ", ".join(f'"{number}": 1' for number in [*range(30000), 29999])
    (tmp_path / "a.json").write_text(f"{{{keys}}}")
    started = time.process_time()
    with pytest.raises(UserError, match="'29999' occurs twice"):
        read_json(tmp_path / "a.json")
    assert time.process_time() - started < 2


def test_only_files_are_replaced(tmp_path: Path) -> None:
    """A device that a file has replaced is lost to all programs."""
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path):
        with pytest.raises(UserError, match="is not a regular file"):
            write_text(path, "text")
    assert (tmp_path / "pipe").is_fifo()


def test_what_could_be_read_for_ever_is_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zero").symlink_to("/dev/zero")
    for path in (tmp_path / "pipe", tmp_path / "zero", tmp_path):
        for read in (read_json, packed.read):
            with pytest.raises(UserError, match="is not a file"):
                read(path)
