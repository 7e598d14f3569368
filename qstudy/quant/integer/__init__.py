"""Integer products: codes, exact accumulators, layers with straight-through gradients."""
