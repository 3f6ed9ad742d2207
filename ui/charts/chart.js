// Draws a Vega-Lite spec once, then feeds its named data sets: the view, and the tooltip one reads, stay.
const box = element.querySelector('.chart'), choice = element.querySelector('.views');
const description = box.getAttribute('aria-label');  // or Vega would write a name of its own over it
let view = null, drawn = null, width = 0, chosen = null, offered = null, first = null;
let fed = {}, wanted = false, busy = false, seen = false, rest = 0, wake = () => {};
let dark = document.body.classList.contains('dark');

function look() {
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

// The views of one chart, such as linear and logarithmic. A visitor's choice stays until the chart offers others.
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
  // Of a chart that a handler once left as it was, Gradio makes a new component, whose values come as they are.
  const value = JSON.parse(typeof props.value === 'string' ? props.value : JSON.stringify(props.value));
  offer(value);
  // In a tab that is not open there is no width: it is drawn when it opens.
  if (!box.clientWidth || !window.vegaEmbed) { width = 0; return; }
  const text = JSON.stringify(value.specs[chosen]);
  if (text !== drawn) {
    width = box.clientWidth;
    const spec = {...value.specs[chosen], width, description};
    const made = await vegaEmbed(box, spec, {actions: false, renderer: 'svg', config: look(), tooltip: {theme: 'custom'}, logLevel: 1});
    if (view) view.finalize();
    view = made.view;
    if (!box.isConnected) { view.finalize(); return; }
    drawn = text;
  } else if (width !== box.clientWidth) {
    width = box.clientWidth;
    view.width(width);
  }
  const begun = performance.now();
  for (const [name, rows] of Object.entries({...value.data, ...JSON.parse(JSON.stringify(fed))})) {
    try { view.data(name, rows); } catch (error) { /* a chart without that layer */ }
  }
  await view.runAsync();
  rest = seen ? 9 * (performance.now() - begun) : 4000;
}

// Draws what is newest, for a tenth of the time at most, and out of sight now and then only: the machine may be the one
// that trains.
async function update() {
  wanted = true;
  if (busy) return;
  busy = true;
  while (wanted && box.isConnected) {
    wanted = false;
    rest = 0;
    try { await draw(); } catch (error) { console.error('chart', error); }
    await new Promise(done => { wake = done; setTimeout(done, rest); });
  }
  busy = false;
}
const resized = new ResizeObserver(() => { if (box.clientWidth && box.clientWidth !== width) update(); });
const scrolled = new IntersectionObserver(entries => {
  seen = entries.at(-1).isIntersecting;
  if (seen) wake();
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

// The body outlives the chart, and would keep alive all that observes it. Only a custom element learns that it is
// removed, also while it is hidden.
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
// Data that another part of the page moves by itself, without asking the server.
element.addEventListener('feed', event => { fed = event.detail; update(); });
// Gradio has loaded Vega before it runs this; if it could not, no waiting helps.
update();
