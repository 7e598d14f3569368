"""Packed models: their file, which is read without torch, and how their layers run."""
