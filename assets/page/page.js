// The chat page: sends the conversation to /v1/chat/completions, streams the answer, and lays over each picture the cells that were pruned and
// those that the answer attended. No build step, no other resource.

const at = (id) => document.getElementById(id);
const state = { model: '', turns: [], pending: [], busy: undefined, shown: undefined };
const FRAMES = 8;
const MOST_SIDE = 2048;
/** Plasma of matplotlib, at 0.45 to 1: the share of layers that attend a cell. */
const HEAT = ['#b12a90', '#cc4778', '#e16462', '#f2844b', '#fca636', '#fcce25', '#f0f921'];

async function start() {
  for (const name of ['prefill', 'decode'])
    at(name).addEventListener('input', () => {
      at(`${name}-value`).textContent = `${at(name).value} %`;
    });
  at('files').addEventListener('change', (event) => addFiles(event.target.files));
  const box = at('pictures');
  for (const type of ['dragover', 'drop', 'dragleave'])
    box.addEventListener(type, (event) => {
      event.preventDefault();
      box.classList.toggle('over', type === 'dragover');
      if (type === 'drop') addFiles(event.dataTransfer.files);
    });
  document.addEventListener('paste', (event) => addFiles(event.clipboardData.files));
  for (const view of document.getElementsByName('view')) view.addEventListener('change', draw);
  at('ask').addEventListener('submit', (event) => {
    event.preventDefault();
    ask();
  });
  at('question').addEventListener('keydown', (event) => {
    if (event.key !== 'Enter' || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    at('ask').requestSubmit();
  });
  at('stop').addEventListener('click', () => state.busy?.abort());
  at('reset').addEventListener('click', () => location.reload());
  at('key').value = sessionStorage.getItem('key') ?? '';
  at('key').addEventListener('change', () => {
    sessionStorage.setItem('key', at('key').value);
    loadModel();
  });
  await loadModel();
}

function headers() {
  const key = at('key').value;
  return { 'content-type': 'application/json', ...(key && { authorization: `Bearer ${key}` }) };
}

async function loadModel() {
  const response = await fetch('v1/models', { headers: headers() });
  if (response.status === 401) at('key-row').hidden = false;
  if (!response.ok) {
    at('model').textContent = response.status === 401 ? 'This server asks for an API key.' : `Error ${response.status}`;
    return;
  }
  const [model] = (await response.json()).data;
  state.model = model.id;
  at('model').textContent = model.id;
  const { prefillSparsity = 0.6, decodeSparsity = 0.75 } = model.sparsevila.sparsity;
  for (const [name, share] of [
    ['prefill', prefillSparsity],
    ['decode', decodeSparsity],
  ]) {
    at(name).value = String(Math.round(share * 100));
    at(name).dispatchEvent(new Event('input'));
  }
}

/** Adds pictures, and films as some of their frames. They belong to the next question. */
async function addFiles(files) {
  for (const file of files) {
    try {
      if (file.type.startsWith('image/')) addMedium('image', [await pictureOf(file)], file.name);
      else if (file.type.startsWith('video/')) addMedium('video', await framesOf(file), file.name);
    } catch {
      addMedium('image', [], `${file.name} cannot be shown`);
    }
  }
  at('files').value = '';
}

function addMedium(kind, frames, name) {
  at('drop').hidden = true;
  const figure = document.createElement('figure');
  const list = document.createElement('div');
  if (kind === 'video') list.className = 'film';
  for (const [i, frame] of frames.entries()) {
    const holder = document.createElement('span');
    holder.className = 'frame';
    const image = new Image(frame.width, frame.height);
    image.src = frame.url;
    image.alt = kind === 'video' ? `Frame ${i + 1} of ${name}` : name;
    const canvas = document.createElement('canvas');
    canvas.width = frame.width;
    canvas.height = frame.height;
    canvas.setAttribute('role', 'img');
    frame.canvas = canvas;
    holder.append(image, canvas);
    list.append(holder);
  }
  const caption = document.createElement('figcaption');
  caption.textContent = name;
  figure.append(list, caption);
  at('pictures').append(figure);
  if (frames.length > 0) state.pending.push({ kind, frames, caption, name });
}

function load(url) {
  return new Promise((resolve, reject) => {
    const image = new Image();
    image.onload = () => resolve(image);
    image.onerror = reject;
    image.src = url;
  });
}

function dataUrl(blob) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = reject;
    reader.readAsDataURL(blob);
  });
}

/** A picture as a data URL; a large one is reduced, since no model sees more. */
async function pictureOf(file) {
  const url = await dataUrl(file);
  const image = await load(url);
  const { naturalWidth: width, naturalHeight: height } = image;
  if (Math.max(width, height) <= MOST_SIDE && file.size < 4e6) return { url, width, height };
  return drawn(image, width, height);
}

