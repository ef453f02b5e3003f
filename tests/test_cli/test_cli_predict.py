import json
import re

import numpy as np
import pytest
from PIL import Image

from alignzeg.apis import AlignZegInferencer
from alignzeg.cli import main
from alignzeg.cli.result_files import output_names
from mmseg_alignzeg.datasets.patterns import CLASSES, draw_scene
from mmseg_alignzeg.visualization.overlay import overlay_picture
from mmseg_alignzeg.vocabulary import Vocabulary

WORDS = ['red stripes', 'blue checks', 'yellow grid']


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / 'photos'
    folder.mkdir()
    for index in range(2):
        Image.fromarray(draw_scene(2, index)[0]).save(folder / f's{index}.png')
    return folder


def read_array(path):
    with Image.open(path) as image:
        return np.asarray(image)


def test_results_are_those_of_the_inferencer(photos, tmp_path, capsys):
    out = tmp_path / 'new' / 'out'
    arguments = ['predict', str(photos), '--classes', ', '.join(WORDS), '--no-pbc', '--out', str(out)]
    assert main([*arguments, '--format', 'png,overlay,proposals', '--json', '--batch-size', '2']) == 0
    captured = capsys.readouterr()
    records = [json.loads(line) for line in captured.out.splitlines()]
    expected = AlignZegInferencer()(str(photos), WORDS, pbc=False, batch_size=2, proposals=True)
    assert [record['image'] for record in records] == [str(photos / f's{i}.png') for i in range(2)]
    for record, prediction in zip(records, expected, strict=True):
        files = record['files']
        assert np.array_equal(read_array(files['png']), prediction.labels)
        vocabulary = Vocabulary(prediction.classes, prediction.unseen)
        picture = overlay_picture(prediction.image, prediction.labels, vocabulary)
        assert np.array_equal(read_array(files['overlay']), picture)
        counts = {name: float((prediction.labels == i).mean()) for i, name in enumerate(WORDS)}
        assert record['shares'] == {name: share for name, share in counts.items() if share > 0}
        assert record['unseen'] == [name for name in ['blue checks'] if counts[name] > 0] and record['notes'] == []
        arrays = np.load(files['proposals'], allow_pickle=False)
        assert np.array_equal(arrays['masks'], [p.mask for p in prediction.proposals])
        assert [WORDS[label] for label in arrays['labels']] == [p.label for p in prediction.proposals]
        assert arrays['scores'] == pytest.approx([p.score for p in prediction.proposals])
        assert arrays['unseen_scores'] == pytest.approx([p.unseen_score for p in prediction.proposals])
    assert json.loads((out / 'classes.json').read_text()) == {'classes': WORDS, 'unseen': ['blue checks']}
    assert sorted(file.name for file in out.iterdir()) == sorted(
        [
            *('classes.json', 'results.jsonl', 'settings.json'),
            *(f's{i}_{kind}' for i in range(2) for kind in ('overlay.png', 'labels.png', 'proposals.npz')),
        ]
    )
    assert [json.loads(line) for line in (out / 'results.jsonl').read_text().splitlines()] == records
    assert '2 done, 0 failed' in captured.err


def test_every_format_is_what_the_prediction_saves(photos, tmp_path, capsys):
    out, image = tmp_path / 'out', str(photos / 's0.png')
    kinds = ['overlay', 'png', 'coco', 'labelme', 'csv', 'proposals']
    arguments = ['predict', image, '--classes', ', '.join(WORDS), '--others', '--side-by-side', '--out', str(out)]
    assert main([*arguments, '--format', ','.join(kinds), '--json']) == 0
    files = json.loads(capsys.readouterr().out)['files']
    assert list(files) == kinds
    prediction = AlignZegInferencer()(image, WORDS, others=True)[0]
    assert np.array_equal(read_array(files['overlay']), np.asarray(prediction.overlay(side_by_side=True)))
    with open(files['coco'], encoding='utf-8') as file:
        assert json.load(file) == prediction.to_coco()
    with open(files['labelme'], encoding='utf-8') as file:
        assert json.load(file) == {**prediction.to_polygons(), 'imagePath': '../photos/s0.png'}
    with open(files['csv'], encoding='utf-8') as file:
        assert len(file.readlines()) == 1 + len(np.unique(prediction.labels))


