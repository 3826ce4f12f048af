"""Weights in and out: what a run starts from, exports, conversions; may import loop, batches, model, config and common."""
