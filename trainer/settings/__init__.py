"""The settings of a run and the lessons made of them. Standard library only."""
