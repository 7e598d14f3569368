"""`qstudy.threads`: compiled loops run on torch's threads, or on Python's, once for each share of the work."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from qstudy import threads as ours
from qstudy.jit import compiled
from qstudy.threads import callers, in_shares, on_threads


@pytest.fixture(params=["torch's", "Python's"], autouse=True)
def whose(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Whose threads do the work."""
    if request.param == "Python's":
        monkeypatch.setattr(ours, "openmp", lambda: None)
    elif not ours.openmp():
        pytest.skip("torch has threads of another kind")
    return str(request.param)


@pytest.fixture(params=[1, 2, 5], autouse=True)
def count(request: pytest.FixtureRequest, threads: Callable[[int], None]) -> int:
    """How many threads torch has."""
    threads(request.param)
    return int(request.param)


@compiled()
def scale(
    values: np.ndarray, factor: np.float32, by: int, halved: bool, calls: np.ndarray, thread: int, threads: int
) -> None:
    for i in range(thread, values.size, threads):
        values[i] *= factor * by * (0.5 if halved else 1.0)
    calls[thread] += threads


@compiled()
def add_up(rows: np.ndarray, sums: np.ndarray, thread: int, threads: int) -> None:
    for i in range(thread, len(rows), threads):
        row = rows[i]  # a view: its reference counts are nobody's business
        total = np.zeros(1)
        for j in range(row.size):
            total[0] += row[j]
        sums[i] = total[0]


@compiled()
def fail(values: np.ndarray, thread: int, threads: int) -> None:
    if thread == threads - 1:
        raise ValueError("broken")
    values[thread] = 1.0


@pytest.mark.parametrize("step", [1, 3])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_every_share_is_done_once(count: int, step: int, dtype: type) -> None:
    values, calls = np.arange(30, dtype=dtype), np.zeros(8, np.int64)
    expected = np.arange(30, dtype=dtype)
    expected[::step] *= 3
    on_threads(scale, values[::step], np.float32(1.5), 4, True, calls)
    on_threads(scale, values[::step], np.float32(1.0), 1, False, calls)
    assert values.tolist() == expected.tolist()
    assert calls.tolist() == [2 * count] * count + [0] * (8 - count)


def test_several_callers_at_once() -> None:
    rows = np.random.default_rng(0).random((64, 33))

    def sums(_: int) -> list[float]:
        found = np.empty(64)
        on_threads(add_up, rows, found)
        return found.tolist()

    with ThreadPoolExecutor(3) as pool:
        results = list(pool.map(sums, range(30)))
    assert all(each == results[0] for each in results)
    assert results[0] == pytest.approx(rows.sum(1))


def test_errors_are_raised(whose: str, count: int) -> None:
    values = np.zeros(8)
    error = RuntimeError if whose == "torch's" else ValueError
    said = f"fail failed on one of {count} threads" if whose == "torch's" else "broken"
    with pytest.raises(error, match=said):
        on_threads(fail, values)
    assert values.sum() == count - 1, "the others have done their share"


def test_functions_that_nobody_compiled_raise_their_own(count: int) -> None:
    def refuse(thread: int, threads: int) -> None:
        if thread == threads - 1:
            raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        on_threads(refuse)


def test_a_fork_has_threads(count: int) -> None:
    values = np.ones(100)
    on_threads(scale, values, np.float32(2.0), 1, False, np.zeros(8, np.int64))
    if child := os.fork():
        assert os.waitpid(child, 0)[1] == 0
        return
    try:
        on_threads(scale, values, np.float32(2.0), 1, False, np.zeros(8, np.int64))
    finally:
        os._exit(0 if values.tolist() == [4.0] * 100 else 1)


def test_shares_of_the_items_have_shares_of_the_threads(count: int) -> None:
    def work(share: Sequence[int]) -> tuple[list[int], int]:
        return [10 * each for each in share], torch.get_num_threads()

    expected = {1: [([0, 10, 20], 1)], 2: [([0, 20], 1), ([10], 1)], 5: [([0], 2), ([10], 2), ([20], 1)]}
    assert in_shares(work, range(3), callers(3)) == expected[count]
    with ThreadPoolExecutor(1) as fresh:
        assert fresh.submit(torch.get_num_threads).result() == count, "threads yet to come have as many as this one"
    assert in_shares(work, range(1), callers(1)) == [([0], count)]
    assert callers(0) == 1


def test_an_error_in_a_share_is_raised(count: int) -> None:
    def work(share: Sequence[int]) -> None:
        if 2 in share:
            raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        in_shares(work, range(4), callers(4))
    with ThreadPoolExecutor(1) as fresh:
        assert fresh.submit(torch.get_num_threads).result() == count


@pytest.mark.parametrize("inference", [False, True])
def test_shares_are_in_the_callers_inference_mode(inference: bool) -> None:
    with torch.inference_mode(inference):
        found = in_shares(lambda _: torch.is_inference_mode_enabled(), range(4), callers(4))
    assert set(found) == {inference}
