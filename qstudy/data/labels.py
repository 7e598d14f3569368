"""The labels of a store's texts under one tokenizer, kept beside the features: long manifests take a while."""

from pathlib import Path

import numpy as np
from tqdm import tqdm

from qstudy.data.check import Problem
from qstudy.data.columns import Integers, Table, damaged, ragged, within, write_table
from qstudy.data.store import Store, are_sums, bin_sums, problem_columns, read_problems
from qstudy.data.tokenizer import Tokenizer
from qstudy.errors import UserError
from qstudy.files import content_hash


def labels_path(folder: Path, tokenizer: Tokenizer) -> Path:
    """Where the labels of a tokenizer are."""
    return folder / f"labels-{content_hash(tokenizer.to_dict())}.safetensors"


def write_labels(path: Path, store: Store, tokenizer: Tokenizer) -> None:
    """Encode all texts of a store.

    The table holds `items` (which utterances of the store have labels), `labels`, the problems of the others, and
    `sums` and `squares` of the features of `items`, so that their mean costs nothing later.

    Raises:
        UserError: the file cannot be written.
    """
    items, labels, problems = [], [], []
    sums, squares = store.index["sums"].copy(), store.index["squares"].copy()
    ends, lengths = store.index["lengths"].cumsum(), store.index["lengths"]
    for item, text in enumerate(tqdm(store.texts, desc="labels", unit="utt", disable=None, leave=False, delay=2)):
        try:
            labels.append(np.array(tokenizer.encode(text), np.int32))
            items.append(item)
        except UserError as error:
            problems.append(Problem(int(store.index["lines"][item]), str(error)))
            without = bin_sums(store.frames[ends[item] - lengths[item] : ends[item]])
            sums, squares = sums - without[0], squares - without[1]
    columns = {"items": np.array(items, np.int64), **ragged("labels", labels, np.int32), **problem_columns(problems)}
    write_table(path, {**columns, "sums": sums, "squares": squares}, {})


def check_labels(table: Table, store: Store, tokenizer: Tokenizer) -> None:
    """Raise UserError unless a table is one that `write_labels` may have made of this store."""
    items, labels = table["items"], Integers(table, "labels")
    fit = within(items, len(store.texts)) and len(labels) == len(items) and within(table["labels"], tokenizer.size)
    if not fit or any(table[name].shape != (store.bins,) for name in ("sums", "squares")):
        raise damaged(table.path, "it is of other texts or labels")
    if not are_sums(table):
        raise damaged(table.path, "no features have such sums")
    read_problems(table)
