"""The examples in docstrings print what they say."""

import doctest
import importlib

import pytest
from mmengine.logging import MMLogger

MODULES = [
    'alignzeg.apis.inferencer',
    'mmseg_alignzeg.evaluation.zero_shot_iou_metric',
    'mmseg_alignzeg.models.bias_correction',
    'mmseg_alignzeg.models.calibrated_stacking',
    'mmseg_alignzeg.models.losses.background_diversity',
    'mmseg_alignzeg.models.losses.classification',
    'mmseg_alignzeg.models.losses.feature_expansion',
]


@pytest.mark.parametrize('name', MODULES)
def test_examples(name):
    MMLogger.get_current_instance()  # made now, it does not log into what an example prints
    report = []
    runner = doctest.DocTestRunner(verbose=False)
    for test in doctest.DocTestFinder(exclude_empty=True).find(importlib.import_module(name)):
        runner.run(test, out=report.append)
    assert runner.tries and not runner.failures, ''.join(report)