def test_hints_are_said_once_per_kind(photos, tmp_path, capsys):
    arguments = ['predict', str(photos), '--json', '--out']
    assert main([*arguments, str(tmp_path / 'a'), '--classes', 'road, car, red dots']) == 0
    captured = capsys.readouterr()
    lines = [line for line in captured.err.splitlines() if 'hint:' in line]
    assert lines[0] == 'alignzeg: hint: 2 of 3 words are far from what this model was trained on: road, car'
    assert len(lines) == 2 and 'no proposal is sure in 2 of 2 pictures' in lines[1] and 's0.png' in lines[1]
    assert all(len(json.loads(line)['hints']) == 2 for line in captured.out.splitlines())
    assert main([*arguments, str(tmp_path / 'b')]) == 0
    assert 'hint:' not in capsys.readouterr().err


def test_options_reach_the_inferencer(photos, tmp_path, monkeypatch):
    asked = []
    real = AlignZegInferencer.stream

    def stream(self, inputs, **settings):
        asked.append((inputs, settings, self.dtype, self.device.type))
        return real(self, inputs, **settings)

    monkeypatch.setattr(AlignZegInferencer, 'stream', stream)
    words = tmp_path / 'words.txt'
    words.write_text('\ufeffred stripes\nblue dots\n', encoding='utf-8')
    options = ['--unseen', 'blue dots', '--others', '--gamma', '0.4', '--templates', 'single', '--dtype', 'bf16']
    options += ['--device', 'cpu']
    image = str(photos / 's0.png')
    out = ['--out', str(tmp_path / 'out')]
    assert main(['predict', image, image, '--classes-file', str(words), *options, *out]) == 0
    assert main(['predict', image, '--overwrite', *out]) == 0
    settings = dict(classes=['red stripes', 'blue dots'], unseen=['blue dots'], others=True, gamma=0.4, pbc=True)
    default = dict(classes=None, unseen=None, others=False, gamma=None, pbc=True, templates=None)
    more = dict(batch_size=1, proposals=False, windows=None)
    assert asked == [
        ([image], {**settings, 'templates': 'single', **more}, 'bf16', 'cpu'),  # a picture given twice is done once
        ([image], {**default, **more}, 'fp32', asked[1][3]),
    ]


