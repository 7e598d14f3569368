"""Quantizers, arithmetics, quantizable layers, packing: everything that turns floats into few bits."""
