// Draws a Vega-Lite spec once, then updates its named data sets in place, so that an open tooltip stays.
const box = element.querySelector('.chart'), choice = element.querySelector('.views');
const NARROW = 520;  // pixels
const FRAMES = ['guess', 'frame', 'rule'];  // the data sets that a chart without any results has too
const tip = Object.assign(document.createElement('div'), {className: 'tip', hidden: true});  // under the pointer
box.after(tip);
const description = box.getAttribute('aria-label');  // otherwise Vega replaces it with its own
let view = null, drawn = null, width = 0, chosen = null, offered = null, first = null;
let latest = null, zoomed = null, hasPlayed = false, fed = {}, pointed = {}, isStale = false, isBusy = false, isVisible = false, pause = 0, wake = () => {};
let dark = document.body.classList.contains('dark');

function theme() {
  const style = getComputedStyle(element);
  const ink = style.getPropertyValue('--body-text-color').trim();
  const faint = style.getPropertyValue('--border-color-primary').trim();
  return {
    background: 'transparent', font: style.fontFamily, view: {stroke: null}, padding: {left: 2, right: 12, top: 8, bottom: 2},
    axis: {labelColor: ink, titleColor: ink, titleFontWeight: 'normal', gridColor: faint, domainColor: faint,
      tickColor: faint, labelFontSize: 11, titleFontSize: 12},
    legend: {labelColor: ink, labelFontSize: 12},
  };
}

// Shows a button for each view, such as linear and logarithmic. The visitor's choice stays until the views change.
function offer(value) {
  const names = Object.keys(value.specs);
  if (names.join('|') !== offered || value.view !== first) {
    offered = names.join('|');
    first = chosen = value.view;
    choice.replaceChildren(...(names.length > 1 ? names : []).map(name => {
      const button = document.createElement('button');
      button.textContent = name;
      button.onclick = () => { chosen = name; update(); wake(); };
      return button;
    }), offerFiles());
  }
  for (const button of choice.querySelectorAll(':scope > button')) button.setAttribute('aria-pressed', button.textContent === chosen);
}

// After a handler has skipped this chart, Gradio replaces its component, and the value is an object instead of text.
function read() {
  return JSON.parse(typeof props.value === 'string' ? props.value : JSON.stringify(props.value));
}

async function draw() {
  if (!props.value) return;
  const value = latest = read();
  if (value.is_first && !document.documentElement.lang.startsWith('en')) return;
  offer(value);
  const hasData = Object.entries(value.data).some(([name, rows]) => rows.length && !FRAMES.includes(name));
  box.parentElement.classList.toggle('no-data', !hasData);
  // A chart in a closed tab has no width; it is drawn when the tab opens.
  if (!box.clientWidth || !window.vegaEmbed) { width = 0; return; }
  const isNarrow = box.clientWidth < NARROW;
  const text = JSON.stringify([value.specs[chosen], zoomed, isNarrow]);
  if (text !== drawn) {
    width = box.clientWidth;
    const spec = {...zoom(value.specs[chosen]), width, description};
    if (isNarrow && spec.padding) spec.padding = {...spec.padding, right: 12};  // no room for the names at the ends of the curves
    const tooltip = value.data.epochs ? false : {theme: 'custom'};
    const embedded = await vegaEmbed(box, spec, {actions: false, renderer: 'svg', config: theme(), tooltip, logLevel: 1});
    if (view) view.finalize();
    view = embedded.view;
    box.querySelector('svg').setAttribute('aria-hidden', 'true');  // the box has the role and the name of an image
    view.addEventListener('click', (event, item) => {
      if (item?.datum?.press) trigger('select', {press: item.datum.press});
    });
    if (!box.isConnected) { view.finalize(); return; }
    drawn = text;
    if (value.plays && !hasPlayed) play();
  } else if (width !== box.clientWidth) {
    width = box.clientWidth;
    view.width(width);
  }
  const start = performance.now();
  const hidden = zoomed ? {ends: [], guess: []} : isNarrow ? {ends: []} : {};
  const shown = {...value.data, mark: [], ...hidden, ...JSON.parse(JSON.stringify(fed)), ...pointed};
  for (const [name, rows] of Object.entries(shown)) {
    try { view.data(name, rows); } catch (error) { /* this chart has no such data set */ }
  }
  // Labels of other numbers may need more room; names at the ends of curves have theirs already.
  if (!value.data.ends?.length) view.resize();
  await view.runAsync();
  pause = isVisible ? 9 * (performance.now() - start) : 4000;
}

