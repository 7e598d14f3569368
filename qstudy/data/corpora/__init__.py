"""Corpora to manifests: one file per corpus, each a plain function that `qstudy data NAME` calls."""
