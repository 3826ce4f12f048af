"""What the fidelity report measures, draws and says; may import tiles."""