function drawn(source, width, height) {
  const scale = Math.min(1, MOST_SIDE / Math.max(width, height));
  const canvas = document.createElement('canvas');
  canvas.width = Math.round(width * scale);
  canvas.height = Math.round(height * scale);
  canvas.getContext('2d').drawImage(source, 0, 0, canvas.width, canvas.height);
  return { url: canvas.toDataURL('image/jpeg', 0.92), width: canvas.width, height: canvas.height };
}

/** Frames of a film at even times. */
async function framesOf(file) {
  const video = document.createElement('video');
  video.muted = true;
  video.src = URL.createObjectURL(file);
  try {
    await new Promise((resolve, reject) => {
      video.onloadeddata = resolve;
      video.onerror = reject;
    });
    const frames = [];
    for (let i = 0; i < FRAMES; i++) {
      await new Promise((resolve) => {
        video.onseeked = resolve;
        video.currentTime = ((i + 0.5) * video.duration) / FRAMES;
      });
      frames.push(drawn(video, video.videoWidth, video.videoHeight));
    }
    frames.fps = FRAMES / video.duration;
    return frames;
  } finally {
    URL.revokeObjectURL(video.src);
  }
}

/** The messages of the conversation, with the question last. */
function messages(turn) {
  const list = [];
  for (const one of [...state.turns, turn]) {
    const media = one.media.map(({ kind, frames }) =>
      kind === 'image'
        ? { type: 'image_url', image_url: { url: frames[0].url } }
        : { type: 'video_url', video_url: { frames: frames.map(({ url }) => url), fps: frames.fps } },
    );
    list.push({ role: 'user', content: [...media, { type: 'text', text: one.question }] });
    if (one !== turn) list.push({ role: 'assistant', content: one.answer });
  }
  return list;
}

async function ask() {
  const question = at('question').value.trim();
  if (question === '' || state.busy !== undefined) return;
  const turn = { question, answer: '', media: state.pending, item: logItem(question) };
  const sparsity = { method: 'sparsevila', prefill: at('prefill').value / 100, decode: at('decode').value / 100 };
  const list = messages(turn);
  const compare = at('compare').checked;
  setBusy(new AbortController());
  at('question').value = '';
  try {
    turn.sparse = await answer(list, sparsity, (text) => {
      turn.answer += text;
      turn.item.answer.textContent = turn.answer;
    });
    state.pending = [];
    state.turns.push(turn);
    report(turn);
    show(turn);
    if (compare) {
      turn.item.note.textContent = 'answering densely …';
      turn.dense = await answer(list, { method: 'dense' }, () => undefined);
      turn.item.note.textContent = '';
      report(turn);
    }
  } catch (error) {
    turn.item.note.textContent = error.name === 'AbortError' ? 'stopped' : error.message;
    turn.item.note.classList.toggle('error', error.name !== 'AbortError');
    if (turn.sparse === undefined) at('question').value = question;
  } finally {
    setBusy(undefined);
    at('question').focus();
  }
}

function setBusy(controller) {
  state.busy = controller;
  at('send').disabled = controller !== undefined;
  at('stop').disabled = controller === undefined;
}

/** Streams one answer; returns its text and the measurements that come with its end. */
async function answer(list, sparsity, onText) {
  const begin = performance.now();
  const body = { model: state.model, messages: list, stream: true, sparsity, cells: true };
  const response = await fetch('v1/chat/completions', {
    ...{ method: 'POST', headers: headers(), body: JSON.stringify(body), signal: state.busy.signal },
  });
  if (!response.ok) throw new Error((await response.json()).error.message);
  const result = { text: '', first: 0, total: 0, measured: undefined };
  for await (const data of events(response.body)) {
    if (data.error) throw new Error(data.error.message);
    const [choice] = data.choices;
    const text = choice?.delta.content ?? '';
    if (text !== '') {
      if (result.first === 0) result.first = performance.now() - begin;
      result.text += text;
      onText(text);
    }
    result.measured ??= choice?.sparsevila;
  }
  if (result.measured === undefined) throw new Error('The answer broke off.');
  return result;
}

/** The JSON of server-sent events, without comments and the last [DONE]. */
async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = '';
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    rest += value;
    const blocks = rest.split('\n\n');
    rest = blocks.pop();
    for (const block of blocks) if (block.startsWith('data: {')) yield JSON.parse(block.slice(6));
  }
}

function element(name, className, text = '') {
  const made = document.createElement(name);
  made.className = className;
  made.textContent = text;
  return made;
}

function logItem(question) {
  const root = document.createElement('li');
  const parts = {
    root,
    answer: element('div', 'answer'),
    note: element('div', 'note'),
    table: element('div', 'scroll'),
  };
  root.append(element('div', 'question', question), parts.answer, parts.note, parts.table);
  at('log').append(root);
  return parts;
}

