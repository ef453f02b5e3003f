"""Access control of the page: host names, origins of requests, and the password."""

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
    """Return whether a host can be reached from this machine only."""
    try:
        return ipaddress.ip_address(host.strip('[]')).is_loopback
    except ValueError:
        return host == 'localhost'


def is_wildcard(host: str) -> bool:
    """Return whether a host means all addresses of this machine."""
    return host.strip('[]') in ('', '0.0.0.0', '::')  # nosec B104: compared, not bound


def split_netloc(netloc: str) -> tuple[str, int | None] | None:
    """Split a ``Host`` header or an origin into name (lower case, no brackets) and port; None if malformed."""
    try:
        parts = urlsplit(f'//{netloc}')
        name, port = parts.hostname, parts.port
    except ValueError:
        return None
    if not name or parts.netloc != netloc or '@' in netloc:
        return None
    return name, port


class Names:
    """The host names under which the page is served, a protection against DNS rebinding.

    If the name of a foreign page is made to resolve to this machine, only that name distinguishes its requests from
    legitimate ones. So only known names are accepted. A server that listens on all addresses also accepts any IP
    address, because DNS rebinding needs a name.

    Args:
        host: The host that the server listens on.
        more: Further host names.

    Raises:
        ValueError: If one of them is not a valid host name.
    """

    def __init__(self, host: str, more: Collection[str] = ()) -> None:
        self.any_address = is_wildcard(host)
        bare = {host.strip('[]').lower(), *LOOPBACK} - {''}
        for name in more:
            found = split_netloc(f'[{name}]' if name.count(':') > 1 and not name.startswith('[') else name)
            if found is None or found[1] is not None or any(sign in name for sign in '/*?# '):
                raise ValueError(
                    f'{name!r} is not a valid host name: pass one such as lab.example.org, without a port.'
                )
            bare.add(found[0])
        self.names = frozenset(bare)

    def trusts(self, host_header: str) -> bool:
        """Return whether a request with this ``Host`` header is meant for this page."""
        found = split_netloc(host_header)
        return found is not None and (found[0] in self.names or (self.any_address and _is_address(found[0])))


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def is_own_request(method: str, path: str, host: str, origin: str | None, site: str | None, dest: str | None) -> bool:
    """Return whether a request does not come from a page of another origin.

    Browsers send ``Origin`` with every request that could change something, and ``Sec-Fetch-Site`` with all requests.
    Other programs, which can send requests without a page, send neither. A link from another site to the front page is
    allowed.

    Args:
        method: The HTTP method, such as ``'GET'``.
        path: The path of the URL.
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
    """Read the password from the first line of a file, or else from the environment.

    The password itself is not an option, because all users of a machine can see command lines.

    Raises:
        OSError: If the file cannot be read.
        ValueError: If the file is not text, or the password is too short or too long.
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
            f'The password of {place} has {len(password)} characters: use {SHORTEST_PASSWORD} to {LONGEST_PASSWORD}.'
        )
    return password


def same_password(given: str, right: str) -> bool:
    """Compare two passwords in a time that does not reveal how much of the given one is correct."""
    return hmac.compare_digest(given.encode(errors='surrogatepass'), right.encode(errors='surrogatepass'))


def require_protection(host: str, password: str | None, no_password: bool) -> None:
    """Refuse to admit other machines without a decision about a password.

    Raises:
        ValueError: If the decision is missing or contradictory; the message names the command-line options.
    """
    if password is not None and no_password:
        raise ValueError('A password and --no-password exclude each other: remove one of them.')
    if password is None and not no_password and not is_loopback(host):
        raise ValueError(
            f'--host {host} admits other machines: set a password (--password-file FILE, or {PASSWORD_VARIABLE}), or '
            'pass --no-password to admit everyone who can reach this machine.'
        )


def reach(host: str, more: Collection[str], password: str | None) -> str:
    """Describe who can open a page that is served to other machines."""
    where = 'any of its addresses' if is_wildcard(host) else host
    names = ' or '.join((where, *more))
    who = f'Everyone who can reach this machine over the network can open the page, as {names}'
    if password is None:
        return f'{who}. It requires no password, and pictures are sent unencrypted.'
    return f'{who}, and use it with the password (any user name). Password and pictures are sent unencrypted.'
