"""Count, on a CPU, the operations that make the host wait on a GPU."""

import traceback
from pathlib import Path

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten
#: Their result, or its size, is needed on the host.
READING = {aten._local_scalar_dense, aten.nonzero, aten._unique2, aten.unique_dim, aten.masked_select, aten.equal}
INDEXING = {aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_}


class DeviceWaits(TorchDispatchMode):
    """Collects a line for each wait: the operation and the place in the project that called it.

    What is on the host already must be worked on with NumPy, or with operations that do not count. Copies to a GPU are
    not visible here.
    """

    def __init__(self):
        super().__init__()
        self.found = []
        self._calls = _Calls(self)

    def __enter__(self):
        self._calls.__enter__()
        return super().__enter__()

    def __exit__(self, *error):
        super().__exit__(*error)
        self._calls.__exit__(*error)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        packet = func.overloadpacket
        if packet in READING or (
            packet in INDEXING and any(index is not None and index.dtype == torch.bool for index in args[1])
        ):
            self.note(packet)
        return func(*args, **(kwargs or {}))

    def note(self, name):
        frames = [frame for frame in traceback.extract_stack() if 'mmseg_alignzeg/' in frame.filename]
        place = f'{Path(frames[-1].filename).name}:{frames[-1].lineno}' if frames else 'elsewhere'
        self.found.append(f'{name} in {place}')


class _Calls(TorchFunctionMode):
    """Copies that a CPU leaves out, so that they are never dispatched."""

    def __init__(self, waits):
        super().__init__()
        self.waits = waits

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func in (torch.Tensor.tolist, torch.Tensor.cpu):
            self.waits.note(func.__name__)
        return func(*args, **(kwargs or {}))
