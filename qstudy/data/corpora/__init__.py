"""Corpora to manifests: one file per corpus, each a plain function that `qstudy data NAME` calls."""

CORPORA = {
    "commands": "synthesize speech: voice-assistant commands",
    "digits": "connected digits from the Free Spoken Digit Dataset",
    "librispeech": "manifests of LibriSpeech's layout",
    "ljspeech": "manifests of LJSpeech's layout",
}
"""Name of a corpus, which is that of its file here and of the function in it -> one line on it."""
