"""Files are whole or absent."""

import resource
from pathlib import Path

import pytest

from qstudy.errors import UserError
from qstudy.files import content_hash, read_json, replacing, safe_name, write_json, write_text


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
