"""Convert the embedded CLIP to the names of mmseg's SAN, as needed by ``configs/peers/training/san_patterns.py``."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from alignzeg.benchmark.peers import san_state_dict
from mmseg_alignzeg.files import whole_file
from mmseg_alignzeg.models import CLIPSource


def main() -> None:
    """Write the file and print its path."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--out', type=Path, default=Path('work_dirs/peers/tiny_clip.pth'), help='default: %(default)s')
    args = parser.parse_args()
    with whole_file(args.out) as part:
        torch.save(san_state_dict(CLIPSource('tiny_clip', 'embedded'), split=3), part)
    print(args.out)


if __name__ == '__main__':
    main()
