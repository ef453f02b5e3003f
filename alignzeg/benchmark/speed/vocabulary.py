"""Prediction with the trained model of the package: its masks are those of real use, random ones overlap everywhere."""

from __future__ import annotations

import numpy as np
import torch
from mmseg.structures import SegDataSample

from mmseg_alignzeg.datasets import draw_scene

from ...apis.trained_models import load_model

TEST_WORLD = 2


def sheet_of_scenes(rows: int, columns: int) -> np.ndarray:
    """Return an image of test scenes side by side, uint8 BGR of shape (rows · 128, columns · 128, 3)."""
    scenes = [[draw_scene(TEST_WORLD, columns * i + j, 128)[0] for j in range(columns)] for i in range(rows)]
    rgb = np.concatenate([np.concatenate(row, axis=1) for row in scenes])
    return rgb[..., ::-1].copy()  # as MMCV loads images


class VocabularyPrediction:
    """Predict one image with many class names: the 20 of the embedded world first, then others.

    Args:
        shape: Rows and columns of the image, multiples of 128.
        classes: Number of names.
        device: 'cpu' or 'cuda'.
    """

    def __init__(self, shape: tuple[int, int], classes: int, device: str) -> None:
        self.model = load_model(None, None)[0].to(device)
        names = [*self.model.vocabulary.classes, *(f'class {i}' for i in range(classes))][:classes]
        self.question = self.model.ask(names)
        self.question.text_embeds(torch.device(device))  # encoded here, not in the first prediction
        image = torch.from_numpy(sheet_of_scenes(shape[0] // 128, shape[1] // 128)).permute(2, 0, 1)
        batch = self.model.data_preprocessor({'inputs': [image], 'data_samples': [SegDataSample()]})
        self.inputs = batch['inputs']

    @torch.no_grad()
    def __call__(self) -> torch.Tensor:
        """Return the labels, (H, W) int64."""
        return self.model.predict(self.inputs, question=self.question)[0].pred_sem_seg.data[0]
