"""``alignzeg predict``: segment pictures into any words."""

from __future__ import annotations

import argparse
import errno
import json
import os
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .large_job import RECORDS, Job, model_settings, plan
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
from .output import complain, printable, writer
from .team import Team

if TYPE_CHECKING:
    from ..apis import Failure, Prediction

SHOWN = 4  # classes named in the result line of a picture
KINDS = ('overlay', 'labels', 'proposals')
OF_A_NAME = (errno.ENAMETOOLONG, errno.EILSEQ, errno.EINVAL)  # errors that concern only the name of one file

DETAILS = """
For each picture an overlay with a legend is written: the classes found, their share of the pixels, and which of them
are unseen. A picture that cannot be read is reported in one line; the others are still processed.

results.jsonl in the folder has one line with a JSON object per picture; with --json, stdout receives them too, as soon
as the files of a picture are written:
  {"image": ..., "shares": {word: 0..1, ...}, "unseen": [...], "notes": [...], "files": {"overlay": ..., ...}}
  {"image": ..., "error": ...}

A job that was stopped continues with --skip-done: a picture is done if its results are whole and have the same words,
model and settings (settings.json in the folder). `torchrun` divides the pictures among processes and machines; all of
them write into the same folder.
"""
EXAMPLES = """
alignzeg predict photos/ --classes "red stripes, blue dots" --out results
alignzeg predict a.jpg b.png --model config.py --checkpoint iter_80000.pth \\
    --classes "cat, sofa, lamp" --others --save overlay,labels --out results --json > results.jsonl
torchrun --nproc-per-node 2 -m alignzeg predict many/ --classes "cat, sofa, lamp" --out results --skip-done
"""


def add_parser(commands: Any) -> None:
    """Add the command."""
    parser = add_command(commands, 'predict', 'segment pictures into any words', DETAILS, EXAMPLES)
    parser.set_defaults(run=run)
    parser.add_argument('images', nargs='+', metavar='IMAGES', help='pictures, or folders of pictures')
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
        '--save',
        type=kinds,
        default=['overlay'],
        metavar='KINDS',
        help='separated by commas: overlay (NAME_overlay.png), labels (NAME_labels.png, whose values are positions in '
        'classes.json), proposals (NAME_proposals.npz: masks, labels, scores, unseen_scores); default: overlay',
    )
    group.add_argument('--json', action='store_true', help='one JSON object per picture on stdout')
    existing = group.add_mutually_exclusive_group()
    existing.add_argument('--overwrite', action='store_true', help='replace existing results (default: refuse)')
    existing.add_argument('--skip-done', action='store_true', help='skip pictures whose results exist')


def kinds(text: str) -> list[str]:
    """Parse the kinds of results to save.

    Raises:
        argparse.ArgumentTypeError: If an unknown kind is named.
    """
    named = split_words(text) or []
    for kind in named:
        if kind not in KINDS:
            raise argparse.ArgumentTypeError(f'{kind!r} is not one of {", ".join(KINDS)}')
    return [kind for kind in KINDS if kind in named]


