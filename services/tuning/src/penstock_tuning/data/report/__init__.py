"""The report on the data: figures, label noise, plots, and the page."""
