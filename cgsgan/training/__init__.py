"""Steps accumulate gradients and return scalars; the trainer turns steps into a run."""
