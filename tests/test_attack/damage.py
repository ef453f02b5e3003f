"""Damaged files for fuzzing: valid ones with a few changes of the kinds that disks, networks and attackers make."""

import signal
from contextlib import contextmanager

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

SECONDS = 20  # for one input; the largest picture that Pillow allows takes about 5
NUMBERS = tuple(
    value.to_bytes(4, order) for value in (0, 1, 2**16, 2**31 - 1, 2**32 - 1) for order in ('big', 'little')
)


def fuzz(count):
    """Settings of a fuzz test: always the same ``count`` inputs, and none kept for the next run."""
    return settings(
        max_examples=count,
        derandomize=True,
        database=None,
        report_multiple_bugs=False,
        deadline=None,  # `within` bounds the time, without the noise of a busy machine
        suppress_health_check=list(HealthCheck),
    )


@st.composite
def damaged(draw, files, most=5):
    """Bytes of one of ``files`` after one to ``most`` changes."""
    data = bytearray(draw(st.sampled_from(files)))
    for _ in range(draw(st.integers(1, most))):
        if not data:
            break
        at = draw(st.integers(0, len(data) - 1))
        length = draw(st.integers(1, 64))
        match draw(st.sampled_from(('bit', 'byte', 'number', 'cut', 'drop', 'insert', 'repeat', 'zero'))):
            case 'bit':
                data[at] ^= 1 << draw(st.integers(0, 7))
            case 'byte':
                data[at] = draw(st.integers(0, 255))
            case 'number':
                data[at : at + 4] = draw(st.sampled_from(NUMBERS))
            case 'cut':
                del data[at:]
            case 'drop':
                del data[at : at + length]
            case 'insert':
                data[at:at] = draw(st.binary(min_size=1, max_size=64))
            case 'repeat':
                data[at:at] = data[at : at + length]
            case 'zero':
                data[at : at + length] = bytes(len(data[at : at + length]))
    return bytes(data)


class TooLong(BaseException):
    """Not an Exception, which the code under test may rightly catch."""


@contextmanager
def within(seconds=SECONDS):
    """End what takes longer."""

    def stop(*_):
        raise TooLong(f'took more than {seconds} s')

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
