"""One module or package for each tab of the page."""
