"""The training loop, its processes, checkpoints and reports, whatever is trained; may import optim, config and common."""
