"""Metrics for zero-shot segmentation."""

from .areas import class_areas, confusion_matrix
from .fine_grained_iou import ImageScores, fine_grained_iou, image_scores
from .fine_grained_iou_metric import FineGrainedIoUMetric
from .zero_shot_iou_metric import ZeroShotIoUMetric, zero_shot_iou

__all__ = [
    'FineGrainedIoUMetric',
    'ImageScores',
    'ZeroShotIoUMetric',
    'class_areas',
    'confusion_matrix',
    'fine_grained_iou',
    'image_scores',
    'zero_shot_iou',
]
