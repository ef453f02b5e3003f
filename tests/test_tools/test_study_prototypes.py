import sys

import numpy as np
import pytest
import torch
from torch import tensor


def at_degrees(*angles):
    radians = torch.deg2rad(tensor(angles, dtype=torch.float32))
    return torch.stack([radians.cos(), radians.sin()], dim=-1)


def test_margins_and_nearest_seen_class_by_hand(load_tool):
    tool = load_tool('study_prototypes')
    embeds = at_degrees([0.0, 0.0], [60.0, 30.0], [90.0, 90.0], [200.0, 180.0])  # (4, 2, 2): two templates
    one, both = tool.cosines(embeds, 1), tool.cosines(embeds, 2)
    cos = lambda degrees: np.cos(np.deg2rad(degrees))  # noqa: E731
    np.testing.assert_allclose(tool.margins(one), [1 - cos(60), 1 - cos(30), 1 - cos(30), 1 - cos(110)], atol=1e-6)
    np.testing.assert_allclose(tool.margins(both), [1 - cos(45), 1 - cos(45), 1 - cos(45), 1 - cos(100)], atol=1e-6)
    values, indices = tool.nearest_seen(one, tensor([False, True, True, False]))
    assert indices.tolist() == [0, 0]
    np.testing.assert_allclose(values, [cos(60), cos(90)], atol=1e-6)


def test_tables_of_a_file(load_tool, tmp_path, capsys, monkeypatch):
    tool = load_tool('study_prototypes')
    (tmp_path / 'config.py').write_text("classes = ['cat', 'dog', 'car']\nunseen_classes = ['dog']\n")
    np.save(tmp_path / 'file.npy', at_degrees([80.0], [60.0], [0.0]).numpy())
    (tmp_path / 'file.txt').write_text('car\ndog\ncat\n')
    arguments = ['study_prototypes', f'{tmp_path}/config.py', f'{tmp_path}/file.npy', '--pairs', '1']
    monkeypatch.setattr(sys, 'argv', arguments)
    tool.main()
    told = capsys.readouterr().out
    assert '| file.npy | 1 |' in told and '| dog | car | 0.940 | car | 0.940 |' in told
    assert '| dog (unseen), car | 0.940 | 6.0 |' in told
    (tmp_path / 'file.txt').write_text('car\ndog\ncow\n')
    with pytest.raises(SystemExit):
        tool.main()
    assert "has no embedding of 'cat'" in capsys.readouterr().err
