"""Metrics for zero-shot segmentation."""

from .zero_shot_iou_metric import ZeroShotIoUMetric, class_areas, zero_shot_iou

__all__ = ['ZeroShotIoUMetric', 'class_areas', 'zero_shot_iou']
