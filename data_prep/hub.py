"""Reading the public sets of the Hugging Face hub, record by record."""

from __future__ import annotations

import hashlib
import json
import socket
import urllib.parse
import urllib.request
from collections.abc import Iterator
from typing import Any

from data_prep.dataset import DataSet

CONNECT_SECONDS = 4.0


def hub_records(data_set: DataSet, split: str, source: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The records of a split of a hub set, streamed.

    Args:
        data_set: with a hub name.
        split: ours; the data set says what the hub calls it.
        source: gets ``records_sha256`` when the last record is out, of the records as JSON lines with sorted keys.

    Raises: ValueError if the hub set has no such split; OSError saying how to get the file when the hub cannot be
        reached.
    """
    import datasets

    name = data_set.hub_name
    if split not in data_set.hub_splits:
        raise ValueError(f"the hub set {name} has no split {split}; it has {', '.join(data_set.hub_splits)}")
    digest = hashlib.sha256()
    try:
        reach(datasets.config.HF_ENDPOINT)
        for record in datasets.load_dataset(
            name, data_set.hub_config, split=data_set.hub_splits[split], streaming=True
        ):
            digest.update(json.dumps(record, sort_keys=True, default=str).encode() + b"\n")
            yield record
    except Exception as error:
        reason = (str(error).splitlines() or [""])[0]
        raise OSError(
            f"the hub set {name} could not be loaded ({type(error).__name__}: {reason}); on a machine with network "
            f"run `hf download {name} --repo-type dataset --local-dir DIR` and pass the file, or the folder of its "
            "shards, with --input"
        ) from error
    source["records_sha256"] = digest.hexdigest()


def reach(address: str) -> None:
    """Fails at once without network, where ``datasets`` and ``transformers`` would try for half a minute.

    Behind a proxy, which may reach what this machine cannot, nothing is tried.

    Args:
        address: of the hub.

    Raises: OSError if there is no way to it.
    """
    url = urllib.parse.urlsplit(address)
    if url.hostname and not {url.scheme, "all"} & set(urllib.request.getproxies()):
        port = url.port or (80 if url.scheme == "http" else 443)
        socket.create_connection((url.hostname, port), timeout=CONNECT_SECONDS).close()


def is_reachable() -> bool:
    """Whether the hub can be asked, as far as :func:`reach` can tell."""
    import datasets

    try:
        reach(datasets.config.HF_ENDPOINT)
    except OSError:
        return False
    return True