def test_a_bad_picture_costs_one_line_and_the_others_are_done(photos, tmp_path, capsys):
    image = Image.open(photos / 's0.png')
    (photos / 'cut.png').write_bytes((photos / 's0.png').read_bytes()[:5000])
    (photos / 'text.jpg').write_text('no picture')
    (photos / 'empty.jpg').touch()
    (photos / 'notes.txt').write_text('left alone')
    image.crop((0, 0, 1, 1)).save(photos / 'one.png')
    image.convert('CMYK').save(photos / 'cmyk.jpg')
    Image.fromarray(np.asarray(image.convert('L')).astype(np.uint16) * 257).save(photos / 'deep.png')
    turned = image.crop((0, 0, 128, 64)).copy()
    exif = turned.getexif()
    exif[274] = 6
    turned.save(photos / 'turned.jpg', exif=exif)
    bare = tmp_path / 'bare'
    bare.mkdir()
    arguments = ['predict', str(photos), str(bare), str(tmp_path / 'nothing.jpg'), '--classes', 'red stripes, 😀, sky']
    assert main([*arguments, '--out', str(tmp_path / 'out'), '--json', '--format', 'overlay,png']) == 1
    captured = capsys.readouterr()
    records = {json.loads(line)['image']: json.loads(line) for line in captured.out.splitlines()}
    errors = {name: record['error'] for name, record in records.items() if 'error' in record}
    assert set(errors) == {
        *(str(photos / name) for name in ('cut.png', 'text.jpg', 'empty.jpg')), str(bare), str(tmp_path / 'nothing.jpg')
    }  # fmt: skip
    failures = [line for line in captured.err.splitlines() if line.startswith('alignzeg: failed: ')]
    assert len(failures) == 5 and all(any(name in line for line in failures) for name in errors)
    assert '6 done, 5 failed' in captured.err
    sizes = {name: read_array(tmp_path / f'out/{name}_labels.png').shape for name in ('one', 'cmyk', 'deep', 'turned')}
    assert sizes == {'one': (1, 1), 'cmyk': (128, 128), 'deep': (128, 128), 'turned': (128, 64)}
    assert json.loads((tmp_path / 'out/classes.json').read_text(encoding='utf-8'))['classes'][1] == '😀'


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (['--classes', 'red,,blue'], r'--classes: word 2 of 3 is empty'),
        (['--classes', ''], r'--classes: word 1 of 1 is empty'),
        (['--classes', 'red, Red'], r"'red' occurs 2 times"),
        (['--classes', 'red', '--unseen', 'cat'], r"--unseen names 'cat', which is not one"),
        (['--templates', 'no such'], r"Unknown template set 'no such'"),
        (['--device', 'abacus'], r"device='abacus'"),
        (['--classes-file', 'nowhere.txt'], r'nowhere.txt'),
        (['--classes-file', '{tmp}/blank.txt'], r'blank.txt: line 2 of 3 is empty: remove it'),
        (['--classes-file', '{tmp}/none.txt'], r'none.txt is empty: write one word per line'),
        (['--classes-file', '{tmp}/latin.txt'], r'latin.txt is not valid UTF-8'),
        (['--checkpoint', 'a.pth'], r'the checkpoint a.pth needs the config it was trained with'),
        (['--model', 'config.py'], r'the config config.py needs its weights'),
        (['--model', 'no_folder'], r"'no_folder' does not exist"),
        (['--out', '{tmp}/blank.txt'], r'blank.txt is a file'),
    ],
)
def test_wrong_arguments_are_one_line_and_write_nothing(photos, tmp_path, capsys, options, message):
    (tmp_path / 'blank.txt').write_text('cat\n\ndog\n')
    (tmp_path / 'none.txt').touch()
    (tmp_path / 'latin.txt').write_bytes('Bär\n'.encode('latin-1'))
    options = [option.format(tmp=tmp_path) for option in options]
    assert main(['predict', str(photos), '--out', str(tmp_path / 'out'), *options]) == 2
    captured = capsys.readouterr()
    (line,) = [line for line in captured.err.splitlines() if line.startswith('alignzeg: ')]
    assert line.startswith('alignzeg: error: ')
    assert re.search(message, line) and 'Traceback' not in captured.err and captured.out == ''
    assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (['--gamma', '0'], "expected a number above 0 and up to 1, got '0'"),
        (['--gamma', 'x'], "got 'x'"),
        (['--batch-size', '0'], "at least 1, got '0'"),
        (['--format', 'overlay,film'], "'film' is not one of overlay, png, coco, labelme, csv, proposals"),
        (['--classes', 'a', '--classes-file', 'b'], 'not allowed with'),
        (['--overwrite', '--skip-done'], 'not allowed with'),
    ],
)
def test_arguments_are_checked_before_anything_is_loaded(capsys, options, message):
    with pytest.raises(SystemExit) as stopped:
        main(['predict', 'a.png', '--out', 'out', *options])
    assert stopped.value.code == 2 and message in capsys.readouterr().err


def test_a_folder_without_pictures_alone_is_an_error(tmp_path, capsys):
    assert main(['predict', str(tmp_path), '--out', str(tmp_path / 'out')]) == 2
    assert 'contains no image' in capsys.readouterr().err


