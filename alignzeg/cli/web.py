"""``alignzeg web``: serve a web page for trying pictures and words."""

from __future__ import annotations

import argparse
import importlib.util
from typing import Any

from .options import add_command, add_model_options, check_model, load_library, positive
from .output import write

DETAILS = """
Serves a web page that takes pictures and words, and shows an overlay, the share of each word and a slider for γ. Only
this machine can reach the page unless --host names another address, which requires a password, or --no-password.
Pictures are not written to disk as results; a picture, and what the model saw in it, stay in memory until they have
been unused for ten minutes.
"""
EXAMPLES = """
alignzeg web
alignzeg web --model config.py --checkpoint iter_80000.pth --port 8080
"""


def add_parser(commands: Any) -> None:
    """Add the command."""
    parser = add_command(commands, 'web', 'try pictures and words on a web page', DETAILS, EXAMPLES)
    parser.set_defaults(run=run)
    add_model_options(parser)
    group = parser.add_argument_group('server')
    group.add_argument('--host', default='127.0.0.1', help='pass 0.0.0.0 to admit other machines (default: 127.0.0.1)')
    group.add_argument(
        '--allow-host',
        action='append',
        default=[],
        metavar='NAME',
        help='a further host name of the page, such as lab.example.org; can be repeated',
    )
    password = group.add_mutually_exclusive_group()
    password.add_argument(
        '--password-file',
        metavar='FILE',
        help='require the password in the first line of this file (default: MMSEG_ALIGNZEG_PASSWORD, if set)',
    )
    password.add_argument('--no-password', action='store_true', help='admit other machines without a password')
    group.add_argument('--port', type=port, default=7860, help='default: 7860')
    group.add_argument('--max-upload-mb', type=positive, default=20, metavar='MB', help='per picture (default: 20)')


def port(text: str) -> int:
    """Parse a port number, 1 to 65535.

    Raises:
        argparse.ArgumentTypeError: If ``text`` is not such a number.
    """
    number = positive(text)
    if number > 65535:
        raise argparse.ArgumentTypeError(f'expected a port up to 65535, got {text!r}')
    return number


def run(args: argparse.Namespace) -> int:
    """Serve the page until Ctrl-C."""
    check_model(args)
    if importlib.util.find_spec('gradio') is None:
        raise ImportError(
            'the web page needs gradio: pip install "mmseg_alignzeg[web]", or pip install "gradio>=6.31,<7"'
        )
    load_library()
    from ..web import serve

    serve(
        args.model,
        args.checkpoint,
        args.device,
        args.host,
        args.port,
        args.max_upload_mb,
        args.allow_host,
        args.password_file,
        args.no_password,
        dtype=args.dtype,
        clip_weights=args.clip_weights,
        tell=lambda line: write(line, args.stdout),
    )
    return 0
