"""Studies: a search space over policies and widths, budgets, and workers that share one storage."""
