"""What a stage's batch, loss and validation are; may import loop, optim, batches, data, model, degradation, metrics, reports,
config and common.
"""
