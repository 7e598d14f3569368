"""What a bit map costs on a device: exact sizes, accelerator descriptions, workloads, and the latency simulator.

Where to find what, in the order a bit width travels: `size.py` (bytes of packed weights), `workload.py` (a model as a
list of operators), `search.py` (what a beam search does with those of the decoder), `model_shapes.py` (a model without
its weights, fused with language models; from a YAML of sizes), `accelerator.py` and `profiles/` (machines as YAML),
`table.py` (operators and bit maps as arrays), `systolic.py` (compute cycles), `memory.py` and `tiling.py` (bytes
moved), `cost.py` (seconds per operator), `placement.py` (accelerator or CPU), `stream.py` (user-perceived latency),
`simulator.py` (the report), `beams.py` (latency over beam widths). Numpy, the standard library and a YAML reader only.
"""
