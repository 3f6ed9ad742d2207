"""Jobs for a borrowed GPU, and the measurement of how long they take."""
