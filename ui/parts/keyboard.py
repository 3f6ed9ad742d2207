"""The page for people who use a keyboard or a screen reader: arrows, the focus, and a status that is read aloud."""

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
  new MutationObserver(() => {
    const line = document.querySelector("#status .status");
    const parts = [line?.querySelector("b"), line?.querySelector("h2"), ...(line?.querySelectorAll(".advice") ?? [])];
    const words = [line?.dataset.spoken, ...parts.map((part) => part?.textContent)].filter(Boolean).join(". ");
    if (words !== region.textContent) region.textContent = words;
  }).observe(document.querySelector("#status"), { childList: true, subtree: true, characterData: true });
}"""

# A button that a training disables or hides loses the focus, without an event. The mouse needs no focus: with Stop
# focused, a space that is to scroll would end the training.
_KEEP_FOCUS = """() => {
  let focused = null;
  addEventListener("focusin", ({ target }) => { focused = target.matches(":focus-visible") ? target : null; });
  addEventListener("pointerdown", () => { focused = null; });
  new MutationObserver(() => setTimeout(() => {
    if (focused && (focused.disabled || !focused.isConnected))
      document.querySelector("#stop:enabled, #train:enabled")?.focus({ preventScroll: true });
  })).observe(document.querySelector("#buttons"), { attributes: true, attributeFilter: ["disabled"], subtree: true });
}"""


def wire(page: gr.Blocks) -> None:
    """Makes the page move between its tabs by arrows, keep the focus, and tell screen readers how a training goes."""
    page.load(None, None, None, js=_ARROWS, api_name="_arrows", **AT_ONCE)
    page.load(None, None, None, js=_SPEAK, api_name="_speak", **AT_ONCE)
    page.load(None, None, None, js=_KEEP_FOCUS, api_name="_keep_focus", **AT_ONCE)