// The spec, or a layer of it, with the epochs that the visitor has zoomed to.
function zoom(spec) {
  if (!zoomed) return spec;
  if (spec.layer) return {...spec, layer: spec.layer.map(zoom)};
  const [from, to] = zoomed, {x} = spec.encoding ?? {};
  const filter = {filter: `!isValid(datum.epoch) || datum.epoch >= ${from} && datum.epoch <= ${to}`};
  const encoding = x?.scale ? {...spec.encoding, x: {...x, scale: {...x.scale, domain: zoomed}}} : spec.encoding;
  return {...spec, encoding, transform: [filter, ...(spec.transform ?? [])]};
}

// The epoch under the pointer; null without curves over epochs, and outside of the plot.
function epochAt(event) {
  if (!view || !latest?.data?.epochs) return null;
  const x = event.clientX - box.querySelector('svg').getBoundingClientRect().left - view.origin()[0];
  return x < -8 || x > view.signal('width') + 8 ? null : view.scale('x').invert(x);
}

// Shows the values of all curves at the epoch under the pointer.
function compare(event) {
  const epoch = epochAt(event), {epochs = [], steps = []} = latest?.data ?? {};
  const isSum = latest?.specs[chosen]?.layer?.[0].encoding.y?.field === 'sum';
  const rows = (epochs.length ? epochs : steps).filter(row => !isSum || row.sum);
  const distance = row => Math.abs(row.epoch - epoch);
  const nearest = epoch === null || !rows.length ? null : rows.reduce((best, row) => distance(row) < distance(best) ? row : best);
  tip.hidden = nearest === null;
  pointed = nearest === null ? {} : {mark: [{epoch: nearest.epoch}]};
  update();
  wake();
  if (nearest === null) return;
  const colors = view.scale('color');
  const kept = new Map();  // the row nearest to that epoch, of each curve
  for (const row of rows) {
    const key = row.run, other = kept.get(key);
    if (!other || Math.abs(row.epoch - nearest.epoch) < Math.abs(other.epoch - nearest.epoch)) kept.set(key, row);
  }
  const lines = [...kept.values()].filter(row => Math.abs(row.epoch - nearest.epoch) < 1).map(row => {
    const line = document.createElement('div'), swatch = document.createElement('i');
    swatch.style.background = colors(row.series);
    const number = row.curve === 'test_accuracy' ? `${(100 * row.value).toFixed(1)}%` : `${+(isSum ? row.sum : row.value).toPrecision(isSum ? 7 : 4)}`;
    line.append(swatch, row.label ? `${row.label}  ` : '', Object.assign(document.createElement('b'), {textContent: number}));
    return line;
  });
  tip.replaceChildren(Object.assign(document.createElement('div'), {textContent: `${EPOCH} ${+nearest.epoch.toFixed(2)} · ${zoomed ? ZOOM_OUT : ZOOM}`}), ...lines);
  const frame = element.getBoundingClientRect(), isLeft = event.clientX - frame.left > frame.width / 2;
  tip.style.left = isLeft ? '' : `${event.clientX - frame.left + 16}px`;
  tip.style.right = isLeft ? `${frame.right - event.clientX + 16}px` : '';
  tip.style.top = `${event.clientY - frame.top + 12}px`;
}

// Offers the chart as SVG and PNG, and its data as CSV.
function offerFiles() {
  const menu = document.createElement('details'), summary = document.createElement('summary');
  summary.textContent = '⤓';
  summary.setAttribute('aria-label', SAVE);
  summary.title = SAVE;
  menu.className = 'save';
  menu.append(summary, ...['SVG', 'PNG', 'CSV'].map(kind => {
    const button = document.createElement('button');
    button.textContent = kind;
    button.onclick = async () => { menu.open = false; await save(kind); };
    return button;
  }));
  return menu;
}

