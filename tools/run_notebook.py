"""Run the code of a notebook in this process and store its outputs, without Jupyter.

Cells run in order in a temporary folder. What a cell prints is stored, and what it shows: `display(...)` and its last
expression, a picture as PNG, anything else as text. The file changes only if an output does.
"""

from __future__ import annotations

import argparse
import ast
import base64
import contextlib
import io
import json
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image

from mmseg_alignzeg.files import write_text

NOTEBOOK = Path(__file__).parents[1] / 'docs/from_words_to_report.ipynb'
Output = dict[str, Any]


def lines(text: str) -> list[str]:
    """Return a text as notebooks store it."""
    return text.splitlines(keepends=True)


def shown(value: object) -> Output:
    """Return the output of a value that a cell shows. Pictures are reduced to 256 colours, for a small file."""
    data: dict[str, Any] = {'text/plain': lines(repr(value))}
    if isinstance(value, Image.Image):
        value.convert('RGB').quantize(256).save(buffer := io.BytesIO(), 'PNG', optimize=True)
        data = {'text/plain': ['a picture'], 'image/png': base64.b64encode(buffer.getvalue()).decode() + '\n'}
    return {'output_type': 'display_data', 'metadata': {}, 'data': data}


def run_cell(code: str, names: dict[str, Any]) -> list[Output]:
    """Run one cell and return its outputs in order.

    Args:
        code: Python, without magics.
        names: The variables of the notebook, which the cell changes.
    """
    outputs: list[Output] = []
    printed = io.StringIO()

    def display(*values: object) -> None:
        if text := printed.getvalue():
            outputs.append({'output_type': 'stream', 'name': 'stdout', 'text': lines(text)})
        printed.seek(0)
        printed.truncate()
        outputs.extend(map(shown, values))

    names['display'] = display
    tree = ast.parse(code)
    last = tree.body[-1] if tree.body else None
    if isinstance(last, ast.Expr):
        tree.body.pop()
    with contextlib.redirect_stdout(printed):
        exec(compile(tree, '<cell>', 'exec'), names)  # nosec B102 (a notebook of this repository)
        value = None
        if isinstance(last, ast.Expr):
            value = eval(compile(ast.Expression(last.value), '<cell>', 'eval'), names)  # nosec B307
        display(*([] if value is None else [value]))
    return outputs


def run(notebook: dict[str, Any]) -> dict[str, Any]:
    """Return a notebook with the outputs of this run. Code that fails raises its own exception."""
    names: dict[str, Any] = {'__name__': '__main__'}
    cells, count = [], 0
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        for cell in notebook['cells']:
            if cell['cell_type'] == 'code':
                count += 1
                cell = {**cell, 'execution_count': count, 'outputs': run_cell(''.join(cell['source']), names)}
            cells.append(cell)
    return {**notebook, 'cells': cells}


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('notebook', type=Path, nargs='?', default=NOTEBOOK)
    path = parser.parse_args().notebook
    done = run(json.loads(path.read_text(encoding='utf-8')))
    write_text(path, json.dumps(done, indent=1, ensure_ascii=False) + '\n')
    print(f'{path}: {path.stat().st_size / 1000:.0f} kB')


if __name__ == '__main__':
    main()
