"""Work for another process: what to do, the worker that does it, and slices for a borrowed GPU."""
