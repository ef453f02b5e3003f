"""Where a training goes on: the newest whole checkpoint of a folder."""

from __future__ import annotations

import errno
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .checkpoint_file import read_checkpoint
from .finite import refuse_not_finite

POINTER = 'last_checkpoint'  # the file in a work_dir in which MMEngine looks for the path of its newest checkpoint


@dataclass(frozen=True)
class Latest:
    """What a folder has to go on from.

    Attributes:
        path: The checkpoint, or None if there is none.
        passed_over: One sentence for each newer file that is not it.
        named: Whether the pointer names the checkpoint.
    """

    path: Path | None
    passed_over: tuple[str, ...]
    named: bool


def find_latest(pointer: Path, folder: Path, template: str) -> Latest:
    """Find the newest whole checkpoint.

    The pointer is written after the checkpoint, so that a training that is killed between the two leaves a newer
    checkpoint than the pointer names. Numbers alone do not tell which is newer: a folder may also hold those of an
    earlier, longer run. So the numbers up to that of the pointer come first, highest first, and then one above it
    takes its place if it was not saved earlier (``meta['time']``, in seconds). If the pointer names no number, the
    highest one is taken.

    Args:
        pointer: MMEngine's ``last_checkpoint``; may be missing, empty, torn, or name what does not exist.
        folder: Where checkpoints are.
        template: Their names, as in ``iter_{}.pth``.

    Raises:
        OSError: If a file cannot be read at the moment, whatever is in it.
        MemoryError: If one does not fit into memory.
    """
    text = pointer.read_bytes().decode('utf-8', 'replace').strip() if pointer.is_file() else ''
    named = _named(text, folder)
    name = re.compile(re.escape(template).replace(r'\{\}', r'(\d+)'))
    numbered = {int(match[1]): path for path in folder.glob('*') if (match := name.fullmatch(path.name))}
    match = name.fullmatch(re.split(r'[/\\]', text)[-1])
    last = int(match[1]) if match else max(numbered, default=0)
    if named is not None and match:
        numbered[last] = named  # perhaps in another folder
    descending = sorted(numbered, reverse=True)
    below = [numbered[number] for number in descending if number <= last]
    if named is not None and not match:
        below.append(named)
    passed_over: list[str] = []
    found, time = None, ''
    for path in below:
        content = _whole(path, passed_over)
        if content is not None:
            found, time = path, _time(content)
            break
    for path in (numbered[number] for number in descending if number > last):
        content = _whole(path, passed_over)
        if content is not None and (found is None or _time(content) >= time):
            found = path
            break
        if content is not None:
            passed_over.append(f'{path} was saved before {found}, by an earlier run: it is passed over.')
    return Latest(found, tuple(passed_over), named=found is not None and str(found) == text)


def _whole(path: Path, faults: list[str]) -> dict[str, Any] | None:
    """The notes of a checkpoint that a training can go on from, or None and one more fault."""
    try:
        content = read_checkpoint(path)
        missing = {'meta', 'state_dict', 'message_hub'} - content.keys()
        if missing:
            raise ValueError(f'{path} has no `{min(missing)}`.')
        refuse_not_finite(content['state_dict'], str(path), 'it is passed over.')
        return content['meta']
    except (FileNotFoundError, ValueError) as error:
        faults.append(str(error))
    return None


def _time(meta: dict[str, Any]) -> str:
    """When a checkpoint was saved, as MMEngine writes it: 20261125_004732."""
    time = meta.get('time')
    return time if isinstance(time, str) and re.fullmatch(r'\d{8}_\d{6}', time) else ''


def _named(text: str, folder: Path) -> Path | None:
    """The file that a pointer means: as it stands there, or of that name in the folder if that was moved."""
    if not text or '\0' in text or '\n' in text:
        return None
    unreachable = None
    for path in (Path(text), folder / Path(text).name):
        try:
            if path.is_file():
                return path
        except OSError as error:
            if error.errno != errno.ENAMETOOLONG:  # torn
                unreachable = error
    if unreachable is not None:
        raise unreachable
    return None
