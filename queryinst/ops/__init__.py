"""Tensors in, tensors out, no state."""
