"""The command line, `python -m trainer`: one module for each group of commands."""
