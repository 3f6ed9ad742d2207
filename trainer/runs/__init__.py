"""What a run reports, and the folder that keeps it."""
