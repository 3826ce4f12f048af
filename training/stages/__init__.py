"""From a recipe and its sources to a running stage, its memory, and the nano model's chain of stages; may import tasks,
weights, and what these may.
"""