def test_results_are_replaced_only_if_asked(photos, tmp_path, capsys):
    arguments = ['predict', str(photos), '--out', str(tmp_path / 'out'), '--classes', 'red stripes, sky']
    overlay = tmp_path / 'out/s0_overlay.png'
    overlay.parent.mkdir()
    overlay.write_text('precious')
    assert main(arguments) == 2
    assert 's0_overlay.png exists already: pass --overwrite, --skip-done' in capsys.readouterr().err
    assert main([*arguments, '--skip-done']) == 2
    assert 'no settings.json says how it was made' in capsys.readouterr().err
    assert overlay.read_text() == 'precious'
    assert main([*arguments, '--overwrite', '--format', 'overlay,png']) == 0
    assert read_array(overlay).ndim == 3
    capsys.readouterr()
    (tmp_path / 'out/s0_overlay.png').unlink()
    other = [*arguments[:-1], 'sea', '--skip-done']
    assert (
        main(other) == 2 and 'results of other settings: classes was ["red stripes", "sky"]' in capsys.readouterr().err
    )
    assert main([*arguments, '--skip-done']) == 0 and '1 done, 0 failed, 1 done before' in capsys.readouterr().err


def test_after_ctrl_c_what_is_done_is_kept_and_whole(photos, tmp_path, capsys, monkeypatch):
    real = AlignZegInferencer.stream

    def stream(self, inputs, **settings):
        yield next(real(self, inputs, **settings))
        raise KeyboardInterrupt

    monkeypatch.setattr(AlignZegInferencer, 'stream', stream)
    assert main(['predict', str(photos), '--out', str(tmp_path / 'out')]) == 130
    assert 'stopped: 1 of 2 pictures are done; pass --skip-done' in capsys.readouterr().err
    assert [file.name for file in (tmp_path / 'out').glob('*.png*')] == ['s0_overlay.png']
    assert read_array(tmp_path / 'out/s0_overlay.png').ndim == 3

    monkeypatch.undo()
    monkeypatch.setattr('alignzeg.apis.prediction.overlay_picture', lambda *args: exit_by_ctrl_c())
    assert main(['predict', str(photos), '--out', str(tmp_path / 'out'), '--skip-done']) == 130
    assert [file.name for file in (tmp_path / 'out').glob('*.png*')] == ['s0_overlay.png']  # no half of s1


def exit_by_ctrl_c():
    raise KeyboardInterrupt


def test_a_line_for_people_names_classes_by_share(photos, tmp_path, capsys):
    assert main(['predict', str(photos / 's0.png'), '--out', str(tmp_path / 'out')]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    shares = AlignZegInferencer()(str(photos / 's0.png'))[0].shares()
    best = max(CLASSES, key=lambda name: shares[name])
    mark = ' (unseen)' if best == 'blue checks' else ''
    assert line.startswith(f'{photos / "s0.png"}: {best}{mark} {shares[best]:.1%}'.replace('%', ' %'))
    assert line.endswith(f'-> {tmp_path / "out" / "s0_overlay.png"}')


def test_notes_on_scaled_pictures_are_said_once(tmp_path, capsys):
    for index in range(2):
        Image.new('RGB', (700, 700), (200, 50, 45)).save(tmp_path / f'{index}.png')
    assert main(['predict', str(tmp_path), '--out', str(tmp_path / 'out'), '--classes', 'red', '--json']) == 0
    captured = capsys.readouterr()
    assert captured.err.count('scaled from 700 × 700 to 128 × 128') == 1
    assert '2 pictures have such notes' in captured.err
    assert all('scaled from' in json.loads(line)['notes'][0] for line in captured.out.splitlines())


@pytest.mark.parametrize(
    ('paths', 'names'),
    [
        (['/p/a/x.jpg', '/p/b/y.jpg'], ['x', 'y']),
        (['/p/a/x.jpg', '/p/b/x.jpg', '/p/b/y.jpg'], ['a_x', 'b_x', 'y']),
        (['/p/a/x.jpg', '/p/a/x.png', '/p/a/X.bmp'], ['a_x', 'a_x_2', 'a_X_3']),
        (['/p/a/x.jpg', '/q/a/x.jpg', '/p/a_x.jpg'], ['a_x', 'a_x_2', 'a_x_3']),
    ],
)
def test_no_picture_takes_the_place_of_another(paths, names):
    assert output_names(paths) == names
