"""The documentation site, as far as it can be checked without building it: navigation, links and the notebook."""

import json
import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
NOTEBOOK = ROOT / 'docs/from_words_to_report.ipynb'
PAGES = [*ROOT.glob('*.md'), *sorted((ROOT / 'docs').glob('*.md'))]


def prose(text):
    """A page without its code blocks, in which `#` starts a comment."""
    return re.sub(r'^```.*?^```|^ {4,}\S.*?$', '', text, flags=re.MULTILINE | re.DOTALL)


def anchors(text):
    """The anchors that GitHub gives to headings."""
    titles = re.findall(r'^#+ (.+)$', prose(text), flags=re.MULTILINE)
    return {re.sub(r'[^\w\- ]', '', title.lower()).replace(' ', '-') for title in titles}


def leaves(nav):
    for entry in nav:
        for value in entry.values():
            yield from leaves(value) if isinstance(value, list) else [value]


def test_the_navigation_has_every_page_once(load_tool):
    listed = list(leaves(yaml.safe_load((ROOT / 'mkdocs.yml').read_text())['nav']))
    written = load_tool('docs_pages').written_pages()
    assert len(listed) == len(set(listed))
    assert set(listed) == {path.name for path in PAGES if path.parent == ROOT / 'docs'} | written.keys() | {
        NOTEBOOK.with_suffix('.md').name
    }
    assert all(page.startswith('# ') and page.count('\n# ') == 0 for page in map(prose, written.values()))
    assert not [name for name, page in written.items() if '](docs/' in page]


@pytest.mark.parametrize('page', PAGES, ids=lambda path: path.name)
def test_links_lead_to_files_and_headings(page):
    for target, anchor in re.findall(r'\]\(([^)#\s]*)(?:#([^)\s]+))?\)', prose(page.read_text())):
        if re.match(r'https?://|mailto:', target):
            continue
        file = page.parent / target if target else page
        assert file.is_file(), f'{page.name}: {target}'
        assert not anchor or anchor in anchors(file.read_text()), f'{page.name}: {target}#{anchor}'


def test_the_site_is_built_by_ci_and_loads_nothing_from_elsewhere():
    config = yaml.safe_load((ROOT / 'mkdocs.yml').read_text())
    assert config['strict'] and config['theme']['font'] is False
    assert not {'extra_javascript', 'repo_url'} & config.keys()  # with a repository, the page asks GitHub for its stars
    jobs = yaml.safe_load((ROOT / '.github/workflows/ci.yml').read_text())['jobs']
    assert 'make docs' in [step.get('run') for step in jobs['docs']['steps']]


def test_the_notebook_runs_and_stores_what_it_prints(load_tool):
    assert NOTEBOOK.stat().st_size < 500_000
    stored = json.loads(NOTEBOOK.read_text())
    again = load_tool('run_notebook').run(stored)
    for old, new in zip(stored['cells'], again['cells'], strict=True):
        for before, after in zip(old.get('outputs', []), new.get('outputs', []), strict=True):
            assert before['output_type'] == after['output_type']
            assert before.get('data', {}).keys() == after.get('data', {}).keys()
            texts = [''.join(output.get('text', [])) for output in (before, after)]
            words, numbers = ([re.findall(pattern, text) for text in texts] for pattern in (r'[a-z_]{3,}', r'\d+\.\d+'))
            assert sorted(words[0]) == sorted(words[1])
            if 'proposal' not in ''.join(old['source']):  # single proposals depend on rounding
                assert [float(number) for number in numbers[0]] == pytest.approx(list(map(float, numbers[1])), abs=3)


def test_outputs_are_stored_in_the_order_of_the_cell(load_tool):
    code = "from PIL import Image\nprint('a')\ndisplay(Image.new('RGB', (2, 2)))\nprint('b')\n6 * 7"
    first, picture, second, value = load_tool('run_notebook').run_cell(code, {})
    assert (first['text'], second['text'], value['data']['text/plain']) == (['a\n'], ['b\n'], ['42'])
    assert picture['data']['image/png'].startswith('iVBORw0KGgo')  # the signature of a PNG, in base64
