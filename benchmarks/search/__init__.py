"""What a search costs: plain samplers against screening, by the volume behind the front for the seconds of training."""
