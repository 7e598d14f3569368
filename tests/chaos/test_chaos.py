"""The short form: every mishap once."""

from pathlib import Path

import pytest

from tests.postgres import FOUND

from . import mishaps
from .run import run

pytestmark = pytest.mark.skipif(FOUND is None, reason="needs PostgreSQL's initdb (Debian: postgresql)")


def test_every_mishap_costs_nothing(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mishaps, "LONGEST_S", 3.0)
    pytest.importorskip("psycopg", reason="needs psycopg (the extra `sweep`)")
    said = run(corpus, tmp_path, times=len(mishaps.MISHAPS), seed=1, trials=6)
    assert said.startswith("4 mishaps in ")
