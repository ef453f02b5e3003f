"""Who gets in with the password, and stays in, over the wire."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from web_visitor import Visitor


@pytest.fixture(scope='module')
def locked(serve_page):
    with serve_page(password='correct horse') as found:
        yield found


@pytest.mark.attack('page: without the password')
def test_nothing_without_the_password(locked, shown, record_property):
    routes = ['config', 'gradio_api/info', 'gradio_api/queue/data?session_hash=a', 'gradio_api/heartbeat/a']
    routes += ['gradio_api/call/segment/abc', 'gradio_api/app_id', 'gradio_api/queue/status']
    visitor = locked.visitor
    for cookie in ('', 'access-token-x=y', 'x="', 'access-token-unsecure-=None'):
        answers = [visitor.http.get(route, headers={'Cookie': cookie}) for route in routes]
        answers += [visitor.join('segment', shown), visitor.join('other', shown), visitor.upload(b'x')]
        answers += [visitor.http.post(f'gradio_api/{name}', json={}) for name in ('queue/join', 'cancel', 'reset')]
        assert {answer.status_code for answer in answers} == {401}
    front = visitor.http.get('')
    assert front.status_code == 200 and '"auth_required":true' in front.text and 'dataframe' not in front.text
    assert list(locked.folder.iterdir()) == []
    record_property('tries', 4 * 13 + 1)


@pytest.mark.attack('page: guessed passwords')
def test_passwords_cannot_be_guessed_for_long(locked, shown, record_property):
    guesser, owner = (Visitor(locked.address, source=f'127.0.0.{i}') for i in (3, 4))
    with ThreadPoolExecutor(20) as pool:
        guesses = list(pool.map(lambda i: log_in(guesser, f'password {i}').status_code, range(20)))
    assert sorted(guesses) == [400] * 10 + [429] * 10
    assert log_in(guesser, 'correct horse').status_code == 429
    assert log_in(owner, 'correct horse').status_code == 200
    assert owner.segment(shown)[:2] == (200, 'complete')
    assert owner.upload(b'x').status_code == 200
    record_property('tries', 21)


def log_in(visitor, password):
    return visitor.http.post('login', data={'username': 'anyone', 'password': password})


def test_cookies_of_other_programs_do_no_harm(locked):
    visitor = Visitor(locked.address, source='127.0.0.5')
    assert log_in(visitor, 'correct horse').status_code == 200
    (own,) = [f'{name}={value}' for name, value in visitor.http.cookies.items() if 'unsecure' in name]
    visitor.http.cookies.clear()  # what is beside it comes from other pages of the same host
    for other in ('a={"x": 1}', 'a=b c', 'a[0]=1', 'a,b=1', 'a', '=', '$x', 'a="', 'a=é'):
        for line in (f'{other}; {own}', f'{own}; {other}'):
            assert visitor.http.get('config', headers={'Cookie': line.encode()}).status_code == 200, line
    assert visitor.http.get('config').status_code == 401


@pytest.mark.attack('page: another web page in the same browser')
def test_nobody_logs_everyone_out(locked, record_property):
    owner, other, stranger = (Visitor(locked.address, source=f'127.0.0.{i}') for i in (6, 7, 8))
    assert log_in(owner, 'correct horse').status_code == log_in(other, 'correct horse').status_code == 200
    routes = ['logout', 'logout/', 'logout?all_session=true', 'gradio_api/logout']
    for route in routes:
        for visitor in (other, stranger):
            answers = [visitor.http.get(route), visitor.http.post(route), visitor.http.head(route)]
            assert {answer.status_code for answer in answers} == {404}
            assert not any('set-cookie' in answer.headers for answer in answers)
    assert owner.http.get('config').status_code == other.http.get('config').status_code == 200
    record_property('tries', 6 * len(routes))
