"""What would stop a run, found before Ray starts. No import of torch or verl."""

from collections.abc import Mapping
from typing import Any

Config = Mapping[str, Any]
"""verl's composed configuration in plain dicts and lists."""
