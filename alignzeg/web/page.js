// The browser keeps the pictures and asks about one at a time. Every change makes a new question with a new number;
// answers to older ones are dropped. gradio gives `element`, `trigger`, `props` and `watch`.
const MOST_PICTURES = 32;
let pictures = []; // {name, url, look, answer, kept}: `look` names what the server saw, `kept` is the answer compared
let number = 0;
let at = 0; // the picture that is asked about
let timer = 0;
let scrolls = false;
let unfolded = false;
const part = (selector) => element.querySelector(selector);

function make(tag, attributes = {}, ...children) {
    const node = document.createElement(tag);
    Object.entries(attributes).forEach(([name, value]) => node.setAttribute(name, value));
    node.append(...children); // strings become text, never HTML
    return node;
}

function say(text, kind = '') {
    part('.az-status').textContent = text;
    part('.az-status').className = `az-status ${kind}`;
}

function ask(milliseconds = 0, scroll = false) {
    number += 1;
    at = 0;
    scrolls = scroll;
    clearTimeout(timer);
    if (!pictures.length) return say('There is no picture yet: choose one, or click an example.', scroll ? 'error' : '');
    wait(true);
    timer = setTimeout(next, milliseconds);
}

function next() {
    if (pictures.length > 1) say(`Picture ${at + 1} of ${pictures.length} …`);
    trigger('submit');
}

function wait(busy) {
    part('.az-results').setAttribute('aria-busy', busy);
    part('progress').hidden = !busy || pictures.length < 2;
    part('progress').max = pictures.length;
    part('progress').value = at;
}

// What is sent: the picture, or only the name of what the server saw in it; then the fields of the question.
function sent(values) {
    const {name, url, look} = pictures[at] ?? {};
    const picture = url && !look ? {path: null, url, orig_name: name} : null;
    return [picture, ...values.slice(1, -2), look ?? '', number];
}

function refused() {
    wait(false);
    pictures.forEach((picture) => { picture.answer = null; });
    part('.az-results').replaceChildren();
    say('Not done: the page refused this or is busy. Press Segment to try again.', 'error');
}

watch('value', () => {
    const answer = props.value;
    const picture = pictures[at];
    if (!answer || !picture || answer.number !== number) return; // of an older question
    picture.look = answer.look;
    if (answer.gone) return next();
    picture.answer = answer;
    show(at);
    at += 1;
    wait(at < pictures.length);
    if (at < pictures.length) return next();
    part('[data-do=keep]').disabled = pictures.some((one) => !one.answer.overlay);
    const text = pictures.length > 1 ? `${pictures.length} pictures done.` : answer.error ?? answer.status[0];
    say(text, pictures.length === 1 && answer.error ? 'error' : '');
    const results = element.getBoundingClientRect();
    if (scrolls && results.top > innerHeight / 2) element.scrollIntoView({behavior: 'smooth'}); // below, on a phone
});

function show(index) {
    const {name, url, answer, kept} = pictures[index];
    const body = make('div', {class: 'az-answer'});
    const section = make('section', {'aria-label': name});
    if (pictures.length > 1) section.append(make('h2', {}, name));
    section.append(body);
    if (answer.error) {
        if (pictures.length > 1) body.append(make('p', {class: 'error'}, answer.error));
    } else {
        const original = make('img', {src: url, alt: `The picture ${name}`});
        original.onerror = () => original.replaceWith('Browsers do not show this format.');
        const caption = make('figcaption', {}, pictures.length > 1 ? 'Picture' : name);
        const figures = make('div', {class: 'az-figures'}, make('figure', {}, original, caption));
        if (kept) figures.append(figure(kept, `A: ${described(kept.question)}`));
        figures.append(figure(answer, kept ? `B: ${described(answer.question)}` : 'Result'));
        body.append(...answer.hints.map((hint) => make('p', {class: 'hint'}, hint)), figures, legend(answer, kept));
        body.append(...answer.status.slice(pictures.length > 1 ? 0 : 1).map((note) => make('p', {}, note)));
        body.append(downloads(name, answer), ...proposals(answer));
    }
    const old = part('.az-results').children[index];
    if (old) old.replaceWith(section);
    else part('.az-results').append(section);
}

function described({words, unseen, others, pbc, gamma}) {
    const rest = [others && 'others', pbc ? `PBC, γ ${gamma}` : 'no PBC', unseen && `unseen: ${unseen}`];
    return [words || 'the classes of the model', ...rest.filter(Boolean)].join('; ');
}

// The overlay file has its legend below; the page has its own, so only the upper part is shown.
function figure({overlay, width, height, shares}, caption) {
    const text = shares.filter((row) => row[1] > 0).slice(0, 5).map(([word, share]) => `${word} ${share} %`).join(', ');
    const image = make('img', {src: overlay, alt: `Overlay: ${text}`});
    const crop = make('div', {class: 'az-crop', style: `aspect-ratio: ${width} / ${height}`}, image);
    return make('figure', {}, crop, make('figcaption', {}, caption));
}

function table(caption, headers, rows) {
    const cell = (tag) => (content, i) => make(tag, {...(i && {class: 'number'}), ...(tag === 'th' && {scope: 'col'})}, content);
    const head = make('thead', {}, make('tr', {}, ...headers.map(cell('th'))));
    const body = make('tbody', {}, ...rows.map((row) => make('tr', {}, ...row.map(cell('td')))));
    return make('table', {}, make('caption', {}, caption), head, body);
}

