"""The colours of the charts, on the page and in model cards."""

TRAIN, TEST = "#3b82f6", "#f97316"
PLAN = "#737b89"  # lines drawn for comparison: a planned schedule, the loss of guessing, the notebook's figures

# One colour per contender, in the spirit of Okabe & Ito's palette for colour-blind readers.
COLORS = (TRAIN, TEST, "#10b981", "#d946ef", "#b45309", "#64748b")
