"""From a configuration to a trained, packed and recorded model."""
