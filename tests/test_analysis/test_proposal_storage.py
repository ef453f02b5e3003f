"""Proposals come back as they were written, and only with what they belong to."""

import json
import zipfile

import numpy as np
import pytest
import torch

from alignzeg.analysis import AnalysisTask, Fingerprint, ImageProposals, ProposalWriter, read_proposals
from alignzeg.analysis.collect import ViewScores
from mmseg_alignzeg.models.proposals import Window
from mmseg_alignzeg.vocabulary import Vocabulary

TASK = AnalysisTask(Vocabulary(('a', 'b'), ('b',)), ('a',), 255, 'share', 7)
MARK = Fingerprint('c' * 64, 'd' * 64)


def images(indicator=True, count=3):
    for i in range(count):
        views = tuple(
            ViewScores(torch.randn(4, side, 2), torch.randn(4, 3), torch.rand(4) if indicator else None)
            for side in (3, 5)
        )
        yield ImageProposals(
            views,
            torch.tensor([[0, 1, 255]]),
            Window(0.1, 0.0, 1 / 3, 0.9, (1, 3)),
            torch.tensor([[i, 1]]),
        )


@pytest.mark.parametrize('indicator', [True, False])
def test_what_is_read_is_what_was_written(tmp_path, indicator):
    path = tmp_path / 'proposals.npz'
    written = list(ProposalWriter(path, TASK, MARK).tee(images(indicator)))
    task, count, read = read_proposals(path, MARK)
    assert task == TASK and count == 3 and not list(tmp_path.glob('*.part'))
    for ours, theirs in zip(read, written, strict=True):
        assert ours.window == theirs.window and len(ours.views) == 2
        pairs = [(ours.labels, theirs.labels), (ours.matched, theirs.matched)]
        for a, b in zip(ours.views, theirs.views, strict=True):
            pairs += [(a.masks, b.masks), (a.scores, b.scores)]
            pairs += [(a.indicator, b.indicator)] if indicator else []
            assert indicator or a.indicator is None
        assert all(torch.equal(a, b) and a.dtype == b.dtype for a, b in pairs)


def test_plain_arrays_and_small_labels(tmp_path):
    path = tmp_path / 'proposals.npz'
    list(ProposalWriter(path, TASK, MARK).tee(images()))
    with np.load(path, allow_pickle=False) as file:
        assert all(file[name].dtype.kind in 'fiuU' for name in file.files)
        assert file['0000000/labels'].dtype == np.uint8
    wide = AnalysisTask(TASK.vocabulary, ('a',), 65535, 'share', 7)
    list(ProposalWriter(path, wide, MARK).tee(images()))
    assert np.load(path, allow_pickle=False)['0000000/labels'].dtype == np.int32


def test_a_pass_that_was_cut_off_leaves_no_file(tmp_path):
    stream = ProposalWriter(tmp_path / 'proposals.npz', TASK, MARK).tee(images())
    next(stream)
    stream.close()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ('other', 'part'), [(Fingerprint('e' * 64, 'd' * 64), 'checkpoint'), (Fingerprint('c' * 64, 'e' * 64), 'config')]
)
def test_proposals_of_something_else_are_refused(tmp_path, other, part):
    path = tmp_path / 'proposals.npz'
    list(ProposalWriter(path, TASK, MARK).tee(images()))
    with pytest.raises(ValueError, match=f'another {part} .*eeee') as error:
        read_proposals(path, other)
    assert '\n' not in str(error.value)


@pytest.mark.parametrize('content', ['empty', 'text', 'zip', 'format', 'no format'])
def test_files_that_are_something_else_are_refused(tmp_path, content):
    path = tmp_path / 'proposals.npz'
    if content == 'empty':
        path.touch()
    elif content == 'text':
        path.write_text('no archive')
    elif content == 'zip':
        with zipfile.ZipFile(path, 'w') as file:
            file.writestr('meta.txt', '{}')
    else:
        list(ProposalWriter(path, TASK, MARK).tee(images()))
        meta = {**json.loads(str(np.load(path)['meta'])), 'format': 99}
        if content == 'no format':
            del meta['format']
        np.savez(path, meta=np.array(json.dumps(meta)))
    with pytest.raises(ValueError, match=r'--from|has format 99') as error:
        read_proposals(path, MARK)
    assert '\n' not in str(error.value)
    with pytest.raises(FileNotFoundError, match='without --from first'):
        read_proposals(tmp_path / 'absent.npz', MARK)


def test_fingerprint_ignores_what_changes_no_proposal(tmp_path):
    (tmp_path / 'weights').write_bytes(b'1')
    model = {'bias_correction': {'gamma': 0.3}, 'templates': 'vild'}
    mark = Fingerprint.of(tmp_path / 'weights', model, {'length': 4})
    assert mark == Fingerprint.of(tmp_path / 'weights', {'templates': 'vild', 'calibration': {}}, {'length': 4})
    assert mark.config != Fingerprint.of(tmp_path / 'weights', {'templates': 'single'}, {'length': 4}).config
    assert mark.config != Fingerprint.of(tmp_path / 'weights', model, {'length': 5}).config
    (tmp_path / 'weights').write_bytes(b'2')
    assert mark.checkpoint != Fingerprint.of(tmp_path / 'weights', model, {'length': 4}).checkpoint
