"""What shows runs, networks and jobs: the list, the view, and how a page watches them."""
