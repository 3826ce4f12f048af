from __future__ import annotations

import pytest
from support import tiny


@pytest.fixture(scope="session")
def tiny_file(tmp_path_factory):
    return tiny.write_full(tmp_path_factory.mktemp("weights") / "tiny.safetensors", tiny.made_up_parts())


@pytest.fixture(scope="session")
def loaded(tiny_file):
    from comfyui_faithdiff.nodes.load_model import load
    from support.sampling import Loaded

    return Loaded(*load(str(tiny_file)))
