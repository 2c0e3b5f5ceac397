"""Streams in, tensors out: many batches in flight over the parts of ckbd.codec (docs/batches.md)."""
