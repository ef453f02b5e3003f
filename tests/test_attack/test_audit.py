"""Known weaknesses of the code (bandit) and of installed packages (pip-audit); what was judged harmless says why."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
JUDGED: dict[str, str] = {}  # advisories by their number, with the reason why they do not matter here
NOT_OURS = {'mmseg-alignzeg', 'pip'}  # not on PyPI; of the environment, and unused once it stands
pytestmark = pytest.mark.slow


def output_of(module, *arguments, timeout):
    """Standard output, parsed as JSON."""
    command = [sys.executable, '-m', module, *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=timeout)
    assert done.stdout, done.stderr[-2000:]
    return json.loads(done.stdout)


@pytest.mark.attack('audit: bandit')
def test_bandit_finds_nothing_that_was_not_judged(record_property):
    arguments = ['-q', '-c', 'pyproject.toml', '-r', 'mmseg_alignzeg', 'alignzeg', 'tools', '-f', 'json']
    report = output_of('bandit', *arguments, timeout=300)
    record_property('tries', len(report['metrics']) - 1)
    assert not report['errors']
    assert not [f'{r["filename"]}:{r["line_number"]} {r["test_id"]} {r["issue_text"]}' for r in report['results']]
    assert report['metrics']['_totals']['nosec'] == 0  # each `# nosec` names what it judges


@pytest.mark.attack('audit: known vulnerabilities of dependencies')
def test_no_installed_package_has_a_known_vulnerability(record_property):
    """Needs a package index with advisories, such as pypi.org; without one nothing is known, and CI fails."""
    packages = output_of('pip_audit', '--format', 'json', '--progress-spinner', 'off', timeout=900)['dependencies']
    packages = [package for package in packages if package['name'] not in NOT_OURS]
    audited = [package for package in packages if 'skip_reason' not in package]
    unknown = [package['name'] for package in packages if 'skip_reason' in package]
    if not audited and not os.environ.get('CI'):
        pytest.skip('the package index gives no advisories')
    record_property('tries', len(audited))
    found = {
        f'{package["name"]} {package["version"]}: {advisory["id"]}'
        for package in audited
        for advisory in package['vulns']
        if not {advisory['id'], *advisory['aliases']} & set(JUDGED)
    }
    assert not found
    assert not unknown
