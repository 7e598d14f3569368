"""Integer products: codes and exact accumulators."""
