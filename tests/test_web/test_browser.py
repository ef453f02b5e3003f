"""The page in a real browser: Chromium with its driver and selenium; see CONTRIBUTING.md."""

import io
import json
import shutil
import time

import pytest
from PIL import Image

from mmseg_alignzeg.datasets.patterns import draw_scene

pytestmark = pytest.mark.browser
webdriver = pytest.importorskip('selenium.webdriver', reason='needs selenium')
if not shutil.which('chromium') or not shutil.which('chromedriver'):
    pytest.skip('needs chromium and chromedriver', allow_module_level=True)

SECONDS = 60
SWITCHES = ['--headless', '--no-sandbox', '--disable-gpu', '--no-first-run', '--disable-background-networking',
            '--disable-component-update', '--disable-sync', '--window-size=1280,1180']  # fmt: skip


@pytest.fixture(scope='module')
def browser(tmp_path_factory):
    options = webdriver.ChromeOptions()
    for switch in SWITCHES:
        options.add_argument(switch)
    options.binary_location = shutil.which('chromium')
    folder = tmp_path_factory.mktemp('downloads')
    options.add_experimental_option('prefs', {'download.default_directory': str(folder)})
    driver = webdriver.Chrome(options, webdriver.ChromeService(shutil.which('chromedriver')))
    driver.folder = folder
    yield driver
    driver.quit()


class Tab:
    """A tab that shows the page with its first example segmented."""

    def __init__(self, driver, address):
        self.driver = driver
        driver.get(address)
        self.until('return document.querySelectorAll(".az-figures").length === 1')
        self.done()

    def js(self, script, *arguments):
        return self.driver.execute_script(script, *arguments)

    def until(self, script):
        end = time.monotonic() + SECONDS
        while not (found := self.js(script)):
            assert time.monotonic() < end, script
            time.sleep(0.02)
        return found

    def done(self):
        self.until('return document.querySelector(".az-results").getAttribute("aria-busy") === "false"')

    def find(self, selector):
        return self.driver.find_element('css selector', selector)

    def write(self, words):
        self.js('window.seen = document.querySelector(".az-answer")')
        field = self.find('textarea, input[placeholder]')
        field.clear()
        field.send_keys(words)
        self.until('return document.querySelector(".az-answer") !== window.seen')
        self.done()

    def rows(self):
        return self.js(
            'return [...document.querySelectorAll(".az-answer > div > table tbody tr")].map((row) => row.innerText)'
        )

    def status(self):
        return self.find('.az-status').text


@pytest.fixture
def tab(page, browser):
    return Tab(browser, page.address)


def download(tab, label):
    """Click a button, and return the new file."""
    before = set(tab.driver.folder.iterdir())
    tab.find(f'[aria-label^="Download {label}"]').click()
    end = time.monotonic() + SECONDS
    while not (new := {p for p in tab.driver.folder.iterdir() if p.suffix in ('.png', '.json')} - before):
        assert time.monotonic() < end
        time.sleep(0.05)
    return new.pop()


def test_words_and_downloads(tab):
    tab.write('green checks, blue zigzags, yellow grid')
    assert {row.split('\t')[0].split(' (')[0] for row in tab.rows()} >= {'green checks', 'blue zigzags', 'yellow grid'}
    assert 'into 3 words' in tab.status()
    facts = json.loads(download(tab, 'JSON').read_text())
    assert facts['question']['words'] == 'green checks, blue zigzags, yellow grid'
    labels = Image.open(download(tab, 'label map'))
    counts = labels.histogram()
    shown = {word: share for word, share, *_ in facts['shares']}
    for i, word in enumerate(facts['classes']):
        assert abs(100 * counts[i] / (128 * 128) - shown[word]) < 0.06
    assert Image.open(download(tab, 'overlay')).width >= 300


def test_a_late_answer_of_an_older_question_is_dropped(tab, inferencer, monkeypatch):
    real = type(inferencer).answer
    asked = []

    def slow(self, look, *, gamma, **rest):
        asked.append(gamma)
        time.sleep(1 if gamma == 0.5 else 0)
        return real(self, look, gamma=gamma, **rest)

    monkeypatch.setattr(type(inferencer), 'answer', slow)
    tab.js('''
        window.shown = [];
        new MutationObserver(() => window.shown.push(document.querySelector('.az-results').innerText))
            .observe(document.querySelector('.az-results'), {childList: true});
        window.move = (value) => {
            const slider = document.querySelector('input[type=range]');
            slider.value = value;
            slider.dispatchEvent(new Event('input', {bubbles: true}));
        };
        window.move(0.5);
    ''')  # fmt: skip
    tab.until('return document.querySelector(".az-results").getAttribute("aria-busy") === "true"')
    while 0.5 not in asked:
        time.sleep(0.02)
    tab.js('window.move(0.9)')
    tab.done()
    assert asked[-1] == 0.9 and tab.js('return window.shown.length') == 1


