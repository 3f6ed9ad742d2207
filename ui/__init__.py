"""The page: its tabs, what they share, and the app-wide state behind them."""
