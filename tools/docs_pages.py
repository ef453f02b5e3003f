"""Pages of the documentation site whose text is elsewhere: README, SECURITY.md, CHANGELOG.md, the notebook.

MkDocs calls this file as a hook (``mkdocs.yml``). Every text stands in one place, where it reads well on GitHub too.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
NOTEBOOK = 'from_words_to_report'
FILES = {'security.md': 'SECURITY.md', 'changelog.md': 'CHANGELOG.md'}
# Sections of README by page. A section that is alone on its page gives it its title.
SECTIONS = {
    'index.md': (
        '',
        'Quick start',
        'Installation',
        'Inference with arbitrary images and classes',
        'Documentation',
        'License',
    ),
    'method.md': ('How it works',),
    'training.md': ('Full-size training',),
    'results.md': ('Results',),
    'notes.md': ('Notes',),
}


def linked(text: str) -> str:
    """Return Markdown of the repository's root with links to the pages of the site."""
    for page, file in FILES.items():
        text = text.replace(f']({file}', f']({page}')
    return text.replace('](docs/', '](')


def written_pages() -> dict[str, str]:
    """Return the Markdown of the pages that README and other files at the root hold, by file name.

    Raises:
        KeyError: If README has no section of this name.
    """
    parts = re.split(r'^## (.+)\n', (ROOT / 'README.md').read_text(encoding='utf-8'), flags=re.MULTILINE)
    sections = {'': parts[0], **dict(zip(parts[1::2], parts[2::2], strict=True))}
    pages = {page: (ROOT / file).read_text(encoding='utf-8') for page, file in FILES.items()}
    for page, names in SECTIONS.items():
        text = ''.join(f'## {name}\n{sections[name]}' if name else sections[name] for name in names)
        pages[page] = text if len(names) > 1 else re.sub(r'^#(#+ )', r'\1', text, flags=re.MULTILINE)
    return {page: linked(text) for page, text in pages.items()}


def page_title(text: str) -> str:
    """Return the first heading of a page."""
    found = re.search(r'^# (.+)$', text, flags=re.MULTILINE)
    return found[1].replace('`', '') if found else ''


def on_config(config: Any) -> Any:
    """Give headings the anchors that GitHub gives them."""
    from pymdownx.slugs import slugify

    config.mdx_configs.setdefault('toc', {})['slugify'] = slugify(case='lower')
    return config


def on_files(files: Any, config: Any) -> Any:
    """Add the pages, and the notebook with its pictures."""
    from mkdocs.structure.files import File
    from nbconvert import MarkdownExporter

    text, resources = MarkdownExporter().from_filename(str(ROOT / f'docs/{NOTEBOOK}.ipynb'))
    for name, content in {**written_pages(), f'{NOTEBOOK}.md': text, **resources['outputs']}.items():
        files.append(File.generated(config, name, content=content))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Name a page by its title where a link on GitHub shows the name of its file."""

    def named(match: re.Match) -> str:
        target = files.get_file_from_path(match[2])
        return match[0] if target is None else f'[{page_title(target.content_string)}]({match[2]}{match[3] or ""})'

    markdown = markdown.replace(f']({NOTEBOOK}.ipynb)', f']({NOTEBOOK}.md)')
    return re.sub(r'\[((?:docs/)?\w+\.md)\]\((\w+\.md)(#[^)]*)?\)', named, markdown)


def on_page_content(html: str, page: Any, config: Any, files: Any) -> str:
    """Turn roles of Sphinx in docstrings, such as ``:class:`AlignZeg```, into links, or into code without a target."""
    targets: dict[str, str] = {}
    for anchor in re.findall(r' id="((?:mmseg_)?alignzeg\.[\w.]+)"', html):
        targets.setdefault(anchor.rpartition('.')[2], anchor)

    def link(match: re.Match) -> str:
        name = match[1].rpartition('.')[2]
        code = f'<code>{name}</code>'
        return f'<a href="#{targets[name]}">{code}</a>' if name in targets else code

    return re.sub(r':\w+:<code>~?([\w.]+)</code>', link, html)