function legend(answer, kept) {
    const before = new Map((kept?.shares ?? []).map((row) => [row[0], row]));
    const rows = answer.shares.map((row) => [row, before.get(row[0])]).concat(
        [...before.values()].filter((row) => !answer.classes.includes(row[0])).map((row) => [null, row]));
    const percent = (row) => (row ? `${row[1]} %` : '–');
    const swatch = (row) => make('span', {class: `az-swatch ${row[2]}`, style: `background: ${row[3]}`});
    const found = rows.filter(([now, old]) => now?.[1] > 0 || old?.[1] > 0);
    const empty = rows.filter((row) => !found.includes(row)).map(([now, old]) => (now ?? old)[0]);
    const lines = found.map(([now, old]) => {
        const [word, , unseen] = now ?? old;
        const name = make('span', {}, ...(kept && old && now && old[3] !== now[3] ? [swatch(old)] : []), swatch(now ?? old),
            unseen ? `${word} (unseen)` : word);
        return [name, ...(kept ? [percent(old)] : []), percent(now)];
    });
    const shares = table('Shares of the picture', ['Word', ...(kept ? ['A', 'B'] : ['Share'])], lines);
    return make('div', {}, shares, ...(empty.length ? [make('p', {}, `Not found: ${empty.join(', ')}`)] : []));
}

function proposals({proposals: rows}) {
    if (!rows.length) return [];
    const cells = rows.map(([word, score, unseen, share]) => [word, score, unseen ?? '–', `${share} %`]);
    const caption = `The best ${rows.length}; they may overlap`;
    const details = make('details', unfolded ? {open: ''} : {}, make('summary', {}, 'Proposals'),
        table(caption, ['Word', 'Score', 'Unseen score', 'Share'], cells));
    details.addEventListener('toggle', () => { unfolded = details.open; });
    return [details];
}

function downloads(name, answer) {
    const stem = name.replace(/\.\w+$/, '');
    const {overlay, labels, look, number: _, status, ...rest} = answer;
    const text = JSON.stringify({picture: name, ...rest, notes: status}, null, 1);
    const files = [
        ['Download overlay', `${stem}_overlay.png`, overlay], ['Download label map', `${stem}_labels.png`, labels],
        ['Download JSON', `${stem}.json`, `data:application/json,${encodeURIComponent(text)}`],
    ];
    return make('div', {class: 'az-files'}, ...files.filter(([, , url]) => url).map(([label, file, url]) => {
        const button = make('button', {type: 'button', 'aria-label': `${label} of ${name}`}, label);
        button.addEventListener('click', async () => { // browsers refuse links to long data URLs
            const link = make('a', {download: file, href: URL.createObjectURL(await (await fetch(url)).blob())});
            link.click();
            setTimeout(() => URL.revokeObjectURL(link.href), 60000);
        });
        return button;
    }));
}

element.addEventListener('click', ({target}) => {
    const action = target.closest('[data-do]')?.dataset.do;
    if (!action) return;
    pictures.forEach((picture, i) => {
        picture.kept = action === 'keep' ? picture.answer : null;
        if (picture.answer) show(i);
    });
    part('[data-do=drop]').hidden = action !== 'keep';
    if (action === 'drop') part('[data-do=keep]').focus();
    else say('A is kept. Change the question; the new result is shown as B.');
});

function choose(chosen, example = null) {
    pictures = chosen;
    part('.az-results').replaceChildren();
    part('[data-do=drop]').hidden = part('[data-do=keep]').disabled = true;
    document.querySelectorAll('[data-example]').forEach((one) => one.setAttribute('aria-pressed', one === example));
    ask();
}

async function read(files) {
    const large = files.find((file) => file.size > props.most_bytes);
    if (!files.length) return;
    if (large || files.length > MOST_PICTURES) {
        const most = `${props.most_bytes.toLocaleString('en')} bytes`;
        return say(large ? `Not done: ${large.name} is larger than ${most}.`
            : `Not done: ${files.length} pictures are too many: choose at most ${MOST_PICTURES}.`, 'error');
    }
    const url = (file) => new Promise((done) => {
        const reader = new FileReader();
        reader.onloadend = () => done(reader.result ?? '');
        reader.readAsDataURL(file);
    });
    choose(await Promise.all(files.map(async (file) => ({name: file.name, url: await url(file), look: ''}))));
}

function pick(example) {
    choose([{name: `scene_${example.dataset.example}.png`, url: example.querySelector('img').src, look: ''}], example);
}

document.addEventListener('change', ({target}) => { if (target.id === 'az-files') read([...target.files]); });
document.addEventListener('paste', ({clipboardData: {files}}) => read([...files]));
document.addEventListener('dragover', (event) => event.preventDefault());
document.addEventListener('drop', (event) => {
    event.preventDefault(); // the browser would leave the page
    read([...event.dataTransfer.files]);
});
document.addEventListener('click', ({target}) => {
    const example = target.closest('[data-example]');
    if (example) pick(example);
});
window.alignzeg = {ask, sent, refused};
setTimeout(() => {
    const example = document.querySelector('[data-example]');
    if (example && !pictures.length) pick(example);
}, 0);
