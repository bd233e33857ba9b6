"""`python -m data_prep` in the tests: what it writes, what it says when it refuses, and sources for it."""

import json

import pyarrow.parquet as pq

from data_prep import cli


def prepare(output, *flags):
    """Run the command; the account that it wrote."""
    flags = [str(flag) for flag in flags]
    assert cli.main([*flags, "--output", str(output), "--quiet"]) == 0
    name = flags[flags.index("--name") + 1] if flags[0] == "custom" else flags[0]
    return json.loads((output / f"{name}.json").read_text())


def refused(capsys, output, *flags):
    """Run the command, which ends with status 2 and leaves the folder as it was; the one line on stderr."""
    before = sorted(output.glob("*"))
    assert cli.main([*map(str, flags), "--output", str(output), "--quiet"]) == 2
    assert sorted(output.glob("*")) == before
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    return message


def rows_of(path):
    """The rows of a parquet file."""
    return pq.read_table(path).to_pylist()


def jsonl(path, *records):
    """Write a file of one record a line, each a value or the text of a line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in records))
    return path


def row_of(data_set, record, index, split, template):
    """A record of a data set as verl's row, as the command makes it."""
    return data_set.read(record).to_row(data_set.name, index, split, template)
