"""The page: layout (Blocks and wiring), handlers (widgets to config, events to updates), plots."""
