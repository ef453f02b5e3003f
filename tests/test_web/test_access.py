"""Names, origins and the password, without a server."""

import pytest

from alignzeg.web.access import (
    PASSWORD_VARIABLE,
    Names,
    is_loopback,
    is_own_request,
    reach,
    read_password,
    require_protection,
    same_password,
)


def test_loopback():
    assert all(map(is_loopback, ('127.0.0.1', '127.1.2.3', '::1', '[::1]', 'localhost')))
    assert not any(map(is_loopback, ('0.0.0.0', '::', '192.168.0.2', 'example.org')))


@pytest.mark.parametrize(
    ('host', 'more', 'trusted', 'not_trusted'),
    [
        ('127.0.0.1', (), ['localhost:7860', 'LOCALHOST', '127.0.0.1:1', '[::1]:7860'],
         ['', 'evil.example', '0.0.0.0', '192.168.0.2', 'localhost.', 'a@localhost', 'localhost/', '[::1', '::1']),
        ('192.168.0.2', (), ['192.168.0.2:80', 'localhost'], ['192.168.0.3', 'evil.example']),
        ('0.0.0.0', ('Lab.example.org',), ['lab.example.org:443', '192.168.0.2', '[2001:db8::1]:7860', 'localhost'],
         ['evil.example', 'x.lab.example.org', '192.168.0.2.evil.example', '2130706433', '']),
        ('::', (), ['[fe80::1]', '10.0.0.1'], ['evil.example']),
        ('lab', ('2001:db8::2',), ['lab:7860', '[2001:db8::2]'], ['[2001:db8::3]', 'lab.evil.example']),
    ],
)  # fmt: skip
def test_names(host, more, trusted, not_trusted):
    names = Names(host, more)
    assert [header for header in trusted if not names.trusts(header)] == []
    assert [header for header in not_trusted if names.trusts(header)] == []


@pytest.mark.parametrize('name', ['', '*', '*.example.org', 'http://x', 'x:80', 'x/y', 'a b', 'u@x', '[::1'])
def test_names_that_are_none(name):
    with pytest.raises(ValueError, match='not a valid host name'):
        Names('127.0.0.1', [name])


@pytest.mark.parametrize(
    ('host', 'origin', 'own'),
    [
        ('localhost:7860', 'http://localhost:7860', True),
        ('localhost:7860', 'http://LOCALHOST:7860', True),
        ('lab.example.org', 'https://lab.example.org', True),
        ('lab.example.org:80', 'http://lab.example.org', True),
        ('localhost:7860', None, True),
        ('localhost:7860', 'http://localhost:7861', False),
        ('localhost:7860', 'http://localhost', False),
        ('localhost:7860', 'http://127.0.0.1:7860', False),
        ('localhost:7860', 'null', False),
        ('localhost:7860', '', False),
        ('localhost:7860', 'file://', False),
        ('localhost:7860', 'ftp://localhost:7860', False),
        ('localhost:7860', 'http://localhost:7860@evil.example', False),
    ],
)
def test_origins(host, origin, own):
    for method in ('GET', 'POST'):
        assert is_own_request(method, '/config', host, origin, None, None) is own


@pytest.mark.parametrize(
    ('method', 'path', 'site', 'dest', 'own'),
    [
        ('POST', '/x', 'same-origin', 'empty', True),
        ('GET', '/x', 'none', 'document', True),
        ('GET', '/', 'cross-site', 'document', True),
        ('GET', '/', 'cross-site', 'iframe', False),
        ('GET', '/x', 'cross-site', 'document', False),
        ('GET', '/x', 'same-site', 'image', False),
        ('POST', '/', 'cross-site', 'document', False),
    ],
)
def test_sites(method, path, site, dest, own):
    assert is_own_request(method, path, 'localhost', None, site, dest) is own


def test_passwords(tmp_path, monkeypatch):
    monkeypatch.delenv(PASSWORD_VARIABLE, raising=False)
    assert read_password(None) is None
    monkeypatch.setenv(PASSWORD_VARIABLE, 'from the environment')
    assert read_password(None) == 'from the environment'
    file = tmp_path / 'password.txt'
    file.write_text('correct hörse\r\nsecond line\n')
    assert read_password(file) == 'correct hörse'
    for text in ('', '\n', 'short', 'x' * 1001):
        file.write_text(text)
        with pytest.raises(ValueError, match='8 to 1000'):
            read_password(file)
    file.write_bytes(b'\xff\xfe12345678')
    with pytest.raises(ValueError, match='not valid UTF-8'):
        read_password(file)
    assert same_password('hörse', 'hörse') and not same_password('hörs', 'hörse') and not same_password('\ud800', 'x')


def test_other_machines_need_a_decision():
    for host in ('127.0.0.1', 'localhost', '::1'):
        require_protection(host, None, False)
    for host in ('0.0.0.0', '::', '192.168.0.2', 'lab.example.org', ''):
        with pytest.raises(ValueError, match='--no-password'):
            require_protection(host, None, False)
        require_protection(host, 'correct horse', False)
        require_protection(host, None, True)
    with pytest.raises(ValueError, match='--no-password'):
        require_protection('0.0.0.0', 'correct horse', True)


def test_who_is_told_to_reach_it():
    assert 'any of its addresses or lab. It requires no password' in reach('0.0.0.0', ['lab'], None)
    assert '192.168.0.2, and use it with the password' in reach('192.168.0.2', [], 'correct horse')
