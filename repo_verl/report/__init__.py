"""What came out of one or several runs, from verl's file log: a page, pictures, a summary as JSON and a table."""

from repo_verl.report.logs import Log, read_log
from repo_verl.report.summary import accuracies, series, summarize, table
from repo_verl.report.surroundings import surroundings
from repo_verl.report.write import write_report

__all__ = ["Log", "accuracies", "read_log", "series", "summarize", "surroundings", "table", "write_report"]
