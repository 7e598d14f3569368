"""A decoder, as users say it, for a recognizer."""

from collections.abc import Sequence
from pathlib import Path

from qstudy.data.tokenizer import Tokenizer
from qstudy.model.language import LanguageModel
from qstudy.recognize.alignment_synchronous import AlignmentSynchronous
from qstudy.recognize.decoder import Decoder
from qstudy.recognize.fusion import Fusion
from qstudy.recognize.greedy import Greedy
from qstudy.recognize.language import load_language_model
from qstudy.recognize.options import BEAM, MAX_LABELS_PER_FRAME, Decoding, FusionSettings
from qstudy.recognize.time_synchronous import TimeSynchronous


def build_decoder(decoding: Decoding, tokenizer: Tokenizer) -> Decoder:
    """Build the search that `decoding` describes, with its language models.

    Args:
        decoding: what users say.
        tokenizer: of the recognizer.

    Raises:
        UserError: a language model cannot be loaded, or has other labels than the recognizer.
    """
    if decoding.decode == "greedy":
        return Greedy()
    return build_beam_search(decoding, load_fusion_models(decoding.fusion_settings(), tokenizer))


def build_beam_search(decoding: Decoding, fusion: Fusion) -> TimeSynchronous | AlignmentSynchronous:
    """Build a beam search with language models that are there already."""
    common = (decoding.beam or BEAM, fusion, decoding.max_labels or MAX_LABELS_PER_FRAME)
    if decoding.search == "alignment":
        return AlignmentSynchronous(*common)
    return TimeSynchronous(*common, prune=decoding.prune or "expansion")


def load_fusion_models(settings: FusionSettings, tokenizer: Tokenizer) -> Fusion:
    """Load the language models; raises as `build_decoder`."""
    lm, source = load_each((settings.lm, settings.source_lm), tokenizer)
    weights = (settings.lm_weight or 0.0, settings.source_weight or 0.0)
    return Fusion(lm, weights[0], source, weights[1], settings.length_reward or 0.0)


def load_each(files: Sequence[Path | None], tokenizer: Tokenizer) -> list[LanguageModel | None]:
    """The language models of files, None for None; raises as `build_decoder`."""
    return [None if file is None else load_language_model(file, tokenizer) for file in files]
