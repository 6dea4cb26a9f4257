"""The ops in plain numpy: what a result means, whatever computes it."""
