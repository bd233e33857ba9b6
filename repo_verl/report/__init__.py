"""What came out of one or several runs, from verl's file log: a page, pictures, a summary as JSON and a table."""

from repo_verl.report.provenance import provenance
from repo_verl.report.runs import Log, read_log
from repo_verl.report.summary import accuracies, summarize, table
from repo_verl.report.write import write_report

__all__ = ["Log", "accuracies", "provenance", "read_log", "summarize", "table", "write_report"]
