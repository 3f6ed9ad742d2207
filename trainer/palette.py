"""The colours of the charts, on the page and in model cards."""

TRAIN, TEST = "#3060e4", "#f06c0c"
PLAN = "#737b89"  # lines drawn for comparison: a planned schedule, the loss of guessing, the notebook's figures

# One colour per contender. Found by a search for the largest differences as seen with each kind of colour blindness,
# among the colours that stand out from white and from the dark page; tests/test_palette.py measures both.
COLORS = (TRAIN, TEST, "#24a878", "#a83c84", "#c078d8", "#e4003c")
