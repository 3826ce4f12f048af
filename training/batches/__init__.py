"""From a manifest to what a step's batch is made of: crops, pairs, cached latents and prompts; may import data, model,
config and common.
"""
