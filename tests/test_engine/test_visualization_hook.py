"""Pictures of a test name the classes of the test."""

from pathlib import Path

from mmengine.config import Config
from mmengine.runner import Runner
from mmengine.visualization import Visualizer
from mmseg.visualization import SegLocalVisualizer

ROOT = Path(__file__).parents[2]


def test_a_test_draws_the_tested_names_and_builds_no_training(tmp_path, monkeypatch):
    cfg = Config.fromfile(ROOT / 'configs/alignzeg_patterns.py')
    cfg.work_dir = str(tmp_path)
    cfg.test_dataloader.update(num_workers=0, batch_size=1)
    cfg.test_dataloader.dataset.update(length=2)
    cfg.default_hooks.visualization.update(draw=True, interval=1)
    cfg.visualizer.update(name='test of names', save_dir=str(tmp_path))
    drawn = []
    monkeypatch.setattr(
        SegLocalVisualizer,
        'add_datasample',
        lambda self, name, image, **kwargs: drawn.append(self.dataset_meta['classes']),
    )
    runner = Runner.from_cfg(cfg)
    runner.test()
    assert drawn == [cfg.classes] * 2
    assert isinstance(runner._train_loop, dict)  # as configured, not built
    assert Visualizer.get_current_instance() is runner.visualizer
