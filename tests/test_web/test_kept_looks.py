"""The store of looks, without a server."""

from types import SimpleNamespace

import pytest

from alignzeg.web.looks import UNUSED, Looks


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def looks():
    return Looks(100, 250, Clock())


def look(size):
    return SimpleNamespace(nbytes=size)


@pytest.mark.attack('page: a picture of another visitor')
def test_only_its_own_tab_finds_a_look(looks):
    mine = look(10)
    token = looks.keep('a', 'tab', mine)
    assert looks.find('a', 'tab', token) is mine and looks.keep('a', 'tab', look(10)) != token
    for stranger in (('b', 'tab', token), ('a', 'other', token), ('a', 'None', token), ('a', 'tab', '')):
        assert looks.find(*stranger) is None
    for value in (None, 7, [token], {}, token.encode()):
        assert looks.find('a', 'tab', value) is None


def test_the_least_recently_used_go_first(looks):
    first, second = (looks.keep('a', 'tab', look(40)) for _ in range(2))
    assert looks.find('a', 'tab', first)
    third = looks.keep('a', 'tab', look(40))
    assert [looks.find('a', 'tab', token) is not None for token in (first, second, third)] == [True, False, True]
    others = [looks.keep(client, 'tab', look(100)) for client in 'bcd']
    assert sum(held.size for held in looks.held.values()) <= 250
    assert [looks.find(*who) is not None for who in zip('bcd', ['tab'] * 3, others, strict=True)] == [False, True, True]


def test_nobody_drops_those_of_others_alone(looks):
    token = looks.keep('a', 'tab', look(100))
    for _ in range(20):
        looks.keep('b', 'tab', look(50))
    assert looks.find('a', 'tab', token) and len(looks.held) == 3


def test_large_and_unused_looks_are_not_kept(looks):
    assert looks.keep('a', 'tab', look(101)) == '' and not looks.held
    old, new = looks.keep('a', 'tab', look(1)), looks.keep('a', 'tab', look(1))
    looks.clock.now += UNUSED - 1
    looks.find('a', 'tab', new)
    looks.clock.now += 2
    looks.sweep()
    assert list(looks.held) == [new] and old not in looks.held
