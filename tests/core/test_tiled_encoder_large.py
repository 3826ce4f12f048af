"""What encoding large images takes: hours on a small machine, so only with FAITHDIFF_LARGE_TESTS=1.

FAITHDIFF_LARGE_SIDES names other sides in px than 1024,2048,4096,8192.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SIDES_PX = [int(side) for side in os.environ.get("FAITHDIFF_LARGE_SIDES", "1024,2048,4096,8192").split(",")]
KEEP_BYTES = 2 * 2**30  # nodes/seam/encode.py, which cannot be imported without the host

# A process of its own for each size, because a peak never goes down again. VmHWM: the most memory it held (Linux).
MEASURE = """
import json, sys, time
from pathlib import Path
import torch
from safetensors import safe_open
from faithdiff_core.architecture import lq_encoder_sizes
from faithdiff_core.files.checkpoint import split_state_dict
from faithdiff_core.lq_encoder import LQEncoder
from faithdiff_core.tiled_encoder.encode import EncoderTiling, encode_tiled

def peak_bytes():
    return 1024 * int(next(l for l in Path("/proc/self/status").read_text().splitlines() if l.startswith("VmHWM")).split()[1])

side_px, keep_bytes = map(int, sys.argv[1:])
with safe_open("demo/nano_faithdiff.safetensors", "pt") as f:
    parts = split_state_dict({key: f.get_tensor(key) for key in f.keys()}, f.metadata())
encoder = LQEncoder(lq_encoder_sizes(parts.lq_encoder, parts.metadata.config), operations=torch.nn).requires_grad_(False)
encoder.load_state_dict({key: value.float() for key, value in parts.lq_encoder.items()})
image = torch.rand((1, 3, side_px, side_px))
cpu = torch.device("cpu")
tiling = EncoderTiling(
    tile_px=512, keep_bytes=keep_bytes, device=cpu, dtype=torch.float32, keep_device=cpu, progress=lambda done_frac: None
)
before_bytes, start_s, start_cpu_s = peak_bytes(), time.perf_counter(), time.process_time()
with torch.inference_mode():
    features = encode_tiled(encoder, image, tiling)
print(json.dumps({
    "side_px": side_px,
    "time_s": time.perf_counter() - start_s,
    "cpu_s": time.process_time() - start_cpu_s,
    "peak_bytes": peak_bytes(),
    "above_image_and_features_bytes": peak_bytes() - before_bytes - features.nbytes,
    "finite": bool(features.sum().isfinite()),
}))
"""


@pytest.mark.skipif(not os.environ.get("FAITHDIFF_LARGE_TESTS"), reason="FAITHDIFF_LARGE_TESTS is not set")
@pytest.mark.timeout(0)
def test_peak_memory_does_not_grow_with_the_image():
    """Beside image and features: one tile, what is kept, and the attention over at most 4096 x 4096 px."""
    for side_px in SIDES_PX:
        command = [sys.executable, "-c", MEASURE, str(side_px), str(KEEP_BYTES)]
        run = subprocess.run(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
        assert run.returncode == 0, run.stderr
        measured = json.loads(run.stdout)
        print(measured)
        assert measured["finite"] and measured["above_image_and_features_bytes"] < KEEP_BYTES + 2**30