def test_a_look_that_is_no_longer_kept_is_taken_again(tab, monkeypatch):
    monkeypatch.setattr('alignzeg.web.looks.Looks.find', lambda *a: None)
    tab.write('green checks, blue zigzags')
    assert 'into 2 words' in tab.status()


def test_two_questions_side_by_side(tab):
    tab.find('[data-do=keep]').click()
    tab.write('green checks, blue zigzags, yellow grid')
    assert tab.js('return document.querySelectorAll(".az-figures figure").length') == 3
    captions = [element.text for element in tab.driver.find_elements('css selector', 'figcaption')]
    assert captions[1].startswith('A: the classes of the model') and captions[2].startswith('B: green checks')
    assert all(row.count('%') + row.count('–') == 2 for row in tab.rows())
    tab.find('[data-do=drop]').click()
    assert tab.js('return document.querySelectorAll(".az-figures figure").length') == 2


def test_several_pictures(tab, tmp_path):
    names = [f'photo_{i}.png' for i in range(3)]
    for i, name in enumerate(names):
        Image.fromarray(draw_scene(2, i)[0]).save(tmp_path / name)
    (tmp_path / 'notes.png').write_text('no picture')
    tab.js('window.said = []; new MutationObserver(([one]) => window.said.push(one.target.textContent))'
           '.observe(document.querySelector(".az-status"), {childList: true})')  # fmt: skip
    paths = [str(tmp_path / name) for name in ('notes.png', *names)]
    tab.find('#az-files').send_keys('\n'.join(paths))
    tab.until('return document.querySelectorAll(".az-results section").length === 4')
    tab.done()
    assert tab.js('return window.said').count('Picture 3 of 4 …') == 1 and tab.status() == '4 pictures done.'
    assert [h.text for h in tab.driver.find_elements('css selector', '.az-results h2')] == ['notes.png', *names]
    assert 'not a picture that Pillow can read' in tab.find('.az-results .error').text
    large = io.BytesIO(bytes(2**20 + 1))
    (tmp_path / 'large.png').write_bytes(large.getvalue())
    tab.find('#az-files').send_keys(str(tmp_path / 'large.png'))
    tab.until('return document.querySelector(".az-status").textContent.includes("large.png is larger")')


@pytest.mark.attack('page: script in words and names')
def test_what_visitors_write_stays_text(tab, tmp_path, record_property):
    payloads = ['<img src=x onerror=window.hit=1>', '${window.hit=1}', '{{window.hit}}', '<b>bold</b>']
    name = tmp_path / '<img src=x onerror=window.hit=1>.png'
    Image.fromarray(draw_scene(2, 1)[0]).save(name)
    tab.find('#az-files').send_keys(str(name))
    for payload in payloads:
        tab.write(f'{payload}, sky')
        assert payload in tab.find('.az-results').text
    tab.write('<b>a</b>, <b>a</b>')
    assert tab.status().startswith('Not done: “Words” has')
    assert not tab.js('return window.hit || document.querySelector(".az-results b, .az-status b")')
    record_property('tries', len(payloads) + 2)


def test_examples_by_keyboard(tab):
    names = tab.js('return [...document.querySelectorAll("[data-example] img")].map((image) => image.alt)')
    assert len(names) == 4 and names[0] == 'Example 1: green checks, blue zigzags, yellow grid'
    tab.js('document.querySelector("[data-example=\'2\']").focus()')
    tab.driver.switch_to.active_element.send_keys(' ')
    tab.until('return document.querySelector("figcaption")?.textContent === "scene_2.png"')
    assert tab.find('[data-example="2"]').get_attribute('aria-pressed') == 'true'


def test_a_change_is_answered_within_a_fifth_of_a_second(tab, record_property):
    seconds = tab.driver.execute_async_script('''
        const done = arguments[0], times = [], results = document.querySelector('.az-results');
        const slider = document.querySelector('input[type=range]');
        let begin = 0, count = 0;
        const move = () => {
            begin = performance.now();
            slider.value = 0.1 + 0.05 * (count++);
            slider.dispatchEvent(new Event('input', {bubbles: true}));
        };
        new MutationObserver(() => {
            times.push((performance.now() - begin) / 1000);
            if (times.length === 10) done(times);
            else setTimeout(move, 200);
        }).observe(results, {childList: true});
        move();
    ''')  # fmt: skip
    print('seconds from a move of the slider to its result:', sorted(round(one, 3) for one in seconds))
    assert sorted(seconds)[len(seconds) // 2] < 0.2


def test_fits_a_phone(tab):
    tab.driver.set_window_size(500, 900)
    try:
        assert tab.js('return document.documentElement.scrollWidth <= innerWidth')
    finally:
        tab.driver.set_window_size(1280, 1180)
