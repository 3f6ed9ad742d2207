"""The help of the page's settings: icons that the keyboard and a finger reach. style.css shows their sentences."""

import gradio as gr

from ui.parts.shared import AT_ONCE

# A tap on an icon must not reach the control whose label contains it. Gradio adds widgets while the page is open.
_SHOW_ON_FOCUS = """() => {
  const prepare = () => {
    for (const help of document.querySelectorAll(".info-text:not([tabindex])")) {
      help.tabIndex = 0;
      help.setAttribute("role", "note");
      help.addEventListener("click", (event) => event.preventDefault());
      help.addEventListener("keydown", ({ key }) => { if (key === "Escape") help.blur(); });
    }
  };
  let isPlanned = false;
  const plan = () => {
    if (isPlanned) return;
    isPlanned = true;
    setTimeout(() => { isPlanned = false; prepare(); }, 500);
  };
  new MutationObserver(plan).observe(document.body, { childList: true, subtree: true });
  prepare();
}"""


def show_on_focus(page: gr.Blocks) -> None:
    """Makes every help of the page show its sentence when it is focused or tapped."""
    page.load(None, None, None, js=_SHOW_ON_FOCUS, api_name="_help", **AT_ONCE)
