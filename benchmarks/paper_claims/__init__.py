"""The latency claims of three papers, priced by the simulator: `python -m benchmarks.paper_claims`."""
