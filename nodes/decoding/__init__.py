"""From a latent to a picture: the host's VAE with the memory there is, and the fidelity decoder behind it; may import seam."""
