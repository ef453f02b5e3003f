"""kill -9 at random moments: nothing is torn, nothing that was saved is lost, and the same command goes on."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.parametrize(
    ('work', 'tries'),
    [
        pytest.param('training', 20, marks=pytest.mark.attack('kill -9: training')),
        pytest.param('export', 20, marks=pytest.mark.attack('kill -9: export')),
        pytest.param('conversion', 20, marks=pytest.mark.attack('kill -9: conversion')),
    ],
)
def test_killed_at_random_moments(work, tries, tmp_path, record_property):
    process = subprocess.run(
        [sys.executable, 'tests/test_engine/killing.py', work, tmp_path / work, str(tries)],
        cwd=ROOT,
        env={**os.environ, 'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1', 'PYTHONWARNINGS': 'ignore'},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert process.returncode == 0, process.stdout[-1000:] + process.stderr[-3000:]
    assert int(process.stdout.split()[-1]) > 0  # some may have ended before they were killed
    record_property('tries', tries)
