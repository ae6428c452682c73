"""The command lines: `python main.py` or `fedsplit`, and `python plot_results.py` or `fedsplit-plot`."""
