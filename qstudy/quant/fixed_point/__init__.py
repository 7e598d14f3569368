"""The accelerator's operators in fixed point."""
