"""What runs leave in a server: a short part of the soak tests/soak/leaks.py, on a server of the session."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.soak import copies_of_the_model, run_all, varied

MIB = 1024**2
RUNS, WARM_UP_RUNS = 24, 8
MAX_GROWTH_BYTES = 64 * MIB
"""A model kept by mistake at each change would hold 16 times 35 MiB and more; measured: 0 to 12 MiB."""


@pytest.mark.long
def test_runs_with_changing_models_and_sizes_leave_nothing(server, client, demo_prompt):
    models = copies_of_the_model(Path(__file__).parents[2] / "demo", server.options.base / "models" / "faithdiff", 2)
    prompts = varied(demo_prompt, models, seed=3, largest_px=96)
    readings = run_all(client, server, prompts, RUNS, system_temp=None)
    settled = readings[WARM_UP_RUNS:]
    assert settled[-1].resident_bytes - settled[0].resident_bytes < MAX_GROWTH_BYTES
    assert max(r.open_files for r in settled) <= settled[0].open_files + 2  # a connection of the client's may be half closed
    assert settled[-1].temporary_files == settled[0].temporary_files  # previews of earlier tests
    assert max(r.threads for r in settled) <= settled[0].threads + 1
