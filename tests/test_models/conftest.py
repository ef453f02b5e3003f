"""Fixtures of the tests of models."""

import pytest
import torch


@pytest.fixture(scope='session')
def saved_bytes():
    """Return a function that counts the bytes which another keeps for the backward pass, inputs included."""

    def count(function, *inputs):
        kept = {}
        with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.setdefault(x.data_ptr(), x), lambda x: x):
            function(*inputs)
        return sum(tensor.nbytes for tensor in kept.values())

    return count