async function save(kind) {
  if (!view) return;
  const link = document.createElement('a');
  link.download = `${box.closest('[id]:not([id^=html-])')?.id ?? 'chart'}.${kind.toLowerCase()}`;
  if (kind === 'CSV') {
    const tables = Object.entries(latest.data).filter(([, rows]) => rows.length);
    const names = [...new Set(tables.flatMap(([, rows]) => rows.flatMap(Object.keys)))];
    const cell = value => /[",\n]/.test(value) ? `"${value.replaceAll('"', '""')}"` : value;
    const lines = tables.flatMap(([table, rows]) => rows.map(row => [table, ...names.map(name => cell(`${row[name] ?? ''}`))].join(',')));
    link.href = URL.createObjectURL(new Blob([['data,' + names.join(','), ...lines].join('\n') + '\n'], {type: 'text/csv'}));
  } else {
    view.background(getComputedStyle(document.body).backgroundColor);
    link.href = await view.toImageURL(kind.toLowerCase(), 2);
    view.background('transparent');
  }
  link.click();
}

// Reveals the curves from left to right, by an animation of the page's style sheet.
function play() {
  hasPlayed = true;
  box.classList.remove('plays');
  box.getBoundingClientRect();  // otherwise the animation would not start again
  box.classList.add('plays');
}

// Draws the latest data, for at most a tenth of the time, or every four seconds if the chart is out of sight: the same
// machine may be training.
async function update() {
  isStale = true;
  if (isBusy) return;
  isBusy = true;
  while (isStale && box.isConnected) {
    isStale = false;
    pause = 0;
    try { await draw(); } catch (error) { console.error('chart', error); }
    await new Promise(done => { wake = done; setTimeout(done, pause); });
  }
  isBusy = false;
}
const resized = new ResizeObserver(() => { if (box.clientWidth && box.clientWidth !== width) update(); });
const scrolled = new IntersectionObserver(entries => {
  isVisible = entries.at(-1).isIntersecting;
  if (isVisible) wake();
});
const themed = new MutationObserver(() => {
  if (dark === document.body.classList.contains('dark')) return;
  dark = !dark;
  drawn = null;
  update();
});
resized.observe(box);
scrolled.observe(box);
themed.observe(document.body, {attributes: true, attributeFilter: ['class']});

// The body outlives the chart and would keep its observers alive. Only a custom element is notified of its removal, even
// while it is hidden.
if (!customElements.get('live-chart')) customElements.define('live-chart', class extends HTMLElement {
  disconnectedCallback() { if (!this.isConnected) this.dispatchEvent(new Event('removed')); }
});
box.addEventListener('removed', () => {
  for (const observer of [resized, scrolled, themed]) observer.disconnect();
  if (view) view.finalize();
  view = null;
  wake();
});
box.addEventListener('animationend', () => box.classList.remove('plays'));
element.addEventListener('replay', () => { if (read().plays) play(); });
// A drag zooms to its epochs, a double click shows all again.
let pressed = null;
box.addEventListener('pointermove', compare);
box.addEventListener('pointerleave', event => { pressed = null; compare({...event, clientX: -1e6}); });
box.addEventListener('pointerdown', event => { pressed = event.pointerType === 'mouse' ? {x: event.clientX, epoch: epochAt(event)} : null; });
box.addEventListener('pointerup', event => {
  const epoch = epochAt(event);
  if (pressed && pressed.epoch !== null && epoch !== null && Math.abs(event.clientX - pressed.x) > 12) {
    zoomed = [pressed.epoch, epoch].sort((a, b) => a - b).map(at => Math.max(0, +at.toFixed(3)));
    update();
    wake();
  }
  pressed = null;
});
box.addEventListener('dblclick', () => { zoomed = null; update(); wake(); });
watch('value', update);
// Data that another part of the page changes without the server.
element.addEventListener('feed', event => { fed = event.detail; update(); });
// Gradio runs this after it has loaded Vega.
update();
