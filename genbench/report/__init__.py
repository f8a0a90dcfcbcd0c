"""The report of a run: comparative tables, pictures, charts, and the audit of the metrics."""

from genbench.report.build import build_report
from genbench.report.tables import summary_frame, terminal_table, write_summary

__all__ = ["build_report", "summary_frame", "terminal_table", "write_summary"]