const ROWS = [
  ['visual tokens in the decoder', ({ tokens }) => tokens.visual_kept],
  ['attended by the answer', ({ tokens }) => tokens.visual_retrieved],
  ['prompt tokens, cached ones', ({ tokens }) => `${tokens.prompt}, ${tokens.cached}`],
  // Shown apart, because the second of two answers about a picture finds it in memory.
  ['pictures through the tower', ({ ms }) => time(pictures(ms))],
  ['prefill', ({ ms }) => time(ms.prefill)],
  [
    'per token',
    ({ ms, tokens }) => (tokens.generated > 1 ? time((ms.total - ms.first) / (tokens.generated - 1)) : '–'),
  ],
  ['answer, without pictures', ({ ms }) => time(ms.total - ms.queue - pictures(ms))],
];

const pictures = (ms) => ms.image + ms.tower + ms.project;
const time = (ms) => (ms >= 1000 ? `${(ms / 1000).toFixed(2)} s` : `${ms.toFixed(ms < 10 ? 1 : 0)} ms`);

/** The table of an answer: sparse beside dense. */
function report(turn) {
  const { sparse, dense, item } = turn;
  const table = document.createElement('table');
  const row = (cells, name) => {
    const made = document.createElement('tr');
    for (const [i, text] of cells.entries()) made.append(element(i === 0 ? 'th' : name, '', String(text)));
    table.append(made);
  };
  row([`of ${sparse.measured.tokens.visual_seen} visual tokens`, 'sparse', ...(dense ? ['dense'] : [])], 'th');
  for (const [name, read] of ROWS) row([name, read(sparse.measured), ...(dense ? [read(dense.measured)] : [])], 'td');
  if (dense) row(['answer', sparse.text, dense.text], 'td');
  const button = element('button', 'show', 'Show what it attended');
  button.type = 'button';
  button.addEventListener('click', () => show(turn));
  item.table.replaceChildren(table, ...(sparse.measured.cells.media.length > 0 ? [button] : []));
  item.button = button;
  if (state.shown === turn) button.setAttribute('aria-pressed', 'true');
}

function show(turn) {
  state.shown = turn;
  for (const { item } of state.turns) item.button?.setAttribute('aria-pressed', String(item === turn.item));
  draw();
}

/** Lays the cells of the shown answer over the pictures. Where planes overlap, as tiles and a thumbnail do, the most attended one counts. */
function draw() {
  const { cells } = state.shown?.sparse.measured ?? {};
  const view = document.querySelector('input[name=view]:checked').value;
  const media = state.turns.flatMap((turn) => turn.media);
  at('legend').hidden = cells === undefined || view === 'plain';
  for (const [m, { kind, frames, caption, name }] of media.entries()) {
    const planes = cells?.media[m]?.planes ?? [];
    for (const [f, frame] of frames.entries()) {
      const own = planes.filter((plane) => kind === 'image' || plane.frame === f);
      drawFrame(frame, view === 'plain' ? [] : own, view, cells?.layers ?? 1);
    }
    const count = (list) => list.reduce((sum, n) => sum + n, 0);
    const all = count(planes.map(({ rows, cols }) => rows * cols));
    const kept = count(planes.map((plane) => plane.kept.length));
    const attended = count(planes.map((plane) => plane.attended.filter((n) => n > 0).length));
    caption.textContent =
      planes.length === 0 ? name : `${name}: ${kept} of ${all} cells kept, ${attended} attended in some layer`;
    for (const { canvas } of frames) canvas.setAttribute('aria-label', caption.textContent);
  }
}

function drawFrame({ canvas, width, height }, planes, view, layers) {
  const pen = canvas.getContext('2d');
  pen.clearRect(0, 0, width, height);
  if (planes.length === 0) return;
  pen.fillStyle = 'rgb(11 13 18 / 80%)';
  pen.fillRect(0, 0, width, height);
  const each = (wanted, paint) => {
    for (const plane of planes)
      for (const [i, cell] of plane.kept.entries())
        if (wanted(plane.attended[i])) paint(rectangle(plane, cell), plane.attended[i]);
  };
  each(
    () => true,
    (box) => {
      pen.clearRect(...box);
      if (view !== 'attended') return;
      pen.fillStyle = 'rgb(11 13 18 / 45%)';
      pen.fillRect(...box);
    },
  );
  if (view !== 'attended') return;
  each(
    (n) => n > 0,
    (box) => pen.clearRect(...box),
  );
  each(
    (n) => n > 0,
    ([x, y, w, h], n) => {
      const line = Math.max(1.5, Math.min(w, h) * 0.1);
      pen.lineWidth = line;
      pen.strokeStyle = HEAT[Math.min(HEAT.length - 1, Math.floor((n / layers) * HEAT.length))];
      pen.strokeRect(x + line / 2, y + line / 2, w - line, h - line);
    },
  );
}

/** The rectangle of a cell on its picture. */
function rectangle({ cols, geometry: { cell, covered, picture } }, index) {
  const [row, col] = [Math.floor(index / cols), index % cols];
  const [x, y] = [col * cell.width, row * cell.height];
  const [right, bottom] = [Math.min(x + cell.width, covered.width), Math.min(y + cell.height, covered.height)];
  return [x - picture.left, y - picture.top, right - x, bottom - y];
}

start();
