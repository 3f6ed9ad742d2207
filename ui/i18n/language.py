"""The language of a page: `?lang=` in its address, else what was chosen before in this browser, else the browser's own.

Gradio translates static text in the browser, by navigator.language. language.js overrides it, and puts a remembered
choice into the address, where the server finds it in every event.
"""

from typing import Any

from gradio.context import LocalContext

from ui.i18n.words import in_browser

# For the click of a button: the page again, in the other language, with the rest of its address. It ends what the page
# trains, and asks before it does.
SWITCH = f"""() => {{
  const ends = {in_browser("The training here ends, and Resume goes on from its last epoch. Change the language?")};
  if (document.querySelector("#stop:enabled") && !confirm(ends)) return;
  const address = new URL(location.href);
  address.searchParams.set("lang", document.documentElement.lang.startsWith("zh") ? "en" : "zh");
  location.assign(address);
}}"""


def current_language() -> str:
    """The language, "en" or "zh", of the page whose event is being handled; English outside of any.

    Not by a gr.Request among the handler's parameters: Gradio fills none in a functools.partial.
    """
    request = LocalContext.request.get(None)
    return "en" if request is None else language_of(request)


def language_of(request: Any) -> str:
    """The language, "en" or "zh", of the page that a request (Gradio's or Starlette's) comes from."""
    asked = request.query_params.get("lang", "").lower()
    # Browsers send the language they prefer first; navigator.language is the same one.
    accepted = request.headers.get("accept-language", "").lower()
    language = asked if asked.startswith(("zh", "en")) else accepted
    return "zh" if language.startswith("zh") else "en"
