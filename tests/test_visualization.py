import matplotlib.image
import numpy as np

from mmseg_alignzeg.visualization import contact_sheet
from mmseg_alignzeg.vocabulary import Vocabulary


def test_contact_sheet_draws_labels_in_their_colours(tmp_path):
    image = np.full((32, 32, 3), 128, dtype=np.uint8)
    labels = np.zeros((32, 32), dtype=np.int64)
    labels[8:24, 8:24] = 1
    labels[:4] = 255
    path = tmp_path / 'new' / 'sheet.png'
    palette = [[200, 10, 10], [10, 10, 200]]
    contact_sheet(('image', 'labels'), [[image, labels]], Vocabulary(('a', 'b'), ('b',)), palette, path, 'title')
    sheet = (matplotlib.image.imread(path)[..., :3] * 255).round().astype(int)
    colours = {tuple(colour) for colour in sheet.reshape(-1, 3)}
    assert {(200, 10, 10), (10, 10, 200), (128, 128, 128), (235, 235, 235), (0, 0, 0)} <= colours
