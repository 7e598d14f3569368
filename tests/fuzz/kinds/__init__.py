"""The kinds of cases."""

from ..case import Maker
from . import audio, cache, checkpoint, manifest, options, packed, profile, records, run, sizes, sound, study

KINDS: dict[str, Maker] = {
    module.__name__.rpartition(".")[2]: module.make
    for module in (packed, checkpoint, manifest, audio, run, study, profile, sizes, records, cache, options, sound)
}
