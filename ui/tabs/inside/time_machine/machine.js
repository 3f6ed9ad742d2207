// Moves through the epochs of a run. The value contains all frames, so that no step needs the server.
const part = name => element.querySelector(name);
const slider = part('input'), play = part('button'), FRAME_MILLISECONDS = 500;
let index = 0, timer = null, shown = {};
let chosen = null; // the epoch that the visitor has selected; null displays the latest

const frames = () => shown.frames || [];
const pixels = text => Uint8Array.from(atob(text), letter => letter.charCodeAt(0));

function feed(chart, data) {
  document.querySelector(`#${chart} .chart`)?.dispatchEvent(new CustomEvent('feed', {detail: data, bubbles: true}));
}

// Draws `count` squares of `side` pixels with a gap between them, enlarged by a whole number so that they stay crisp.
function tiles(canvas, bytes, side, count, columns, width) {
  const pitch = side + 1;
  canvas.width = columns * pitch - 1;
  canvas.height = Math.ceil(count / columns) * pitch - 1;
  canvas.style.width = Math.max(1, Math.floor(width / canvas.width)) * canvas.width + 'px';
  const context = canvas.getContext('2d');
  for (let tile = 0; tile < count; tile++) {
    const image = context.createImageData(side, side);
    for (let pixel = 0; pixel < side * side; pixel++) {
      const from = (tile * side * side + pixel) * 3;
      image.data.set([bytes[from], bytes[from + 1], bytes[from + 2], 255], pixel * 4);
    }
    context.putImageData(image, (tile % columns) * pitch, Math.floor(tile / columns) * pitch);
  }
}

// Fills a table with rows of text; the first row is its head.
function fill(table, rows) {
  table.replaceChildren(...rows.map((row, number) => {
    const line = document.createElement('tr');
    line.append(...row.map(text => {
      const cell = document.createElement(number ? 'td' : 'th');
      cell.textContent = text;
      return cell;
    }));
    return line;
  }));
}

function show() {
  const all = frames(), frame = all[index], {words} = shown;
  const filters = document.querySelector('#filters'), figures = document.querySelector('#layer-figures');
  part('.machine').hidden = !frame;
  document.querySelector('#moments')?.classList.toggle('here', Boolean(frame));
  if (!frame || !filters) return; // without #filters, the page is just leaving this view
  slider.max = all.length - 1;
  slider.value = index;
  slider.setAttribute('aria-label', words.slider);
  slider.setAttribute('aria-valuetext', frame.name);
  play.textContent = timer ? '❚❚' : '▶';
  play.setAttribute('aria-label', timer ? words.pause : words.play);
  part('.name').textContent = frame.name;
  part('.says').textContent = frame.says;
  tiles(part('canvas'), pixels(shown.seen), shown.seen_side, 1, 1, 64);
  feed('lines', {mark: [{epoch: frame.epoch}], now: frame.shares});
  feed('bars', {now: frame.shares});
  for (const chart of ['learned', 'epoch-mistakes']) feed(chart, {mark: [{epoch: frame.epoch}]});
  const canvas = filters.querySelector('canvas');
  canvas.setAttribute('aria-label', words.filters);
  tiles(canvas, pixels(frame.filters), frame.filter_side, frame.num_filters, 8,
    Math.min(filters.querySelector('.what').clientWidth, 480));
  filters.querySelector('.changed').textContent = frame.changed;
  filters.querySelector('.what').textContent = words.filters;
  figures.querySelector('.changed').textContent = frame.layers.length ? words.layers : words.unmeasured;
  fill(figures.querySelector('table'), frame.layers.length ? [words.columns, ...frame.layers] : []);
}

function go(to) {
  index = to;
  chosen = frames()[to].epoch;
  show();
}

function stop() {
  clearInterval(timer);
  timer = null;
}

function step() {
  if (!element.isConnected) return stop();
  if (index < frames().length - 1) return go(index + 1);
  if (!shown.more) stop();
  show();
}

slider.addEventListener('input', () => { stop(); go(Number(slider.value)); });
play.addEventListener('click', () => {
  if (timer) stop();
  else timer = setInterval(step, FRAME_MILLISECONDS);
  if (timer && index === frames().length - 1) go(0);
  show();
});

function update() {
  const value = props.value || {};
  if (value.waiting && value.run === shown.run) return; // the same run, with another picture
  if (value.run !== shown.run) {
    chosen = null;
    stop();
  }
  shown = value;
  const place = frames().findIndex(frame => frame.epoch === chosen);
  index = place < 0 ? frames().length - 1 : place;
  show();
}
watch('value', update);
new ResizeObserver(show).observe(element);
update();
