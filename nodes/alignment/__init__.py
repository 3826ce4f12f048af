"""How the alignment module enters the UNet; may import seam."""
