"""How well φ_bc tells unseen from seen: its values on matched proposals of the test set, and their AUROC."""

from __future__ import annotations

from mmseg_alignzeg.models import AlignZeg  # isort: skip  (before mmseg: its MMCV may lack compiled operators)

import argparse
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner import Runner, load_checkpoint
from mmseg.registry import MODELS
from mmseg.utils import seg_data_to_instance_data
from rich.console import Console
from rich.progress import track
from scipy.stats import mannwhitneyu

from mmseg_alignzeg.vocabulary import Vocabulary


@torch.no_grad()
def matched_indicators(model: AlignZeg, loader: torch.utils.data.DataLoader) -> tuple[np.ndarray, np.ndarray]:
    """Indicator values I of the proposals that match a ground-truth mask.

    Args:
        model: In evaluation mode, with a class indicator.
        loader: Test data; its labels index the classes of its dataset.

    Returns:
        Values of proposals matched to seen classes, and of those matched to unseen ones.
    """
    vocabulary = Vocabulary.from_metainfo(loader.dataset.metainfo)
    model.set_test_classes(vocabulary.classes)
    unseen = torch.tensor([name not in model.vocabulary.seen_classes for name in vocabulary.classes])
    values: tuple[list[float], list[float]] = ([], [])
    for batch in track(loader, description='test set'):
        data = model.data_preprocessor(batch)
        proposals = model.extract_feat(data['inputs'])
        indicator = model.class_indicator(proposals.feats).sigmoid()
        scores = model.classify(proposals, vocabulary.classes)
        targets = seg_data_to_instance_data(model.ignore_index, data['data_samples'])
        for target in targets:
            if target.masks.shape[1:] != data['inputs'].shape[2:]:
                raise ValueError(
                    f'Labels have {tuple(target.masks.shape[1:])} pixels and inputs {tuple(data["inputs"].shape[2:])}: '
                    'masks are matched on the input, so the test pipeline must not resize or pad.'
                )
        for image, target in enumerate(targets):
            match = model.matcher(scores[image], proposals.mask_logits[image], target)
            for value, label in zip(indicator[image, match.proposals], target.labels[match.targets], strict=True):
                values[int(unseen[label])].append(value.item())
    return np.array(values[0]), np.array(values[1])


def main() -> None:
    """Print the separation."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', type=Path)
    parser.add_argument('checkpoint', type=Path)
    args = parser.parse_args()
    cfg = Config.fromfile(args.config)
    init_default_scope('mmseg')
    model = MODELS.build(cfg.model).eval()
    if model.class_indicator is None:
        parser.error(f'{args.config} has no class_indicator: there is nothing to measure.')
    load_checkpoint(model, str(args.checkpoint), map_location='cpu')
    seen, unseen = matched_indicators(model, Runner.build_dataloader(cfg.test_dataloader))
    auroc = mannwhitneyu(unseen, seen).statistic / (len(seen) * len(unseen))
    Console().print(
        f'AUROC {auroc:.3f}   mean I of {len(unseen)} unseen proposals {unseen.mean():.3f}, '
        f'of {len(seen)} seen ones {seen.mean():.3f}'
    )


if __name__ == '__main__':
    main()
