"""What happens to parameters at a step: groups, optimisers, averages, shards; may import config and common."""
