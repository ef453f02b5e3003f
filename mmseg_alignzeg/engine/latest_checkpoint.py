"""Where a training goes on: the newest whole checkpoint of a folder."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from .checkpoint_file import read_checkpoint

POINTER = 'last_checkpoint'  # the file in a work_dir in which MMEngine looks for the path of its newest checkpoint


@dataclass(frozen=True)
class Latest:
    """What a folder has to go on from.

    Attributes:
        path: The checkpoint, or None if there is none.
        damaged: One sentence for each newer file that had to be passed over.
        named: Whether the pointer names the checkpoint.
    """

    path: Path | None
    damaged: tuple[str, ...]
    named: bool


def find_latest(pointer: Path, folder: Path, template: str) -> Latest:
    """Find the checkpoint that the pointer names or, if that is damaged or none, the whole one of the highest number.

    Args:
        pointer: MMEngine's ``last_checkpoint``; may be missing, empty, torn, or name what does not exist.
        folder: Where checkpoints are.
        template: Their names, as in ``iter_{}.pth``.
    """
    text = pointer.read_bytes().decode('utf-8', 'replace').strip() if pointer.is_file() else ''
    named = _named(text, folder)
    name = re.compile(re.escape(template).replace(r'\{\}', r'(\d+)'))
    numbered = {int(match[1]): path for path in folder.glob('*') if (match := name.fullmatch(path.name))}
    candidates = [numbered[number] for number in sorted(numbered, reverse=True)]
    if named is not None:
        candidates = [named, *(path for path in candidates if path.name != named.name)]
    damaged: list[str] = []
    for path in candidates:
        try:
            content = read_checkpoint(path)
            missing = {'meta', 'state_dict', 'message_hub'} - content.keys()
            if not missing:
                return Latest(path, tuple(damaged), named=str(path) == text)
            damaged.append(f'{path} has no `{min(missing)}`.')
        except (OSError, ValueError) as error:
            damaged.append(str(error))
    return Latest(None, tuple(damaged), named=False)


def _named(text: str, folder: Path) -> Path | None:
    """The file that a pointer means: as it stands there, or of that name in the folder if that was moved."""
    if not text or '\0' in text or '\n' in text:
        return None
    try:
        return next((path for path in (Path(text), folder / Path(text).name) if path.is_file()), None)
    except OSError:  # too long for a path: torn
        return None
