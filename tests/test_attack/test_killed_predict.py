"""``alignzeg predict`` killed at random moments: what is there is whole, and the same command goes on."""

import multiprocessing
import random
import time

import pytest
from PIL import Image

from alignzeg.cli import main
from mmseg_alignzeg.datasets.patterns import draw_scene

KILLS, PICTURES = 20, 12
WORDS = 'red stripes, blue dots, green'


def results(folder):
    """Content of each finished file, by name; a half-written one ends with ``.part``, and records grow."""
    return {path.name: path.read_bytes() for path in folder.glob('*') if not path.name.endswith(('.part', '.jsonl'))}


@pytest.mark.slow
@pytest.mark.attack('kill -9: predict')
def test_no_result_is_lost_or_torn(tmp_path, record_property):
    photos = tmp_path / 'photos'
    photos.mkdir()
    for index in range(PICTURES):
        Image.fromarray(draw_scene(2, index)[0]).save(photos / f's{index:02}.png')

    def arguments(out):
        kept = ['--format', 'overlay,png,proposals', '--skip-done', '--device', 'cpu']
        return ['predict', str(photos), '--classes', WORDS, '--out', str(out), *kept]

    # The server imports once what every process needs, so that moments fall into the work and not into imports.
    context = multiprocessing.get_context('forkserver')
    context.set_forkserver_preload(['alignzeg.apis', 'alignzeg.cli.predict'])

    def start(out):
        process = context.Process(target=main, args=(arguments(out),))
        process.start()
        return process

    for _ in range(2):  # the first starts the server, and fills the cache of text embeddings
        whole = tmp_path / 'whole'
        if whole.exists():
            whole.rename(tmp_path / 'first')
        begin = time.monotonic()
        process = start(whole)
        process.join()
        assert process.exitcode == 0
    duration, expected = time.monotonic() - begin, results(whole)
    assert len(expected) == 3 * PICTURES + 2

    moments, torn, lost, rounds = random.Random(0), [], [], 0
    before: dict[str, bytes] = {}
    for _ in range(KILLS):
        out = tmp_path / f'out_{rounds}'
        process = start(out)
        process.join(moments.uniform(0, duration))
        finished = process.exitcode is not None
        process.kill()
        process.join()
        found = results(out)
        torn += [name for name in found if found[name] != expected[name]]
        lost += [name for name in before if name not in found]
        assert len(list(out.glob('*.part'))) <= KILLS
        before = found
        if finished or len(found) == len(expected):
            rounds, before = rounds + 1, {}
    assert not torn and not lost
    for index in range(rounds + 1):  # the same command goes on
        out = tmp_path / f'out_{index}'
        process = start(out)
        process.join()
        assert process.exitcode == 0 and results(out) == expected
    record_property('tries', KILLS)
