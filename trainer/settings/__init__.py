"""What a run is asked to do: its settings, and the lessons made of them. Standard library only."""
