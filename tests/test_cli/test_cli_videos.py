import json
import resource

import cv2
import numpy as np
import pytest

from alignzeg.apis import AlignZegInferencer
from alignzeg.apis.video import open_video, write_video
from alignzeg.cli import main
from alignzeg.cli.videos import overlay_frame
from mmseg_alignzeg.datasets.patterns import draw_scene
from mmseg_alignzeg.models import text_bank

WORDS = ['red grid', 'green checks', 'blue grid', 'yellow zigzags']


@pytest.fixture
def clip(tmp_path):
    """Five frames of a scene that moves; the sides are odd after enlargement."""
    scene = draw_scene(2, 4, 160)[0]
    writer = cv2.VideoWriter(str(tmp_path / 'clip.mp4'), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*'mp4v'), 8, (130, 110))
    for shift in range(5):
        writer.write(np.ascontiguousarray(scene[shift : shift + 110, shift : shift + 130, ::-1]))
    writer.release()
    return tmp_path / 'clip.mp4'


def test_each_frame_is_the_overlay_of_its_frame(clip, tmp_path, capsys, monkeypatch):
    encoded = []
    embed = text_bank.embed_classes
    monkeypatch.setattr(text_bank, 'embed_classes', lambda *args: encoded.append(args[2]) or embed(*args))
    monkeypatch.setattr(text_bank.TextBank, '_store', staticmethod(lambda *_: None))
    out = tmp_path / 'out'
    arguments = ['predict', str(clip), '--out', str(out), '--classes', ', '.join(WORDS), '--others', '--json']
    assert main([*arguments, '--batch-size', '2']) == 0
    (record,) = map(json.loads, capsys.readouterr().out.splitlines())
    assert record['image'] == str(clip) and record['frames'] == 5 and record['hints'] == []
    assert encoded.count(tuple(WORDS)) == 1
    inferencer = AlignZegInferencer(device='cpu')
    with open_video(clip) as video:
        assert video.rate == 8
        expected = [inferencer(frame, classes=WORDS, others=True)[0] for frame in video.frames]
    assert record['shares']['blue grid'] == pytest.approx(np.mean([e.shares()['blue grid'] for e in expected]))
    assert [file.name for file in out.glob('*.webm*')] == ['clip_overlay.webm']
    with open_video(out / 'clip_overlay.webm') as video:
        assert video.rate == 8
        for frame, prediction in zip(video.frames, expected, strict=True):
            drawn = overlay_frame(prediction, False)
            height, width = drawn.shape[:2]
            assert frame.shape[:2] == (height + height % 2, width + width % 2)
            difference = np.abs(frame[:height, :width].astype(int) - drawn)
            assert difference.mean() < 12 and np.median(difference) < 5  # the codec loses sharp edges of colours
    assert main(arguments) == 2 and 'clip_overlay.webm exists already' in capsys.readouterr().err
    assert main([*arguments, '--skip-done']) == 0 and capsys.readouterr().out == ''


def test_a_video_that_loses_frames_is_no_result(tmp_path):
    """OpenCV says nothing if a file cannot grow, as on a full disk."""
    frames = (np.random.default_rng(i).integers(0, 256, (120, 160, 3), np.uint8) for i in range(40))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        with pytest.raises(OSError, match=r'video\.webm has only \d+ of 40 frames'):
            write_video(tmp_path / 'video.webm', frames, 8)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not list(tmp_path.iterdir())


@pytest.mark.attack('predict: playlists and broken videos')
def test_what_is_no_video_is_one_line_and_leaves_no_file(clip, tmp_path, capsys):
    (tmp_path / 'list.mp4').write_text('#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n')
    (tmp_path / 'cut.mp4').write_bytes(clip.read_bytes()[:40])
    (tmp_path / 'empty.avi').touch()
    bad = [str(tmp_path / name) for name in ('list.mp4', 'cut.mp4', 'empty.avi')]
    assert main(['predict', *bad, str(clip), '--out', str(tmp_path / 'out'), '--classes', 'red grid']) == 1
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith('alignzeg: failed: ')]
    assert len(errors) == 3 and all(name in line for name, line in zip(bad, errors, strict=True))
    assert [file.name for file in (tmp_path / 'out').glob('*.webm*')] == ['clip_overlay.webm']
    assert main(['predict', str(clip), '--out', str(tmp_path / 'b'), '--format', 'png']) == 2
    assert 'clip.mp4 is a video, which is written as overlay only' in capsys.readouterr().err


def test_a_name_with_a_pattern_is_a_file(clip, tmp_path):
    strange = tmp_path / 'clip_%02d.mp4'
    clip.rename(strange)
    with open_video(strange) as video:
        assert len(list(video.frames)) == 5
    with pytest.raises(ValueError, match='is not a file'), open_video('http://127.0.0.1:9/clip.mp4'):
        pass