def run(args: argparse.Namespace) -> int:
    """Segment the pictures, write the results and return the exit code."""
    check_model(args)
    load_library()
    from ..apis import AlignZegInferencer, Failure
    from .progress import JobProgress
    from .result_files import save_classes

    words = read_words(args)
    pictures, lost = find_pictures(args.images)
    if not pictures:
        raise ValueError(next(iter(lost.values())))
    settings = dict(
        classes=words, unseen=split_words(args.unseen), others=args.others, gamma=args.gamma, pbc=not args.no_pbc
    )
    settings |= dict(templates=args.templates, windows=args.windows)
    job = Job(args.out, settings | model_settings(args), Team(os.environ))
    team = job.team
    targets = plan(args, pictures, job)
    failed, done, noted = 0, 0, 0
    begin = time.perf_counter()
    with JobProgress(len(targets), args.windows is not None, team.rank == 0) as progress:
        emit = writer(args, progress.bars)

        def fail(name: str, message: str) -> None:
            nonlocal failed
            failed += 1
            report_failure(args, emit, name, message)
            job.note({'image': name, 'error': message})

        results: Iterable[Prediction | Failure] = ()
        if targets:
            device = team.device(args.device)
            inferencer = AlignZegInferencer(
                args.model, args.checkpoint, device, args.dtype, clip_weights=args.clip_weights
            )
            inferencer.watch = progress.window
            more = dict(batch_size=args.batch_size, proposals='proposals' in args.save)
            results = inferencer.stream(list(targets), **settings, **more)
        progress.begin(job.begin(len(targets)))
        try:
            for name, message in lost.items() if team.rank == 0 else ():
                fail(name, message)
            for (name, files), result in zip(targets.items(), results, strict=True):
                if not isinstance(result, Failure):
                    if 'labels' in files and not done:
                        save_classes(result, args.out, args.overwrite)
                    result = saved(result, files)
                if isinstance(result, Failure):
                    fail(name, result.message)
                else:
                    done += 1
                    noted += bool(result.notes)
                    for note in result.notes if noted == 1 else ():
                        complain(f'note: {printable(name)}: {note}')
                    content = record(result, files)
                    job.note(content)
                    emit(json.dumps(content) if args.json else line(result, files))
                progress.update(team.add('seen'))
            counts = team.together(
                dict(done=done, failed=failed, noted=noted), lambda: progress.update(team.add('seen', 0))
            )
        except KeyboardInterrupt:
            job.close(pictures)
            complain(f'stopped: {done} of {len(targets)} pictures are done; pass --skip-done to continue from there.')
            return 130
    if team.rank == 0:
        job.close(pictures)
        tell(args, counts, len(pictures), time.perf_counter() - begin)
    team.leave()
    return int(counts['failed'] > 0)


def tell(args: argparse.Namespace, counts: dict[str, int], pictures: int, seconds: float) -> None:
    """Write the last line: how many pictures were done by all processes."""
    if counts['noted'] > 1:
        complain(f'note: {counts["noted"]} pictures have such notes; {args.out / RECORDS} has all of them')
    before = pictures - counts['seen']
    earlier = f', {before:,} done before' if before else ''
    complain(
        f'{counts["done"]} done, {counts["failed"]} failed{earlier}, in {seconds:.1f} s; results are in {args.out}'
    )


def find_pictures(given: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Return the paths of all pictures without repeats, and a message for each argument that cannot be used."""
    from ..apis.image_files import find_images

    found: dict[str, None] = {}
    lost = {}
    for item in given:
        try:
            found |= dict.fromkeys(source.name for source in find_images(item))
        except (ValueError, OSError) as error:
            lost[item] = str(error)
    return list(found), lost


def saved(prediction: Prediction, files: dict[str, Path]) -> Prediction | Failure:
    """Write the files of a picture.

    Returns:
        The prediction, or a failure if the file system does not accept the names.

    Raises:
        OSError: On an error that would affect the next picture too, such as a full disk.
    """
    from ..apis import Failure
    from .result_files import save_prediction

    try:
        save_prediction(prediction, files)
    except OSError as error:
        if error.errno not in OF_A_NAME:
            raise
        return Failure(prediction.name, f'cannot be written as {error.filename}: {error.strerror}')
    return prediction


def report_failure(args: argparse.Namespace, emit: Any, name: str, message: str) -> None:
    """Report which picture failed and why."""
    complain(f'failed: {printable(message if name in message else f"{name} {message}")}')
    if args.json:
        emit(json.dumps({'image': name, 'error': message}))


def record(prediction: Prediction, files: dict[str, Path]) -> dict[str, Any]:
    """Return the object that ``--json`` prints for a picture."""
    shares = {name: share for name, share in prediction.shares().items() if share > 0}
    return {
        'image': prediction.name,
        'shares': shares,
        'unseen': [name for name in prediction.unseen if name in shares],
        'notes': list(prediction.notes),
        'files': {kind: str(file) for kind, file in files.items()},
    }


def line(prediction: Prediction, files: dict[str, Path]) -> str:
    """Return the line that is printed for a picture without ``--json``."""
    from mmseg_alignzeg.visualization.legend import share_text

    shares = sorted(
        ((share, name) for name, share in prediction.shares().items() if share > 0), key=lambda pair: -pair[0]
    )
    told = [
        f'{name}{" (unseen)" if name in prediction.unseen else ""} {share_text(share)}'
        for share, name in shares[:SHOWN]
    ]
    told += [f'{len(shares) - SHOWN} more'] if len(shares) > SHOWN else []
    return f'{prediction.name}: {", ".join(told)} -> {", ".join(map(str, files.values()))}'
