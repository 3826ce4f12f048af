"""Where the network looks for a word of the prompt; may import seam."""
