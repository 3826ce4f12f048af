"""Programs that other people wrote for ComfyUI's queue run the pack's API prompts.

Five were tried by hand; these two stand for those in JavaScript, and install in seconds. The others: comfy-cli,
comfy-api-simplified, @saintno/comfyui-sdk.
"""

from __future__ import annotations

import json
import shutil
import subprocess

import numpy as np
import pytest
from hostrun.paths import ROOT
from PIL import Image
from support import workflows
from support.patience import PATIENCE_S

pytestmark = [pytest.mark.host, pytest.mark.long]
CLIENTS = ROOT / "tests" / "clients"


@pytest.fixture(scope="module")
def node() -> str:
    """Path of Node.js; the clients are installed beside their scripts."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        pytest.skip("expected Node.js with npm, found none; on Debian: apt-get install nodejs npm")
    if not (CLIENTS / "node_modules").is_dir():
        subprocess.run([npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--silent"], cwd=CLIENTS, check=True)
    return node


NAMES = sorted(path.stem for path in CLIENTS.glob("*.mjs"))


def write_prompt(path, seed):
    """The nano template's API prompt with few steps, and a seed of its own: one that is all cache ends before some listen."""
    prompt = workflows.api_prompt("faithdiff_nano")
    prompt[workflows.node_of(prompt, "FaithDiffSampler")]["inputs"] |= {"steps": 2, "seed": seed}
    path.write_text(json.dumps(prompt), encoding="utf-8")
    return path


@pytest.mark.parametrize("client", NAMES)
def test_a_client_gets_the_picture(server, node, client, tmp_path):
    prompt = write_prompt(tmp_path / "prompt.json", seed=NAMES.index(client))
    command = [node, str(CLIENTS / f"{client}.mjs"), server.url, str(prompt), str(tmp_path)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    (picture,) = tmp_path.glob("*.png")
    with Image.open(picture) as image, Image.open(ROOT / "demo" / "photo_lq.png") as photo:
        assert image.size == (2 * photo.width, 2 * photo.height)
        assert np.asarray(image.convert("L")).std() > 10, "a picture of one colour"
