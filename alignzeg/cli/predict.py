"""``alignzeg predict``: segment images into classes given by name."""

from __future__ import annotations

import argparse
import contextlib
import errno
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .inputs import check_inputs
from .large_job import Job, model_settings, plan
from .options import (
    add_command,
    add_model_options,
    add_word_options,
    check_model,
    fraction,
    load_library,
    positive,
    read_words,
    split_words,
)
from .output import complain
from .report import Report
from .result_files import SUFFIXES
from .team import Team
from .told import Remarks, line, record
from .videos import is_video, segment_videos

if TYPE_CHECKING:
    from ..apis import AlignZegInferencer, Failure, Prediction

    #: A picture or a video: why it failed, or its record and its line.
    Found = Failure | tuple[dict[str, Any], str]

OF_A_NAME = (errno.ENAMETOOLONG, errno.EILSEQ, errno.EINVAL)  # errors that concern only the name of one file

DETAILS = """
For each picture an overlay with a legend is written: the classes found, their share of the pixels, and which of them
are unseen. A picture that cannot be read is reported in one line; the others are still processed. A video (.mp4, .mov,
.mkv, .webm, .avi) becomes a video of overlays, frame by frame.

results.jsonl in the folder has one line with a JSON object per picture. With --json, stdout receives them too, as soon
as the files of a picture are written:
  {"image": ..., "shares": {word: 0..1, ...}, "unseen": [...], "notes": [...], "hints": [...],
   "best_score": 0..1 or null with --windows, "files": {"overlay": ..., ...}}
  {"image": ..., "error": ...}
That of a video has "frames", their number, and no "notes" and "best_score"; shares are means over the frames.

A job that was stopped continues with --skip-done: a picture is done if its results are whole and were made with the
same words, model and settings (settings.json in the folder). `torchrun` divides the pictures among processes and
machines, which write into the same folder.
"""
EXAMPLES = """
alignzeg predict photos/ clip.mp4 --classes "red stripes, blue dots" --side-by-side --out results
alignzeg predict a.jpg b.png --model config.py --checkpoint iter_80000.pth \\
    --classes "cat, sofa, lamp" --others --format overlay,png,coco --out results --json > records.jsonl
torchrun --nproc-per-node 2 -m alignzeg predict many/ --classes "cat, sofa, lamp" --out results --skip-done
"""


def add_parser(commands: Any) -> None:
    """Add the command."""
    parser = add_command(commands, 'predict', 'segment images into classes given by name', DETAILS, EXAMPLES)
    parser.set_defaults(run=run)
    parser.add_argument('images', nargs='+', metavar='IMAGES', help='pictures, folders of pictures, or videos')
    parser.add_argument('--out', type=Path, required=True, metavar='DIR', help='folder for the results')
    group = parser.add_argument_group('words (default: the classes that the model was trained for)')
    add_word_options(group)
    group.add_argument('--unseen', metavar='WORDS', help='which of them count as unseen (default: all not trained on)')
    group.add_argument('--others', action='store_true', help='add a class for pixels that fit none of the words')
    add_model_options(parser)
    group = parser.add_argument_group('prediction')
    group.add_argument('--gamma', type=fraction, metavar='G', help='γ of the bias correction, in (0, 1]')
    group.add_argument('--no-pbc', action='store_true', help='skip the bias correction')
    group.add_argument('--templates', metavar='SET', help="prompt templates, such as 'vild' or 'single'")
    group.add_argument('--batch-size', type=positive, default=1, metavar='N', help='pictures at a time (default: 1)')
    group.add_argument(
        '--windows',
        type=positive,
        nargs=2,
        metavar=('SIDE', 'STRIDE'),
        help='keep the size of large pictures: predict in overlapping windows of SIDE pixels, STRIDE pixels apart',
    )
    group = parser.add_argument_group('results')
    group.add_argument(
        '--format',
        dest='save',
        type=kinds,
        default=['overlay'],
        metavar='KINDS',
        help='separated by commas: overlay (NAME_overlay.png), png (label map NAME_labels.png, whose values are '
        'positions in classes.json), coco (NAME_coco.json), labelme (NAME_labelme.json), csv (NAME_shares.csv), '
        'proposals (NAME_proposals.npz: masks, labels, scores, unseen_scores); default: overlay',
    )
    group.add_argument('--side-by-side', action='store_true', help='show each picture beside its overlay')
    group.add_argument('--json', action='store_true', help='one JSON object per picture on stdout')
    existing = group.add_mutually_exclusive_group()
    existing.add_argument('--overwrite', action='store_true', help='replace existing results (default: refuse)')
    existing.add_argument('--skip-done', action='store_true', help='continue: skip what is done, see above')


def kinds(text: str) -> list[str]:
    """Parse the kinds of results to save.

    Raises:
        argparse.ArgumentTypeError: If an unknown kind is named.
    """
    named = split_words(text) or []
    for kind in named:
        if kind not in SUFFIXES:
            raise argparse.ArgumentTypeError(f'{kind!r} is not one of {", ".join(SUFFIXES)}')
    return [kind for kind in SUFFIXES if kind in named]


