"""The Inside tab: views that show why the curves of a run look as they do."""
