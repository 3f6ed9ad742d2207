"""The page as a whole, without a browser."""

from labs import in_event_loop

from ui.page import build_page


def test_no_large_event_shows_its_progress_on_its_outputs(lab):
    """The browser would update each of them at every message of any event."""
    page = in_event_loop(lambda: build_page(lab))
    events = {event.api_name: event for event in page.fns.values()}
    large = {name for name, event in events.items() if len(event.outputs) > 4}
    assert {"_load", "_watch"} <= large
    assert {name for name in large if events[name].show_progress_on is None} == set()
