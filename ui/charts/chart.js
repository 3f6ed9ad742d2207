// Draws a Vega-Lite spec once, then updates its named data sets in place, so that an open tooltip stays.
const box = element.querySelector('.chart'), choice = element.querySelector('.views');
const description = box.getAttribute('aria-label');  // otherwise Vega replaces it with its own
let view = null, drawn = null, width = 0, chosen = null, offered = null, first = null;
let fed = {}, isStale = false, isBusy = false, isVisible = false, pause = 0, wake = () => {};
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
    }));
  }
  for (const button of choice.children) button.setAttribute('aria-pressed', button.textContent === chosen);
}

async function draw() {
  if (!props.value) return;
  // After a handler has skipped this chart, Gradio replaces its component, and the value is an object instead of text.
  const value = JSON.parse(typeof props.value === 'string' ? props.value : JSON.stringify(props.value));
  offer(value);
  // A chart in a closed tab has no width; it is drawn when the tab opens.
  if (!box.clientWidth || !window.vegaEmbed) { width = 0; return; }
  const text = JSON.stringify(value.specs[chosen]);
  if (text !== drawn) {
    width = box.clientWidth;
    const spec = {...value.specs[chosen], width, description};
    const embedded = await vegaEmbed(box, spec, {actions: false, renderer: 'svg', config: theme(), tooltip: {theme: 'custom'}, logLevel: 1});
    if (view) view.finalize();
    view = embedded.view;
    if (!box.isConnected) { view.finalize(); return; }
    drawn = text;
  } else if (width !== box.clientWidth) {
    width = box.clientWidth;
    view.width(width);
  }
  const start = performance.now();
  for (const [name, rows] of Object.entries({...value.data, ...JSON.parse(JSON.stringify(fed))})) {
    try { view.data(name, rows); } catch (error) { /* this chart has no such data set */ }
  }
  await view.runAsync();
  pause = isVisible ? 9 * (performance.now() - start) : 4000;
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
watch('value', update);
// Data that another part of the page changes without the server.
element.addEventListener('feed', event => { fed = event.detail; update(); });
// Gradio runs this after it has loaded Vega.
update();
