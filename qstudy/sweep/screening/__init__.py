"""Which widths are worth a training: a switchable model, trained once, judges them before."""
