"""The page's address: what it holds besides the settings of permalink.py, and the scripts that write and read it.

`tab` is the selected tab, `view` that of the Inside tab, `run` the run that the visitor chose among their own, and
`plan` that of a sweep. Each tab is a step in the browser's history. Choosing a view or a run or changing a setting is
not: Back leads to the previous tab and changes nothing else on the page.
"""

import json
from collections.abc import Sequence

from gradio.context import LocalContext

PARAMETERS = ("tab", "view", "run", "plan")

# A frame of another site may have no access to the history; the page then works without it.
_PUT = """((name, value, write) => {
  const address = new URL(location.href);
  if ((address.searchParams.get(name) ?? "") === value) return;
  if (value) address.searchParams.set(name, value);
  else address.searchParams.delete(name);
  try { history[write](history.state, "", address); } catch {}
})"""

# For a change of the page's settings, whose query is the input: keeps the other parameters, also Gradio's own.
SHOW_SETTINGS = f"""(query) => {{
  const address = new URL(location.href), kept = {json.dumps(["lang", *PARAMETERS])};
  const others = [...address.searchParams].filter(([name]) => kept.includes(name) || name.startsWith("_"));
  address.search = query;
  for (const [name, value] of others) address.searchParams.append(name, value);
  try {{ history.replaceState(history.state, "", address); }} catch {{}}
}}"""

# For a change of the chosen run, whose key is the input.
SHOW_RUN = f"""(run) => {_PUT}("run", run, "replaceState")"""

# For a change of the sweep's plan, whose text is the input.
SHOW_PLAN = f"""(plan) => {_PUT}("plan", plan, "replaceState")"""

# A view of the Inside tab that was a tab of its own: old links name it so.
_MOVED = f"""(() => {{
  if (new URL(location.href).searchParams.get("tab") !== "time-machine") return;
  {_PUT}("view", "time-machine", "replaceState");
  {_PUT}("tab", "inside", "replaceState");
}})()"""


def show_view(views: Sequence[str]) -> str:
    """A script for a change of the view, whose name is the input; the first one is not in the address."""
    return f"""(view) => {_PUT}("view", view === {json.dumps(views[0])} ? "" : view, "replaceState")"""


def show_tab(tabs: Sequence[str], tab: str) -> str:
    """A script for the selection of a tab.

    Not every selection is a step of the visitor's: Gradio selects the first tab when it builds the page, and Back
    selects an earlier one; its event may arrive after the address has changed again.
    """
    return f"""() => {{
  const expected = window.expectedTabs ??= [{json.dumps(tabs[0])}], index = expected.indexOf({json.dumps(tab)});
  window.selectedTab = {json.dumps(tab)};
  expected.splice(0, index < 0 ? expected.length : index + 1);
  if (index < 0) {_PUT}("tab", {json.dumps("" if tab == tabs[0] else tab)}, "pushState");
}}"""


def open_page(tabs: Sequence[str], views: Sequence[str], back: str) -> str:
    """A script for a page that is opened: returns an update of the tabs, the address's run and its view.

    From then on Back and Forward click the button whose id is `back`.
    """
    return f"""() => {{
  addEventListener("popstate", () => document.querySelector("#{back}").click());
  {_MOVED};
  const tab = {_of_address("tab", tabs)}, run = new URL(location.href).searchParams.get("run");
  return [{{ __type__: "update", selected: tab }}, run ?? "", {_of_address("view", views)}];
}}"""


def go_back(tabs: Sequence[str], views: Sequence[str]) -> str:
    """A script for that button: returns an update of the tabs. Only the tab goes back.

    The page's settings, its run, its plan and its view, which are the inputs, have not gone back.
    """
    return f"""(query, run, plan, view) => {{
  ({SHOW_SETTINGS})(query);
  ({SHOW_RUN})(run);
  ({SHOW_PLAN})(plan);
  ({show_view(views)})(view);
  const tab = {_of_address("tab", tabs)};
  if (tab !== window.selectedTab) (window.expectedTabs ??= []).push(tab);
  return {{ __type__: "update", selected: tab }};
}}"""


def _of_address(parameter: str, values: Sequence[str]) -> str:
    """A JavaScript expression: the value of a parameter in the address, or the first of `values` if it is none."""
    value = f"new URL(location.href).searchParams.get({json.dumps(parameter)})"
    return f"({json.dumps(values)}.find((one) => one === {value}) ?? {json.dumps(values[0])})"


def current_query() -> dict[str, str]:
    """The parameters in the address of the page whose event is being handled; none outside of an event."""
    request = LocalContext.request.get(None)
    return dict(request.query_params) if request else {}
