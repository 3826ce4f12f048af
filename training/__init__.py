"""Makes FaithDiff's weights; see docs/training.md. `python -m training --help` lists the commands."""

import logging

# diffusers looks for classes that newer torchao no longer has, and warns at every start; nothing here uses them.
logging.getLogger("diffusers.quantizers.torchao.torchao_quantizer").setLevel(logging.ERROR)
