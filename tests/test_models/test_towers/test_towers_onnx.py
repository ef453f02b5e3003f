"""Vision towers as ONNX graphs for images of any size."""

import onnxruntime
import pytest
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from tower_worlds import add_towers, saved_clip

from alignzeg.exchange.onnx import OLDEST, can_export
from mmseg_alignzeg.models import CLIPSource, build_tower


class Reading(nn.Module):
    """A tower with a bias that differs from cell to cell."""

    def __init__(self, tower):
        super().__init__()
        self.tower = tower
        self.weights = nn.Parameter(4 * torch.randn(1, tower.num_heads, 3, 1))

    def forward(self, images):
        stream = self.tower(images)
        cells = stream.grid[0] * stream.grid[1]
        return self.tower.read(stream, self.weights * torch.arange(cells) / cells)


@pytest.mark.skipif(not can_export(), reason=f'ONNX export needs torch {OLDEST}')
@pytest.mark.parametrize('name', ['eva02', 'probe', 'convnext'])  # `test_onnx.py` exports a model with a plain ViT
def test_onnxruntime_agrees_with_pytorch(tmp_path, name):
    add_towers(tmp_path)
    saved_clip(name, tmp_path / 'clip.safetensors')
    layers = {} if name == 'convnext' else dict(tap_layer=1, skip_bridge=True)  # an exporter takes its time for each
    source = CLIPSource(f'small_{name}', str(tmp_path / 'clip.safetensors'))
    reading = Reading(build_tower(source, scale_factor=0.5, **layers)).eval()
    side = 2 * reading.tower.patch_size
    axes = {2: side * torch.export.Dim('rows', min=2, max=99), 3: side * torch.export.Dim('columns', min=2, max=99)}
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        example = torch.randn(1, 3, 3 * side, 5 * side)
        graph = torch.export.export(reading, (example,), dynamic_shapes=(axes,), strict=True)
        program = torch.onnx.export(graph, input_names=['images'], opset_version=18, dynamo=True, verbose=False)
    program.save(tmp_path / 'tower.onnx')
    session = onnxruntime.InferenceSession(tmp_path / 'tower.onnx', providers=['CPUExecutionProvider'])
    for rows, columns in ((3, 5), (4, 2)):
        images = torch.randn(1, 3, rows * side, columns * side)
        found = torch.from_numpy(session.run(None, {'images': images.numpy()})[0])
        with torch.no_grad():
            torch.testing.assert_close(found, reading(images), rtol=1e-4, atol=1e-5)
        assert found.std(dim=1).max() > 0.01  # the bias acts: proposals differ
