"""Options that several commands share, and the deferred import of the library."""

from __future__ import annotations

import argparse
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def load_library() -> None:
    """Import and register everything that ``import mmseg_alignzeg`` registers. This takes seconds."""
    import mmseg_alignzeg  # noqa: F401


def add_command(commands: Any, name: str, summary: str, details: str, examples: str) -> argparse.ArgumentParser:
    """Add a subparser whose help ends with examples.

    Args:
        commands: The object that ``add_subparsers`` returned.
        name: Name of the command.
        summary: One line for the list of commands.
        details: Description of the command, shown above its options.
        examples: Example command lines.
    """
    indented = '\n'.join(f'  {line}'.rstrip() for line in examples.strip().splitlines())
    return commands.add_parser(
        name,
        help=summary,
        description=f'{summary[0].upper()}{summary[1:]}.\n\n{details.strip()}',
        epilog=f'examples:\n{indented}',
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that choose a model."""
    group = parser.add_argument_group('model (default: the included one of the embedded world of patterns)')
    group.add_argument(
        '--model', '--config', metavar='CONFIG|FOLDER', help='config (.py), or a folder of `alignzeg export`'
    )
    group.add_argument('--checkpoint', metavar='FILE', help='.pth or .safetensors that was trained with that config')
    group.add_argument('--clip-weights', metavar='FILE|TAG', help="CLIP's weights, in place of those in the config")
    group.add_argument('--device', help="such as 'cuda:0' (default: a GPU if there is one)")
    group.add_argument('--dtype', choices=('fp32', 'fp16', 'bf16'), default='fp32', help='precision (default: fp32)')


def check_model(args: argparse.Namespace) -> None:
    """Refuse a checkpoint without its config, a config without a checkpoint, and files that do not exist.

    Raises:
        ValueError: If one of the two is not given; the message names the command-line options.
        FileNotFoundError: If one of the two does not exist.
    """
    if args.checkpoint is not None and args.model is None:
        raise ValueError(
            f'the checkpoint {args.checkpoint} needs the config it was trained with, which MMEngine keeps in the same '
            'folder (or the one above): pass both.'
        )
    if args.checkpoint is None and str(args.model).endswith('.py'):
        raise ValueError(f'the config {args.model} needs its weights: pass --checkpoint too.')
    if args.model is not None and not os.path.exists(os.path.expanduser(args.model)):
        raise FileNotFoundError(f'{args.model!r} does not exist: give a config (.py) or a folder of a saved model.')
    if args.checkpoint is not None and not os.path.exists(os.path.expanduser(args.checkpoint)):
        raise FileNotFoundError(f'there is no checkpoint {args.checkpoint!r}: give a .pth or .safetensors file.')


def positive(text: str) -> int:
    """Parse a whole number of at least 1.

    Raises:
        argparse.ArgumentTypeError: If ``text`` is not such a number.
    """
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f'expected a number of at least 1, got {text!r}')
    return int(text)


def fraction(text: str) -> float:
    """Parse a number in (0, 1].

    Raises:
        argparse.ArgumentTypeError: If ``text`` is not such a number.
    """
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number <= 1:
        raise argparse.ArgumentTypeError(f'expected a number above 0 and up to 1, got {text!r}')
    return number


def add_overrides(parser: argparse.ArgumentParser) -> None:
    """Add ``--cfg-options``, the overrides of a config."""
    parser.add_argument(
        '--cfg-options', type=override, nargs='+', default=[], metavar='KEY=VALUE', help='overrides, as in `mim train`'
    )


def override(text: str) -> str:
    """Accept text with a key and a value.

    Raises:
        argparse.ArgumentTypeError: If the equals sign or the key before it is missing.
    """
    if not text.partition('=')[1] or not text.partition('=')[0].strip():
        raise argparse.ArgumentTypeError(f'expected KEY=VALUE, such as model.bias_correction.gamma=0.5, got {text!r}')
    return text


def parsed_overrides(pairs: Sequence[str]) -> dict[str, Any]:
    """Return the overrides as MMEngine reads them: numbers, lists and None where they look like it."""
    from mmengine.config import DictAction

    parser = argparse.ArgumentParser()
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, default={})
    return parser.parse_args(['--cfg-options', *pairs] if pairs else []).cfg_options


def read_config(path: Path, pairs: Sequence[str]) -> Any:
    """Return a config with overrides.

    Raises:
        ValueError: If it cannot be read, has no ``model``, or does not accept an override.
    """
    from ..config_file import read_config_file

    cfg = read_config_file(path)
    try:
        cfg.merge_from_dict(parsed_overrides(pairs))
    except Exception as error:
        raise ValueError(f'{path} cannot take --cfg-options: {type(error).__name__}: {error}') from error
    return cfg


def existing(text: str) -> Path:
    """Parse the path of a file or folder that exists.

    Raises:
        FileNotFoundError: If it does not; argparse does not add its usage to this error.
    """
    path = Path(text).expanduser()
    if not path.exists():
        raise FileNotFoundError(f'{text!r} does not exist (looked for {path.absolute()}).')
    return path


def add_word_options(parser: argparse._ArgumentGroup) -> None:
    """Add the options that choose the words."""
    words = parser.add_mutually_exclusive_group()
    words.add_argument('--classes', metavar='WORDS', help='any words, separated by commas: "red stripes, blue dots"')
    words.add_argument('--classes-file', type=Path, metavar='FILE', help='the words, one per line (may contain commas)')


def split_words(text: str | None) -> list[str] | None:
    """Split words at commas; None stays None. A comma at the end is allowed; other blank words are kept."""
    if text is None:
        return None
    words = [word.strip() for word in text.split(',')]
    return words[:-1] if len(words) > 1 and not words[-1] else words


def read_words(args: argparse.Namespace) -> list[str] | None:
    """Return the words of ``--classes`` or ``--classes-file``, or None without either.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If the file is empty or is not text, a word is blank or repeated, or ``--unseen`` names others.
    """
    words = split_words(args.classes) if args.classes_file is None else _words_of(args.classes_file)
    if words is None:
        return None
    source, what = ('--classes', 'word') if args.classes_file is None else (str(args.classes_file), 'line')
    if '' in words:
        todo = 'separate words by single commas' if what == 'word' else 'remove it'
        raise ValueError(f'{source}: {what} {words.index("") + 1} of {len(words)} is empty: {todo}.')
    alike = Counter(map(str.casefold, words))
    repeated = next((word for word in words if alike[word.casefold()] > 1), None)
    if repeated is not None:
        raise ValueError(f'{source}: {repeated!r} occurs {alike[repeated.casefold()]} times: give every word once.')
    unseen = split_words(getattr(args, 'unseen', None)) or []
    foreign = [word for word in unseen if word and word.casefold() not in alike]
    if foreign:
        raise ValueError(f'--unseen names {foreign[0]!r}, which is not one of the words of {source}.')
    return words


def _words_of(file: Path) -> list[str]:
    """Return the lines of a file without the spaces around them."""
    try:
        lines = file.read_text(encoding='utf-8-sig').splitlines()
    except FileNotFoundError:
        raise FileNotFoundError(f'there is no file {str(file)!r}: write one word per line, or use --classes.') from None
    except UnicodeDecodeError as error:
        raise ValueError(f'{file} is not valid UTF-8 text ({error.reason}): save it as UTF-8.') from None
    if not lines:
        raise ValueError(f'{file} is empty: write one word per line.')
    return [line.strip() for line in lines]
