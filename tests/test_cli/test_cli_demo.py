from pathlib import Path

import numpy as np
import pytest
import torch
from mmseg.registry import METRICS
from PIL import Image

from alignzeg.apis import AlignZegInferencer
from alignzeg.cli import main
from alignzeg.cli.demo import WORDS
from mmseg_alignzeg.datasets.patterns import CLASSES, UNSEEN_CLASSES, draw_scene


def metric_scores(scenes, **settings):
    """What `mim test` would say: its metric, fed with what the inferencer says."""
    metric = METRICS.build(dict(type='ZeroShotIoUMetric'))
    metric.dataset_meta = dict(classes=list(CLASSES), unseen_classes=list(UNSEEN_CLASSES))
    for image, truth in scenes:
        labels = AlignZegInferencer()(image, **settings)[0].labels
        maps = {key: {'data': torch.from_numpy(array.astype(np.int64))[None]} for key, array in
                (('pred_sem_seg', labels), ('gt_sem_seg', truth))}  # fmt: skip
        metric.process(None, [maps])
    return metric.compute_metrics(metric.results)


def test_the_demo_scores_and_draws(tmp_path, capsys):
    assert main(['demo', '--scenes', '4', '--out', str(tmp_path / 'demo'), '--device', 'cpu']) == 0
    rows = {
        cells[1].strip(): [float(cell) for cell in cells[2:6]]
        for cells in (line.split('│') for line in capsys.readouterr().out.splitlines())
        if len(cells) > 5
    }
    scenes = [draw_scene(2, index) for index in range(4)]
    for name, pbc in (('with PBC', True), ('without PBC', False)):
        expected = metric_scores(scenes, pbc=pbc)
        keys = ('pAcc', 'mIoU_seen', 'mIoU_unseen', 'hIoU')
        assert rows[name] == pytest.approx([expected[key] for key in keys], abs=0.2)  # printed with one digit
    assert rows['with PBC'] != rows['without PBC']
    unseen = [CLASSES.index(name) for name in UNSEEN_CLASSES]
    shown = [index for index, (_, truth) in enumerate(scenes) if np.isin(truth, unseen).any()]
    assert shown and sorted(file.name for file in (tmp_path / 'demo/scenes').iterdir()) == [
        f'scene_{index}.png' for index in shown
    ]
    for index in shown:
        with Image.open(tmp_path / f'demo/scenes/scene_{index}.png') as image:
            assert np.array_equal(np.asarray(image), scenes[index][0])
    with Image.open(tmp_path / 'demo/contact_sheet.png') as sheet:
        assert sheet.width > 4 * 128


def test_a_world_without_unseen_scenes_still_has_a_sheet(tmp_path, capsys):
    truth = draw_scene(2, 1)[1]
    assert main(['demo', '--scenes', '1', '--out', str(tmp_path)]) == 0
    assert truth.shape == (128, 128) and (tmp_path / 'contact_sheet.png').is_file()
    assert 'alignzeg predict' in capsys.readouterr().out


def test_the_words_that_the_demo_suggests_are_in_its_pictures():
    words = WORDS.split(', ')
    readme = (Path(__file__).parents[2] / 'README.md').read_text(encoding='utf-8')
    assert f'"{WORDS}"' in ' '.join(readme.replace('\\\n', ' ').split())
    scenes = [draw_scene(2, index) for index in (0, 2, 3, 4, 5, 7)]
    results = AlignZegInferencer(device='cpu')([image for image, _ in scenes], classes=words, others=True, batch_size=6)
    for (_, truth), result in zip(scenes, results, strict=True):
        named = [words.index(name) if name in words else len(words) for name in CLASSES]
        expected = np.array([*named, *[len(words)] * 236])[truth]
        assert (result.labels == expected).mean() > 0.6 and result.shares()['others'] < 0.8 and result.hints == ()
