"""The page's charts: Vega-Lite specs, their data, and the component that shows them."""
