"""Jobs: the work that visitors request, which belongs to the app and not to a page."""
