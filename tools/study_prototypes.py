"""Study class prototypes: how near classes are, which seen class is nearest to each unseen one, what templates change.

Reads class embeddings (C × D, or C × S × D with a row per template) and the classes of a config; prints Markdown.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from mmengine.config import Config
from torch import Tensor

from mmseg_alignzeg.models.class_embeddings import read_embeddings


def cosines(embeds: Tensor, templates: int) -> Tensor:
    """Return the cosines between prototypes, the normalised means over the first templates.

    Args:
        embeds: (C, S, D) unit rows.
        templates: Number of templates, 1..S.

    Returns:
        (C, C) float32, with -1 on the diagonal.
    """
    prototypes = F.normalize(embeds[:, :templates].mean(dim=1), dim=1)
    return (prototypes @ prototypes.t()).fill_diagonal_(-1)


def margins(similarity: Tensor) -> Tensor:
    """Return 1 - cosine to the nearest other class, (C,)."""
    return 1 - similarity.amax(dim=1)


def nearest_seen(similarity: Tensor, unseen: Tensor) -> tuple[Tensor, Tensor]:
    """Return cosine and index of the nearest seen class for every unseen one, (U,) each.

    Args:
        similarity: Result of :func:`cosines`.
        unseen: (C,) bool.
    """
    values, indices = similarity[unseen][:, ~unseen].max(dim=1)
    return values, (~unseen).nonzero()[indices, 0]


def row(cells: Sequence[object]) -> str:
    """Return a row of a Markdown table."""
    return f'| {" | ".join(f"{cell:.3f}" if isinstance(cell, float) else str(cell) for cell in cells)} |'


def header(cells: Sequence[str]) -> str:
    """Return the head of a Markdown table."""
    return f'{row(cells)}\n{row(["---"] * len(cells))}'


def study(files: dict[str, Tensor], names: Sequence[str], unseen: Tensor, counts: Sequence[int], pairs: int) -> str:
    """Return the tables.

    Args:
        files: (C, S, D) unit rows by name, in the order of ``names``.
        names: C class names.
        unseen: (C,) bool.
        counts: Numbers of templates; those above S count as S, and repeated ones are left out.
        pairs: Number of pairs of nearest classes, from the first file with all of its templates.
    """
    heads = ['file', 'templates', 'mean cosine', 'margin: least', '5 %', 'median', 'relative', 'unseen to seen', 'same']
    lines, first = [header(heads)], None
    for file, embeds in files.items():
        for count in sorted({min(count, embeds.shape[1]) for count in counts}):
            similarity = cosines(embeds, count)
            margin = margins(similarity)
            value, index = nearest_seen(similarity, unseen)
            first = index if first is None else first
            mean = similarity[~torch.eye(len(names), dtype=torch.bool)].mean().item()
            least, few, median = torch.quantile(margin, torch.tensor([0.0, 0.05, 0.5])).tolist()
            same = f'{int((index == first).sum())} of {len(index)}'
            ours = (1 - value).median().item()
            lines.append(row([file, count, mean, least, few, median, median / (1 - mean), ours, same]))
    embeds = next(iter(files.values()))
    similarity = cosines(embeds, embeds.shape[1])
    lines += ['', header(['unseen class', 'nearest seen class', 'cosine', 'nearest class', 'cosine'])]
    rows = zip(unseen.nonzero()[:, 0].tolist(), *map(Tensor.tolist, nearest_seen(similarity, unseen)), strict=True)
    for c, value, s in rows:
        other = int(similarity[c].argmax())
        lines.append(row([names[c], names[s], value, names[other], similarity[c, other].item()]))
    lines += ['', header(['pair of nearest classes', 'cosine', 'difference of logits at τ = 100'])]
    values, order = similarity.triu(1).flatten().topk(pairs)
    for value, position in zip(values.tolist(), order.tolist(), strict=True):
        a, b = divmod(position, len(names))
        marked = [f'{names[i]}{" (unseen)" if unseen[i] else ""}' for i in (a, b)]
        lines.append(row([', '.join(marked), value, f'{100 * (1 - value):.1f}']))
    return '\n'.join(lines)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='config with `classes` and `unseen_classes`')
    parser.add_argument('embeddings', nargs='+', type=Path, help='files of class embeddings')
    parser.add_argument('--templates', nargs='+', type=int, default=[1, 6, 8, 15], help='default: 1 6 8 15')
    parser.add_argument('--pairs', type=int, default=10, help='nearest pairs to print (default: 10)')
    args = parser.parse_args()
    cfg = Config.fromfile(args.config)
    files = {}
    for path in args.embeddings:
        names, embeds = read_embeddings(path, cfg.classes)
        missing = set(cfg.classes) - set(names)
        if missing:
            parser.error(f'{path} has no embedding of {min(missing)!r}, a class of {args.config}.')
        files[path.name] = embeds[[names.index(name) for name in cfg.classes]]
    unseen = torch.tensor([name in cfg.unseen_classes for name in cfg.classes])
    print(study(files, cfg.classes, unseen, args.templates, args.pairs))


if __name__ == '__main__':
    main()
