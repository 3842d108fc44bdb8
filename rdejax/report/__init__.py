"""One self-contained HTML page about a run: settings, scores, plots, clips that play."""

from rdejax.report.write import write_report

__all__ = ["write_report"]
