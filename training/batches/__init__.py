"""From a manifest to what a step's batch is made of: crops, pairs, cached latents, prompts and restorations; may
import data, degradation, model, config and common.
"""
