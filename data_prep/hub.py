"""What comes from the Hugging Face hub: public sets, record by record, and the tokenizer that counts."""

import contextlib
import hashlib
import json
import socket
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from data_prep.records import DataSet
from data_prep.schema import Row


def hub_records(data_set: DataSet, split: str, source: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The records of one of our splits of a hub set, streamed.

    ``source`` gets ``records_sha256`` when the last record is out, of the records as JSON lines with sorted keys.

    Raises: ValueError if the hub set has no such split; OSError saying how to get the file if it cannot be loaded.
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
        raise OSError(
            f"the hub set {name} could not be loaded ({_reason(error)}); on a machine with network "
            f"run `hf download {name} --repo-type dataset --local-dir DIR` and pass the file, or the folder of its "
            "shards, with --input"
        ) from error
    source["records_sha256"] = digest.hexdigest()


def prompt_counter(tokenizer: str) -> Callable[[Row], int]:
    """A function that counts a row's prompt as verl will tokenize it: chat template and generation prompt included.

    Raises: ValueError naming --tokenizer if it cannot be loaded or has no chat template.
    """
    from transformers import AutoTokenizer

    local = True
    try:
        if not Path(tokenizer).exists():
            import datasets

            with contextlib.suppress(OSError):
                reach(datasets.config.HF_ENDPOINT)
                local = False
        loaded = AutoTokenizer.from_pretrained(tokenizer, local_files_only=local)
        loaded.apply_chat_template([{"role": "user", "content": "1"}], add_generation_prompt=True, tokenize=False)
    except Exception as error:
        raise ValueError(
            f"--tokenizer {tokenizer}: cannot be used ({_reason(error)}); pass the folder or the hub name of a model "
            "with a chat template"
        ) from error

    def count(row: Row) -> int:
        text = loaded.apply_chat_template(row["prompt"], add_generation_prompt=True, tokenize=False)
        return len(loaded(text, add_special_tokens=False)["input_ids"])

    return count


def reach(address: str) -> None:
    """Fails with an OSError at once without network, where ``datasets`` would try for half a minute; not if there is a
    proxy, which may reach what this machine cannot.
    """
    url = urllib.parse.urlsplit(address)
    if url.hostname and not {url.scheme, "all"} & set(urllib.request.getproxies()):
        port = url.port or (80 if url.scheme == "http" else 443)
        socket.create_connection((url.hostname, port), timeout=4.0).close()


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
