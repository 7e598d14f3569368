"""From encoder frames to label sequences."""