def run(args: argparse.Namespace) -> int:
    """Segment the pictures, write the results and return the exit code."""
    check_model(args)
    words = read_words(args)
    team = Team(os.environ)
    settings = dict(
        classes=words, unseen=split_words(args.unseen), others=args.others, gamma=args.gamma, pbc=not args.no_pbc
    )
    settings |= dict(templates=args.templates, windows=args.windows)
    job = Job(args.out, settings | model_settings(args), team)
    job.check([], args.overwrite, args.skip_done)
    check_inputs(args, team.alone)
    load_library()
    from ..apis import AlignZegInferencer, Failure
    from .progress import JobProgress

    pictures, videos, lost = find_pictures(args.images)
    if not pictures and not videos:
        raise ValueError(next(iter(lost.values())))
    settings |= dict(batch_size=args.batch_size, proposals='proposals' in args.save)
    targets, films = plan(args, pictures, videos, job)
    own, remarks = len(targets) + len(films), Remarks()
    begin = time.perf_counter()
    with JobProgress(own, args.windows is not None, team.rank == 0) as progress:
        report = Report(args, job, progress)
        results: Iterable[Prediction | Failure] = ()
        if own:
            device = team.device(args.device)
            inferencer = AlignZegInferencer(
                args.model, args.checkpoint, device, args.dtype, clip_weights=args.clip_weights
            )
            inferencer.watch = progress.window
            results = inferencer.stream(list(targets), **settings) if targets else ()
        progress.begin(job.begin(own))
        try:
            for name, message in lost.items() if team.rank == 0 else ():
                report.failure(name, message)
            for found in chain(
                save_pictures(results, targets, args, remarks),
                save_videos(inferencer, films, settings, args, remarks) if films else (),
            ):
                if isinstance(found, Failure):
                    report.failure(found.name, found.message)
                else:
                    report.success(*found)
                report.seen()
            counts = job.finish(dict(done=remarks.done, failed=report.failed), [*pictures, *videos], report.look)
        except (KeyboardInterrupt, OSError) as error:
            with contextlib.suppress(OSError):  # on a full disk, the next job collects the records
                job.stop([*pictures, *videos])
            kept = f'{remarks.done} of {own} pictures are done; pass --skip-done to continue from there.'
            if isinstance(error, KeyboardInterrupt):
                complain(f'stopped: {kept}')
                return 130
            complain(f'error: {error}: {kept}')
            return 1 if remarks.done else 2
    remarks.finish()
    if team.rank == 0:
        before = len(pictures) + len(videos) - counts['seen']
        earlier = f', {before:,} done before' if before else ''
        took = f'in {time.perf_counter() - begin:.1f} s; results are in {args.out}'
        complain(f'{counts["done"]} done, {counts["failed"]} failed{earlier}, {took}')
    team.leave()
    return int(counts['failed'] > 0)


def find_pictures(given: Sequence[str]) -> tuple[list[str], list[str], dict[str, str]]:
    """Return the paths of all pictures and of all videos without repeats, and a message for each unusable argument."""
    from ..apis.image_files import find_images

    found: dict[str, None] = {}
    videos: dict[str, None] = {}
    lost = {}
    for item in given:
        if is_video(item):
            videos[item] = None
            continue
        try:
            found |= dict.fromkeys(source.name for source in find_images(item))
        except (ValueError, OSError) as error:
            lost[item] = str(error)
    return list(found), list(videos), lost


def save_pictures(
    results: Iterable[Prediction | Failure],
    targets: Mapping[str, dict[str, Path]],
    args: argparse.Namespace,
    remarks: Remarks,
) -> Iterator[Found]:
    """Write the files of each picture as soon as it is predicted.

    Args:
        results: Of the pictures in ``targets``, in order.
        targets: The files of each picture by kind.
        args: The command line.
        remarks: Notes and hints on the pictures.
    """
    from ..apis import Failure
    from .result_files import save_classes

    for (name, files), result in zip(targets.items(), results, strict=True):
        if not isinstance(result, Failure):
            if 'png' in files and not remarks.done:
                save_classes(result, args.out, args.overwrite)
            result = saved(result, files, args.side_by_side)
        if isinstance(result, Failure):
            yield Failure(name, result.message)
        else:
            remarks.add(result)
            yield record(result, files), line(name, result.shares(), result.unseen, files)


def save_videos(
    inferencer: AlignZegInferencer,
    targets: Mapping[str, Path],
    settings: Mapping[str, Any],
    args: argparse.Namespace,
    remarks: Remarks,
) -> Iterator[Found]:
    """Predict and write videos; arguments as those of :func:`segment_videos` and :func:`save_pictures`."""
    from ..apis import Failure

    for film in segment_videos(inferencer, targets, settings, args.side_by_side):
        if isinstance(film, Failure):
            yield film
            continue
        remarks.done += 1
        files = {'overlay': targets[film.name]}
        yield film.record(files), line(film.name, film.shares, film.unseen, files)


def saved(prediction: Prediction, files: dict[str, Path], side_by_side: bool) -> Prediction | Failure:
    """Write the files of a picture.

    Returns:
        The prediction, or a failure if the file system does not accept the names.

    Raises:
        OSError: On an error that would affect the next picture too, such as a full disk.
    """
    from ..apis import Failure

    try:
        for kind, file in files.items():
            prediction.save(file, kind, overwrite=True, side_by_side=side_by_side)
    except OSError as error:
        if error.errno not in OF_A_NAME:
            raise
        return Failure(prediction.name, f'cannot be written as {error.filename}: {error.strerror}')
    return prediction
