"""Builds a store: every sound file is read once, checked and turned into features; what a stopped build did stays."""

import logging
import shutil
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from tqdm import tqdm

from qstudy.data.audio import require_length, resample
from qstudy.data.check import checked_audio, checked_line, problem, require_sound, still_broken
from qstudy.data.columns import text_columns, write_table
from qstudy.data.draft import Computed, Draft
from qstudy.data.features import PER_UNIT, FeatureSettings, Filterbank, extract
from qstudy.data.manifest import Line, parse_line
from qstudy.data.store import INDEX, USED, draft_path, problem_columns
from qstudy.errors import UserError

BLOCK = 64  # lines of the manifest that are written together: what a killed build loses at most
_AHEAD = 64  # utterances whose features wait in memory

log = logging.getLogger(__name__)

Item = TypeVar("Item")
Result = TypeVar("Result")


def build(folder: Path, manifest: Path, lines: Sequence[Line], settings: FeatureSettings, skip_broken: bool) -> None:
    """Make the store `folder`, going on with what an interrupted build left; the caller holds its lock.

    Raises:
        UserError: broken utterances (unless `skip_broken`), or no sound one; what was computed stays for the next call.
        OSError: the disk is full or the folder cannot be written; likewise.
    """
    draft = Draft(draft_path(folder), settings.bins, partial(still_broken, manifest, lines))
    try:
        _fill(draft, manifest, lines, settings)
    finally:
        draft.close()
    if not skip_broken or not draft.lines:
        require_sound(manifest, draft.problems)
    _write_index(draft, manifest, lines, settings)
    (draft.store / USED).touch()
    shutil.rmtree(folder, ignore_errors=True)  # a damaged one, or one without what can be read now
    draft.store.rename(folder)
    shutil.rmtree(draft.folder)


def _fill(draft: Draft, manifest: Path, lines: Sequence[Line], settings: FeatureSettings) -> None:
    """Write the blocks that are missing."""
    done = draft.done
    if done:
        log.warning("Going on with the features of %s: %d of %d lines are done.", manifest, done, len(lines))
    compute = partial(_compute, manifest=manifest, filterbank=Filterbank(settings))
    bar = tqdm(total=len(lines), initial=done, desc="features", unit="utt", disable=None)
    with _threads() as pool, bar as progress:
        results = _in_order(pool, compute, lines[done:])
        while block := list(islice(results, BLOCK)):
            draft.add(block)
            progress.update(len(block))


def _compute(line: Line, manifest: Path, filterbank: Filterbank) -> Computed:
    """Read, check and transform one utterance."""
    settings = filterbank.settings
    try:
        utterance = checked_line(manifest, line)
        samples, rate = checked_audio(utterance)
        require_length(utterance.audio, samples, rate, settings.sample_rate)
    except UserError as error:
        return Computed(line.number, np.zeros((0, settings.bins), np.int16), problem(manifest, line, error))
    features = extract(filterbank, torch.from_numpy(resample(samples, rate, settings.sample_rate)))
    return Computed(line.number, (features * PER_UNIT).to(torch.int16).numpy())


@contextmanager
def _threads() -> Iterator[ThreadPoolExecutor]:
    """As many threads as torch may use, each of which uses one."""
    count = torch.get_num_threads()
    pool = ThreadPoolExecutor(count, initializer=torch.set_num_threads, initargs=(1,))
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(count)  # the initializer also sets what later threads get


def _in_order(pool: ThreadPoolExecutor, function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """The results in the order of the items, at most _AHEAD of them computed before they are asked for."""
    waiting: deque[Future[Result]] = deque()
    for item in items:
        waiting.append(pool.submit(function, item))
        if len(waiting) > _AHEAD:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _write_index(draft: Draft, manifest: Path, lines: Sequence[Line], settings: FeatureSettings) -> None:
    by_number = {line.number: line for line in lines}
    texts = [parse_line(by_number[number], manifest).text for number in draft.lines]
    lengths = np.array(draft.lengths, np.int64)
    columns = {
        "lines": np.array(draft.lines, np.int64),
        "lengths": lengths,
        "sums": draft.sums,
        "squares": draft.squares,
        **text_columns("texts", texts),
        **problem_columns(draft.problems),
    }
    seconds = float(lengths.sum()) * settings.hop / settings.sample_rate
    about = {"manifest": str(manifest), "utterances": len(texts), "seconds": seconds, "features": draft.checksum}
    write_table(draft.store / INDEX, columns, about)
