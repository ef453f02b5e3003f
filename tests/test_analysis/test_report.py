"""The report says what the numbers say, stands alone, and leaves out what is not there."""

import csv
import json
import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest

from alignzeg.analysis import Curves, write_report
from alignzeg.analysis.report import label, render

ABOUT = {'config': 'configs/<x>.py', 'checkpoint': 'iter_1.pth', 'images': '2 of 2', 'classes': '2 seen and 1 unseen'}
GROUP = {'count': 4, 'mean': 0.5, 'histogram': [0] * 10 + [4] + [0] * 9}


def row(h, gamma=None, constant=0.0, oracle=False, own=False):
    measures = dict(pAcc=h, mIoU=h, mIoU_seen=h + 5, mIoU_unseen=h - 5, hIoU=h, unseen_as_seen=100 - h)
    return dict(gamma=gamma, constant=constant, oracle=oracle, own=own, **measures)


@pytest.fixture
def result():
    confused = {'name': 'red <dots>', 'pixels': 9, 'itself': 60.0, 'other_unseen': 10.0, 'seen': 30.0}
    confused['takers'] = [['blue', 20.0], ['green', 5.0]]
    rows = [
        row(60.0),
        row(62.0, 0.3, own=True),
        row(65.0, 0.6),
        row(66.0, constant=0.1),
        row(61.0, 0.3, constant=0.1),
        row(80.0, oracle=True),
    ]
    return {
        'images': 2,
        'base': 0.3,
        'rows': rows,
        'masks': {name: {**GROUP, 'above_half': 0.75} for name in ('seen', 'unseen')},
        'indicator': {
            'auroc': 0.925,
            **{name: {**GROUP, 'above_base': 0.25} for name in ('seen', 'unseen', 'background')},
        },
        'confusion': {'without PBC': [confused], 'with PBC': [{**confused, 'itself': 70.0}]},
        'left_out': [],
    }


def headings(page):
    return re.findall(r'<h2>(.*?)</h2>', page)


def test_headings_say_the_findings(result):
    assert headings(render(result, ABOUT)) == [
        'PBC at γ = 0.3 raises hIoU from 60.00 to 62.00; the best γ of the curve, 0.6, gives 65.00',
        'Subtracting 0.1 from all seen scores raises hIoU from 60.00 to 66.00, 1.00 more than PBC at its best γ',
        'With oracle classes, the same masks give hIoU 80.00 instead of 62.00; '
        'masks of unseen classes fit as well as those of seen ones',
        'φ_bc ranks proposals of unseen classes above those of seen ones with an AUROC of 0.925',
        '40.0 % of unseen pixels are predicted as seen classes without PBC, 38.0 % with PBC; '
        '“red &lt;dots&gt;” has the lowest accuracy',
    ]


def test_headings_follow_the_numbers(result):
    result['rows'][1].update(hIoU=50.0)
    result['rows'][2].update(hIoU=50.0)
    result['rows'][3].update(hIoU=59.0)
    result['masks']['unseen'] = {**result['masks']['unseen'], 'mean': 0.3}
    first, second, third, *_ = headings(render(result, ABOUT))
    assert first.startswith('PBC at γ = 0.3 lowers hIoU from 60.00 to 50.00, and no other γ ')
    assert second.startswith('Stacking improves nothing: hIoU is 60.00 without it, 10.00 more')
    assert third.endswith('masks of unseen classes fit worse than those of seen ones')


def test_summary_names_each_row_once(result):
    names = [name for name, _ in Curves(result).summary()]
    assert names == [
        'without PBC',
        'PBC γ=0.3',
        'PBC γ=0.6 (best)',
        'stacking 0.1 (literature, best)',
        'oracle classes',
    ]
    result['rows'][4].update(hIoU=70.0)
    assert Curves(result).summary()[4] == ('PBC γ=0.3 + stacking 0.1 (best)', result['rows'][4])


def test_page_stands_alone_and_is_well_formed(result):
    page = render(result, ABOUT)
    assert not re.search(r'(src|href)="(?!#)', page) and '@import' not in page
    figures = re.findall(r'<svg.*?</svg>', page, re.DOTALL)
    assert len(figures) == 4
    for figure in figures:
        ElementTree.fromstring(figure)
        assert 'var(--ink)' in figure and not re.search(r'#0[1-6]0[1-6]0[1-6]', figure)
    assert 'red &lt;dots&gt;' in page and 'configs/&lt;x&gt;.py' in page and '<dots>' not in page
    assert 'prefers-color-scheme: dark' in page

    class Balanced(HTMLParser):
        open_tags = []

        def handle_starttag(self, tag, attributes):
            if tag not in ('meta', 'br', 'path', 'use'):
                self.open_tags.append(tag)

        def handle_startendtag(self, tag, attributes):
            pass

        def handle_endtag(self, tag):
            if tag not in ('path', 'use'):
                assert self.open_tags.pop() == tag

    Balanced().feed(page)
    assert Balanced.open_tags == []


def test_what_is_left_out_leaves_no_trace(result):
    rows = [row(60.0, own=True), row(80.0, oracle=True)]
    for line in rows:
        for key in ('mIoU_unseen', 'hIoU', 'unseen_as_seen'):
            del line[key]
    empty = {'count': 0, 'mean': None, 'histogram': [0] * 20, 'above_half': None}
    result.update(
        base=None,
        rows=rows,
        indicator={},
        confusion={'without PBC': []},
        masks={**result['masks'], 'unseen': empty},
        left_out=['No test class is unseen, so …'],
    )
    page = render(result, ABOUT)
    assert headings(page) == ['With oracle classes, the same masks give mIoU 80.00 instead of 60.00']
    assert 'No test class is unseen' in page and 'γ=' not in page and 'mIoU unseen' not in page


def test_files_hold_every_number(result, tmp_path):
    write_report(result, ABOUT, tmp_path / 'new')
    read = json.loads((tmp_path / 'new/analysis.json').read_text())
    assert read == {'about': ABOUT, **result}
    with (tmp_path / 'new/curves.csv').open() as file:
        lines = list(csv.DictReader(file))
    assert [float(line['hIoU']) for line in lines] == [line['hIoU'] for line in result['rows']]
    assert [line['setting'] for line in lines] == [label(line) for line in result['rows']]
