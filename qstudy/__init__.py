"""Quantization studies of RNN-Transducer speech recognizers."""

__version__ = "0.1.0"
