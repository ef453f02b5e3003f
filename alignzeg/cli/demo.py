"""``alignzeg demo``: the included model on scenes of the embedded world."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .options import add_command, load_library, positive
from .output import printable

if TYPE_CHECKING:
    import numpy as np

    from ..apis import AlignZegInferencer

SEED = 2  # seed of the test scenes
ROWS = 6  # rows in the contact sheet
# Of the scenes shown; README has the same command.
WORDS = (
    'red checks, red zigzags, red grid, green checks, green dots, green stripes, blue checks, blue grid, yellow dots, '
    'yellow grid, yellow zigzags'
)

DETAILS = """
Draws scenes of a small world (blobs of 4 colours and 5 patterns), segments them with the model that comes with the
package, with and without predictive bias correction (PBC), and writes a contact sheet. Eight of the twenty classes
were never labelled in training: they are unseen. The demo takes seconds and needs no download.

`make demo` in the repository is different: it trains such a model first.
"""
EXAMPLES = """
alignzeg demo
alignzeg demo --scenes 200 --out scenes_200
"""


def add_parser(commands: Any) -> None:
    """Add the command."""
    parser = add_command(commands, 'demo', 'try the included model on drawn scenes, in seconds', DETAILS, EXAMPLES)
    parser.set_defaults(run=run)
    parser.add_argument('--out', type=Path, default=Path('alignzeg_demo'), metavar='DIR', help='default: alignzeg_demo')
    parser.add_argument('--scenes', type=positive, default=40, metavar='N', help='scenes to score (default: 40)')
    parser.add_argument('--device', help="such as 'cuda:0' (default: a GPU if there is one)")


def run(args: argparse.Namespace) -> int:
    """Draw the scenes, segment and score them, write the pictures, and return the exit code."""
    load_library()
    from PIL import Image
    from rich.console import Console
    from rich.table import Table

    from mmseg_alignzeg.datasets.patterns import draw_scene
    from mmseg_alignzeg.files import whole_file

    from ..apis import AlignZegInferencer

    begin = time.perf_counter()
    scenes = [draw_scene(SEED, index) for index in range(args.scenes)]
    inferencer = AlignZegInferencer(device=args.device)
    results = {name: segment(inferencer, scenes, pbc) for name, pbc in (('without PBC', False), ('with PBC', True))}
    shown = sheet(scenes, results, args.out / 'contact_sheet.png')
    for index in shown:
        with whole_file(args.out / 'scenes' / f'scene_{index}.png', flush=False) as part:
            Image.fromarray(scenes[index][0]).save(part, 'PNG')

    console = Console(file=args.stdout)
    keys = ('pAcc', 'mIoU_seen', 'mIoU_unseen', 'hIoU')
    table = Table('', *keys, title=f'The embedded world, {args.scenes} scenes (percent)')
    for name, label_maps in results.items():
        measures = score(scenes, label_maps)
        table.add_row(name, *(f'{measures[key]:.1f}' if key in measures else '-' for key in keys))
    console.print(table)
    for text in (
        f'{time.perf_counter() - begin:.0f} s. Pictures: {args.out / "contact_sheet.png"}',
        f'Now with words of your own: alignzeg predict {args.out / "scenes"} --others --side-by-side '
        f'--out {args.out / "mine"} --classes "{WORDS}"',
    ):
        console.print(printable(text), soft_wrap=True, markup=False, highlight=False)
    return 0


def segment(inferencer: AlignZegInferencer, scenes: list, pbc: bool) -> list[np.ndarray]:
    """Return the predicted labels of each scene."""
    return [result.labels for result in inferencer([image for image, _ in scenes], pbc=pbc, batch_size=8)]


def score(scenes: list, label_maps: list[np.ndarray]) -> dict[str, float]:
    """Compute pAcc, mIoU and hIoU in percent, as `mim test` does."""
    import numpy as np
    import torch

    from mmseg_alignzeg.datasets.patterns import CLASSES, UNSEEN_CLASSES
    from mmseg_alignzeg.evaluation.areas import confusion_matrix, split_areas
    from mmseg_alignzeg.evaluation.zero_shot_iou_metric import zero_shot_iou

    pairs = [
        (torch.from_numpy(labels.astype(np.int64)), torch.from_numpy(truth))
        for labels, (_, truth) in zip(label_maps, scenes, strict=True)
    ]
    total = torch.stack([confusion_matrix(pred, truth, len(CLASSES)) for pred, truth in pairs]).sum(dim=0)
    unseen = torch.tensor([name in UNSEEN_CLASSES for name in CLASSES])
    return zero_shot_iou(*split_areas(total), unseen)


def sheet(scenes: list, results: dict[str, list[np.ndarray]], path: Path) -> list[int]:
    """Write a contact sheet of the first scenes that show an unseen class, and return their indices."""
    import numpy as np

    from mmseg_alignzeg.datasets.patterns import CLASSES, IGNORE_LABEL, UNSEEN_CLASSES, PatternsDataset
    from mmseg_alignzeg.visualization import contact_sheet
    from mmseg_alignzeg.vocabulary import Vocabulary

    palette: Any = PatternsDataset.METAINFO['palette']
    unseen = [CLASSES.index(name) for name in UNSEEN_CLASSES]
    shown = [index for index, (_, truth) in enumerate(scenes) if np.isin(truth, unseen).any()][:ROWS] or [0]
    rows = [
        [
            *scenes[index],
            *(np.where(scenes[index][1] == IGNORE_LABEL, IGNORE_LABEL, maps[index]) for maps in results.values()),
        ]
        for index in shown
    ]
    contact_sheet(
        ('image', 'ground truth', *results),
        rows,
        Vocabulary(CLASSES, UNSEEN_CLASSES),
        palette,
        path,
        'Unseen classes are framed',
    )
    return shown
