"""Find the checkpoint from which a training resumes: the newest complete one of a folder."""

from __future__ import annotations

import errno
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .checkpoint_file import read_checkpoint
from .finite import refuse_not_finite

POINTER = 'last_checkpoint'  # the file in a work_dir that contains the path of MMEngine's newest checkpoint


@dataclass(frozen=True)
class Latest:
    """Result of the search.

    Attributes:
        path: The checkpoint, or None if there is none.
        passed_over: One sentence for each newer file that cannot be used.
        named: Whether the pointer names the checkpoint.
    """

    path: Path | None
    passed_over: tuple[str, ...]
    named: bool


def find_latest(pointer: Path, folder: Path, template: str) -> Latest:
    """Find the newest complete checkpoint.

    The pointer is written after the checkpoint, so a training killed between the two leaves a checkpoint newer than the
    one the pointer names. The numbers alone do not show which checkpoint is newer, because the folder may contain those
    of an earlier, longer run. Therefore, the checkpoints up to the number in the pointer are tried first, in descending
    order. One with a higher number replaces the result only if it was not saved earlier (``meta['time']``, in seconds).
    If the pointer contains no number, the highest number is used.

    Args:
        pointer: MMEngine's ``last_checkpoint``; may be missing, empty or truncated, or name a missing file.
        folder: Folder of the checkpoints.
        template: Template of their names, such as ``iter_{}.pth``.

    Raises:
        OSError: If a file cannot be read at the moment, independent of its content.
        MemoryError: If a checkpoint does not fit into memory.
    """
    text = pointer.read_bytes().decode('utf-8', 'replace').strip() if pointer.is_file() else ''
    named = _named(text, folder)
    name = re.compile(re.escape(template).replace(r'\{\}', r'(\d+)'))
    numbered = {int(match[1]): path for path in folder.glob('*') if (match := name.fullmatch(path.name))}
    match = name.fullmatch(re.split(r'[/\\]', text)[-1])
    last = int(match[1]) if match else max(numbered, default=0)
    if named is not None and match:
        numbered[last] = named  # possibly in another folder
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
            passed_over.append(f'{path} was saved before {found}, by an earlier run, and is not used.')
    return Latest(found, tuple(passed_over), named=found is not None and str(found) == text)


def _whole(path: Path, faults: list[str]) -> dict[str, Any] | None:
    """Return the metadata of a usable checkpoint; otherwise add a sentence to ``faults`` and return None."""
    try:
        content = read_checkpoint(path)
        missing = {'meta', 'state_dict', 'message_hub'} - content.keys()
        if missing:
            raise ValueError(f'{path} has no `{min(missing)}`.')
        refuse_not_finite(content['state_dict'], str(path), 'it is not used.')
        return content['meta']
    except (FileNotFoundError, ValueError) as error:
        faults.append(str(error))
    return None


def _time(meta: dict[str, Any]) -> str:
    """Return the time at which a checkpoint was saved, in MMEngine's format: 20261125_004732; '' if unknown."""
    time = meta.get('time')
    return time if isinstance(time, str) and re.fullmatch(r'\d{8}_\d{6}', time) else ''


def _named(text: str, folder: Path) -> Path | None:
    """Return the file named by a pointer: as given, or with that name in the folder if the folder was moved."""
    if not text or '\0' in text or '\n' in text:
        return None
    unreachable = None
    for path in (Path(text), folder / Path(text).name):
        try:
            if path.is_file():
                return path
        except OSError as error:
            if error.errno != errno.ENAMETOOLONG:  # the text is damaged
                unreachable = error
    if unreachable is not None:
        raise unreachable
    return None
