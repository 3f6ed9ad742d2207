"""The page for people who use a keyboard or a screen reader: arrows between tabs, and a status that is read aloud."""

import gradio as gr

from ui.parts.shared import AT_ONCE

# Gradio's tabs are stops of the Tab key only.
_ARROWS = """() => addEventListener("keydown", (event) => {
  const tab = event.target.closest?.("[role=tablist] [role=tab]");
  if (!tab || event.altKey || event.ctrlKey || event.metaKey) return;
  const tabs = [...tab.closest("[role=tablist]").querySelectorAll("[role=tab]:enabled")], last = tabs.length - 1;
  const at = tabs.indexOf(tab);
  const next = { ArrowRight: at === last ? 0 : at + 1, ArrowLeft: at === 0 ? last : at - 1, Home: 0, End: last };
  if (!(event.key in next)) return;
  event.preventDefault();
  const id = tabs[next[event.key]].dataset.tabId;
  tabs[next[event.key]].click();
  // Gradio may draw the tabs again.
  setTimeout(() => document.querySelector(`[role=tab][data-tab-id="${id}"]`)?.focus());
})"""

# The state, epoch and result are read when they change, not the loss and the remaining time, which change all the time.
_SPEAK = """() => {
  const region = Object.assign(document.createElement("div"), { className: "spoken", role: "status" });
  document.body.append(region);
  let focused = null;
  addEventListener("pointerdown", () => { focused = null; });
  addEventListener("focusin", ({ target }) => { focused = target; });
  // A button that has become disabled has lost the focus.
  const refocus = () => {
    if (document.activeElement === document.body && focused?.matches(".starts, #stop, #first-train"))
      document.querySelector("#stop:enabled, #train:enabled")?.focus({ preventScroll: true });
  };
  new MutationObserver(() => {
    const line = document.querySelector("#status .status");
    const parts = [line?.querySelector("b"), line?.querySelector("h2"), ...(line?.querySelectorAll(".advice") ?? [])];
    const words = [line?.dataset.spoken, ...parts.map((part) => part?.textContent)].filter(Boolean).join(". ");
    if (words !== region.textContent) region.textContent = words;
    setTimeout(refocus, 200);
  }).observe(document.querySelector("#status"), { childList: true, subtree: true, characterData: true });
}"""


def wire(page: gr.Blocks) -> None:
    """Makes the page move between its tabs by arrows, and tell screen readers how a training goes."""
    page.load(None, None, None, js=_ARROWS, api_name="_arrows", **AT_ONCE)
    page.load(None, None, None, js=_SPEAK, api_name="_speak", **AT_ONCE)
