"""The table of ``make attack``: every attack, how often it was tried, and how often it succeeded.

A test that is an attack is marked ``@pytest.mark.attack('page: a foreign file')``; tests with one name share a row. A
test counts as one try unless it says otherwise: ``record_property('tries', 20)``.
"""

from collections import defaultdict

import pytest
from rich.console import Console
from rich.markup import escape
from rich.table import Table


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    report = (yield).get_result()
    marker = item.get_closest_marker('attack')
    report.attack = marker.args[0] if marker else None


@pytest.hookimpl(hookwrapper=True, tryfirst=True)
def pytest_terminal_summary(terminalreporter):
    yield  # the table comes last
    rows = defaultdict(lambda: [0, 0])
    for outcome in ('passed', 'failed', 'error'):
        for report in terminalreporter.getreports(outcome):
            attack = getattr(report, 'attack', None)
            if attack and (report.when == 'call' or outcome == 'error' or report.failed):
                rows[attack][0] += dict(report.user_properties).get('tries', 1)
                rows[attack][1] += outcome != 'passed'
    for report in terminalreporter.getreports('skipped'):
        attack = getattr(report, 'attack', None)
        if attack:
            rows[f'{attack} (not tried: {report.longrepr[2].removeprefix("Skipped: ")})'] = ['-', '-']
    table = Table('attack', 'tries', 'failures', title='make attack')
    for attack, (tries, failures) in sorted(rows.items()):
        style = 'yellow' if tries == '-' else 'bold red' if failures else None
        table.add_row(escape(attack), tries if tries == '-' else f'{tries:,}', str(failures), style=style)
    Console(width=120).print(table)
