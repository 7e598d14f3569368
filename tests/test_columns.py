"""Tables on disk: what is written is read back, mapped; every damaged bit is noticed."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qstudy.data.columns import Integers, Table, Texts, ragged, read_metadata, text_columns, write_table
from qstudy.errors import UserError


@given(st.lists(st.text()), st.lists(st.lists(st.integers(-(2**31), 2**31 - 1))))
def test_rows_come_back(tmp_path_factory: pytest.TempPathFactory, texts: list[str], rows: list[list[int]]) -> None:
    path = tmp_path_factory.mktemp("table") / "t"
    arrays = [np.array(row, np.int32) for row in rows]
    write_table(path, {**text_columns("words", texts), **ragged("numbers", arrays, np.int32)}, {"about": [1, "é"]})
    table = Table(path)
    assert list(Texts(table, "words")) == texts
    assert list(Integers(table, "numbers")) == rows
    assert table.metadata == {"about": [1, "é"]}
    some = np.arange(len(texts))[::-2]
    assert list(Texts(table, "words", some)) == texts[::-2]
    assert Texts(table, "words")[1:3] == texts[1:3]


def test_half_of_a_surrogate_pair_is_a_text(tmp_path: Path) -> None:
    write_table(tmp_path / "t", text_columns("words", ["\ud800"]), {})  # JSON allows it
    assert Texts(Table(tmp_path / "t"), "words")[0] == "\ud800"


def test_every_bit_counts(tmp_path: Path) -> None:
    path = tmp_path / "t"
    write_table(path, {"numbers": np.arange(5), "more": np.zeros(0)}, {"name": "x"})
    content = path.read_bytes()
    for position in range(len(content)):
        path.write_bytes(content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :])
        with pytest.raises(UserError, match="is damaged"):
            Table(path)
    for size in (0, 7, 100, len(content) - 1):
        path.write_bytes(content[:size])
        with pytest.raises(UserError, match="is damaged"):
            Table(path)
    path.unlink()
    with pytest.raises(UserError, match="is damaged"):
        read_metadata(path)


def test_mapped_not_copied_and_read_only(tmp_path: Path) -> None:
    path = tmp_path / "t"
    write_table(path, {"numbers": np.arange(1 << 16)}, {})
    table = Table(path)
    with pytest.raises(ValueError, match="read-only"):
        table["numbers"][0] = 1
    assert any(str(path) in line for line in Path("/proc/self/maps").read_text().splitlines())
