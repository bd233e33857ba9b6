"""What a data set is to this package: a name, a place on the hub, and a way to read one record."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from data_prep.schema import Row, make_row
from data_prep.shapes import Item


@dataclass(frozen=True)
class DataSet:
    """A data set.

    Attributes:
        name: on the command line, in file names, and every row's ``data_source``.
        read: what a record says; pure, raises :class:`data_prep.schema.RowError`.
        default_split: the split of a local file if none is said.
        hub_name: ``owner/set`` on the hub, "" if it is not there.
        hub_config: the hub set's configuration; None for its only one.
        hub_splits: our split to the hub's.
        hub_default: the splits that are read from the hub if none is said.
        test_rows: records of the paper's test set; None if it is none.
    """

    name: str
    read: Callable[[Mapping[str, Any]], Item]
    default_split: str
    hub_name: str = ""
    hub_config: str | None = None
    hub_splits: Mapping[str, str] = field(default_factory=dict)
    hub_default: tuple[str, ...] = ()
    test_rows: int | None = None

    def to_row(self, record: Mapping[str, Any], index: int, split: str, template: str) -> Row:
        """One record as verl's row.

        Args:
            record: a record of the source.
            index: its number there, from 0.
            split: ``train``, ``test`` or ``warmup``.
            template: a key of ``data_prep.schema.TEMPLATES``.

        Raises: RowError if the record cannot be a row, with a short reason that is counted.
        """
        return self.item_row(self.read(record), index, split, template)

    def item_row(self, item: Item, index: int, split: str, template: str) -> Row:
        """A record that has been read as verl's row.

        Args:
            item: what the record says.
            index: see :meth:`to_row`.
            split: see :meth:`to_row`.
            template: see :meth:`to_row`.

        Raises: RowError if a text cannot be written.
        """
        return make_row(
            self.name, item.problem, item.answer, split, index, template, item.id, item.tolerance, item.unit
        )
