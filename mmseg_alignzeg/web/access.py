"""Who may talk to the page: names it answers to, origins of requests, and the password."""

from __future__ import annotations

import hmac
import ipaddress
import os
from collections.abc import Collection
from pathlib import Path
from urllib.parse import urlsplit

LOOPBACK = ('localhost', '127.0.0.1', '::1')
PASSWORD_VARIABLE = 'MMSEG_ALIGNZEG_PASSWORD'  # nosec B105: the name of a variable
SHORTEST_PASSWORD = 8
LONGEST_PASSWORD = 1000


def is_loopback(host: str) -> bool:
    """Whether only this machine itself reaches a host."""
    try:
        return ipaddress.ip_address(host.strip('[]')).is_loopback
    except ValueError:
        return host == 'localhost'


def is_wildcard(host: str) -> bool:
    """Whether a host stands for all addresses of this machine."""
    return host.strip('[]') in ('', '0.0.0.0', '::')  # nosec B104: compared, not bound


def split_netloc(netloc: str) -> tuple[str, int | None] | None:
    """Name, lower case and without brackets, and port of a ``Host`` header or of an origin; None if malformed."""
    try:
        parts = urlsplit(f'//{netloc}')
        name, port = parts.hostname, parts.port
    except ValueError:
        return None
    if not name or parts.netloc != netloc or '@' in netloc:
        return None
    return name, port


class Names:
    """Names under which the page is served, against DNS rebinding.

    A foreign page whose own name was made to resolve to this machine has the same origin as ours, but for the name. So
    names are known ones. Addresses of a server that listens on all of them need not be known: no name server gives
    them out.

    Args:
        host: That the server listens on.
        more: Further names.

    Raises:
        ValueError: If one is not the name of a host.
    """

    def __init__(self, host: str, more: Collection[str] = ()) -> None:
        self.any_address = is_wildcard(host)
        bare = {host.strip('[]').lower(), *LOOPBACK} - {''}
        for name in more:
            found = split_netloc(f'[{name}]' if name.count(':') > 1 and not name.startswith('[') else name)
            if found is None or found[1] is not None or any(sign in name for sign in '/*?# '):
                raise ValueError(f'{name!r} is not a valid name of a host: give one such as lab.example.org, no port.')
            bare.add(found[0])
        self.names = frozenset(bare)

    def trusts(self, host_header: str) -> bool:
        """Whether a request with this ``Host`` header is for us."""
        found = split_netloc(host_header)
        return found is not None and (found[0] in self.names or (self.any_address and _is_address(found[0])))


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def is_own_request(method: str, path: str, host: str, origin: str | None, site: str | None, dest: str | None) -> bool:
    """Whether a request does not come from a page of another origin.

    Browsers send ``Origin`` with all that could change something, and ``Sec-Fetch-Site`` with everything; programs,
    which need no page to reach us, send neither. A link from elsewhere to the front page is fine.

    Args:
        method: Such as ``'GET'``.
        path: Of the URL.
        host: The ``Host`` header.
        origin: The ``Origin`` header, if any.
        site: ``Sec-Fetch-Site``, if any.
        dest: ``Sec-Fetch-Dest``, if any.
    """
    if origin is not None:
        scheme, separator, netloc = origin.partition('://')
        ours, theirs = split_netloc(host), split_netloc(netloc)
        if not separator or ours is None or theirs is None or ours[0] != theirs[0]:
            return False
        default = {'http': 80, 'https': 443}.get(scheme)
        if default is None or (ours[1] or default) != (theirs[1] or default):
            return False
    if site in (None, 'same-origin', 'none'):
        return True
    return method in ('GET', 'HEAD') and path == '/' and dest == 'document'


def read_password(file: str | os.PathLike[str] | None) -> str | None:
    """The password: the first line of a file, or else the environment's; never of the command line, which all see.

    Raises:
        OSError: If the file cannot be read.
        ValueError: If it is no text, or the password is too short.
    """
    if file is None:
        password, place = os.environ.get(PASSWORD_VARIABLE), PASSWORD_VARIABLE
        if password is None:
            return None
    else:
        place = os.fspath(file)
        try:
            password = (Path(file).read_text(encoding='utf-8').splitlines() or [''])[0]
        except UnicodeDecodeError as error:
            raise ValueError(f'{place} is not valid UTF-8 text: write the password into its first line.') from error
    if not SHORTEST_PASSWORD <= len(password) <= LONGEST_PASSWORD:
        raise ValueError(
            f'The password of {place} has {len(password)} characters: give {SHORTEST_PASSWORD} to {LONGEST_PASSWORD}.'
        )
    return password


def same_password(given: str, right: str) -> bool:
    """Compare in a time that does not tell how much is right."""
    return hmac.compare_digest(given.encode(errors='surrogatepass'), right.encode(errors='surrogatepass'))


def require_protection(host: str, password: str | None, no_password: bool) -> None:
    """Refuse to let other machines in without a decision about a password.

    Raises:
        ValueError: In the words of the command line.
    """
    if password is not None and no_password:
        raise ValueError('There is a password, and --no-password: leave one of them out.')
    if password is None and not no_password and not is_loopback(host):
        raise ValueError(
            f'--host {host} lets other machines in: give a password (--password-file FILE, or {PASSWORD_VARIABLE}), or '
            'pass --no-password to let in whoever reaches this machine.'
        )


def reach(host: str, more: Collection[str], password: str | None) -> str:
    """Say who can reach a page that other machines reach."""
    where = 'any of its addresses' if is_wildcard(host) else host
    names = ' or '.join((where, *more))
    who = f'Whoever reaches this machine over the network can open the page, as {names}'
    if password is None:
        return f'{who}: it asks for no password, and pictures travel unencrypted.'
    return f'{who}, and use it with the password (any user name); password and pictures travel unencrypted.'
