"""Secrets in settings: what looks like one is replaced before it is shown or written. No secret store; best effort.

Recognised are names (``api_key``, ``HF_TOKEN``, all below ``credentials``), well-known spellings (``hf_...``, private
keys, ...), ``https://user:password@host`` and ``NAME=value`` in a text. A secret under an innocent name and of no known
spelling is not recognised.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from typing import Any

_SECRET_WORDS = frozenset(
    "token secret secrets password passwd passphrase passcode pwd credential credentials apikey authorization bearer "
    "cookie key keys".split()
)
_CREDENTIALS = ("api_key", "apikey", "access_key", "password", "secret", "credential", "authorization")
"""Parts of names of credentials, needed where a secret word by itself may mean a token of text."""
_NO_SECRETS = frozenset(
    "prompt_key image_key images_key video_key videos_key audio_key audios_key reward_fn_key response_key question_key "
    "answer_key data_key sort_key group_key filter_key metric_key messages_key tools_key system_key eos_token "
    "bos_token pad_token unk_token sep_token cls_token mask_token additional_special_tokens".split()
)
"""Names of columns and of a tokenizer's tokens."""
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")

_USER_INFO = re.compile(r"([A-Za-z][A-Za-z0-9+.-]{0,20}://)([^\s/@'\"]{1,2000})@")
_ASSIGNED = re.compile(
    r"(?i)((?:token|secret|passw(?:or)?d|passphrase|api[-_]?key|access[-_]?key|private[-_]?key|authorization)"
    r"[\"']?\s{0,3}[=:]\s{0,3}[\"']?(?:bearer |basic )?)([^\s\"'&,;{}\[\]]{1,5000})"
)
_SPELLINGS = re.compile(
    r"(?<![A-Za-z0-9])(?:hf_[A-Za-z0-9]{16,200}|sk-[A-Za-z0-9_-]{16,300}|gh[pousr]_[A-Za-z0-9]{16,300}"
    r"|github_pat_[A-Za-z0-9_]{16,300}|glpat-[A-Za-z0-9_-]{16,300}|xox[abposr]-[A-Za-z0-9-]{10,300}"
    r"|A[KS]IA[A-Z0-9]{16}|AIza[A-Za-z0-9_-]{30,60}|eyJ[A-Za-z0-9_-]{8,2000}\.[A-Za-z0-9_-]{8,4000}\.[A-Za-z0-9_-]{0,2000}"
    r"|gsk_[A-Za-z0-9]{16,300}|nvapi-[A-Za-z0-9_-]{16,300}|(?<=hooks\.slack\.com/services/)[A-Za-z0-9/]{16,300}"
    r"|(?<=Bearer )[A-Za-z0-9._~+/=-]{8,5000}"
    r"|-----BEGIN [A-Z ]{0,30}PRIVATE KEY-----)"
)

Mark = Callable[[str], str]
"""What stands for a secret."""


def fingerprint(secret: str) -> str:
    """A mark that is the same for equal secrets: 64 bits of SHA-256, so that a resume sees another one.

    Anyone can try guesses against it: a mark for files that stay with the run, not for pages that are passed on.
    """
    return f"[secret sha256:{hashlib.sha256(secret.encode('utf-8', 'surrogatepass')).hexdigest()[:16]}]"


def hidden(secret: str) -> str:
    """A mark that says nothing."""
    return "[secret]"


def redact_text(text: str, mark: Mark = fingerprint) -> str:
    """The text with each secret that it spells replaced.

    Example:
        >>> redact_text("https://me:pass@host/x?token=abcdef", hidden)
        'https://[secret]@host/x?token=[secret]'
    """
    text = _USER_INFO.sub(lambda found: f"{found[1]}{mark(found[2])}@", text)
    text = _ASSIGNED.sub(lambda found: found[0] if found[2].startswith("[secret") else found[1] + mark(found[2]), text)
    return _SPELLINGS.sub(lambda found: mark(found[0]), text)


def redact(mapping: Mapping[Any, Any], mark: Mark = fingerprint) -> dict[Any, Any]:
    """A copy of settings (mappings, lists, plain values) with each secret replaced, in keys that spell one too.

    Numbers stay, except passwords and what is below a secret name.

    Example:
        >>> redact({"reward_kwargs": {"api_key": "a", "max_tokens": 5}}, hidden)
        {'reward_kwargs': {'api_key': '[secret]', 'max_tokens': 5}}
    """
    return {_redacted(key, mark, False): _redacted(value, mark, _hides(key, value)) for key, value in mapping.items()}


def without_credentials(settings: Mapping[Any, Any]) -> dict[Any, Any]:
    """A copy without the settings that only let a run in somewhere, so that it doesn't change when they do.

    Example:
        >>> without_credentials({"kwargs": {"api_key": "a", "end_token": "b"}})
        {'kwargs': {'end_token': 'b'}}
    """
    return {
        key: without_credentials(value) if isinstance(value, Mapping) else value
        for key, value in settings.items()
        if not any(word in str(key).lower() for word in _CREDENTIALS)
    }


def is_secret_name(name: str) -> bool:
    """Whether a setting of this name, by the last part of a dotted one, holds a secret.

    Example:
        >>> is_secret_name("WANDB_API_KEY"), is_secret_name("data.prompt_key"), is_secret_name("max_tokens")
        (True, False, False)
    """
    last = name.rpartition(".")[2][-200:]
    return last.lower() not in _NO_SECRETS and bool(_words(last) & _SECRET_WORDS)


def _hides(key: Any, value: Any) -> bool:
    """Whether all below a key is secret, by the last part of a dotted one.

    A count, as ``max_token_len``, is none, a number as ``password`` is.
    """
    if not isinstance(key, str) or value is None or isinstance(value, bool) or not is_secret_name(key):
        return False
    return not isinstance(value, int | float) or bool(_words(key) & {"password", "secret", "pwd", "passcode"})


def _words(name: str) -> set[str]:
    return {word.lower() for word in _WORD.findall(name)}


def _redacted(value: Any, mark: Mark, secret: bool) -> Any:
    if isinstance(value, Mapping):
        if secret:
            return {key: _redacted(part, mark, True) for key, part in value.items()}
        return redact(value, mark)
    if isinstance(value, list | tuple):
        return [_redacted(part, mark, secret) for part in value]
    if secret and value is not None and not isinstance(value, bool):
        return mark(value if isinstance(value, str) else repr(value))
    return redact_text(value, mark) if isinstance(value, str) else value
