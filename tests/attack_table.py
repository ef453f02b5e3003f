"""The table of ``make attack``: every attack, how often it was tried, and how often it succeeded.

A test that is an attack is marked ``@pytest.mark.attack("page: a foreign file")``; tests with one name share a row. A
test counts as one try unless it says otherwise: ``record_property("tries", 20)``.
"""

from collections import defaultdict

import pytest
from rich.console import Console
from rich.table import Table


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    report = (yield).get_result()
    marker = item.get_closest_marker('attack')
    report.attack = marker.args[0] if marker else None


def pytest_terminal_summary(terminalreporter):
    rows = defaultdict(lambda: [0, 0])
    for outcome in ('passed', 'failed', 'error'):
        for report in terminalreporter.getreports(outcome):
            attack = getattr(report, 'attack', None)
            if attack and (report.when == 'call' or outcome == 'error' or report.failed):
                rows[attack][0] += dict(report.user_properties).get('tries', 1)
                rows[attack][1] += outcome != 'passed'
    table = Table('attack', 'tries', 'failures', title='make attack')
    for attack, (tries, failures) in sorted(rows.items()):
        table.add_row(attack, f'{tries:,}', str(failures), style='bold red' if failures else None)
    Console(width=120).print(table)
