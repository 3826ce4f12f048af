"""From a recipe and its sources to a running stage, its memory, and the nano model's chain of stages; may import tasks,
weights, metrics, and what these may.
"""
