"""The console command ``repo-verl``."""

from __future__ import annotations

import argparse
import importlib
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from repo_verl import versions
from repo_verl.evaluate import commands as evaluation
from repo_verl.preflight import __main__ as preflight

Line = tuple[bool, str, str]
"""Good or a problem, what was looked at, what was found."""


def config_dir() -> Path:
    """The folder with RePO's Hydra configurations, installed or in a checkout."""
    package = Path(__file__).resolve().parent
    for folder in (package / "config_files", package.parent / "recipe" / "repo" / "config"):
        if (folder / "repo_trainer.yaml").is_file():
            return folder
    raise FileNotFoundError(f"{package / 'config_files'} has no repo_trainer.yaml: install repo-verl again.")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="repo-verl", description="RePO (arXiv 2506.09340) for verl.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("check", help="versions, registration, names of verl, devices; exit status 1 on a problem")
    commands.add_parser("config-dir", help="print the folder for main_ppo's --config-dir")
    report = commands.add_parser("report", help="report.html, pictures and a table of finished or running runs")
    report.add_argument("runs", nargs="+", type=Path, metavar="RUN_DIR", help="folder with a metrics.jsonl")
    report.add_argument("--output", type=Path, default=Path("."), help="folder to write to (default: here)")
    report.add_argument("--seed", type=int, help="noted in the summary")
    report.add_argument(
        "--watch", type=_seconds, nargs="?", const=30.0, metavar="SECONDS",
        help="write it again every SECONDS (default: 30) until Ctrl-C; the page reads itself again",
    )  # fmt: skip
    evaluation.add_evaluate(commands)
    evaluation.add_compare(commands)
    _add_inspect(commands.add_parser("buffer", help="saved replay buffers"))
    commands.add_parser("preflight", help="what would stop a run, before Ray starts; takes main_ppo's arguments")
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments[:1] == ["preflight"]:  # its flags are Hydra's
        return preflight.main(arguments[1:])
    chosen = parser.parse_args(arguments)
    if chosen.command == "config-dir":
        print(config_dir())
        return 0
    if chosen.command in ("evaluate", "compare"):
        return evaluation.main(chosen)
    if chosen.command == "buffer":
        return importlib.import_module("repo_verl.replay.inspect").main(chosen)
    if chosen.command == "report":
        return make_report(chosen.runs, chosen.output, chosen.seed, chosen.watch)
    return check()


def _add_inspect(buffer: argparse.ArgumentParser) -> None:
    actions = buffer.add_subparsers(dest="action", required=True)
    parser = actions.add_parser("inspect", help="counts, settings, ages, scores and a few rows of a saved buffer")
    parser.add_argument("folder", type=Path, metavar="DIR", help="a run's checkpoints, global_step_N or prompt_replay")
    parser.add_argument("--rows", type=_count, default=3, metavar="N", help="newest rows to print (default: 3)")
    parser.add_argument(
        "--tokenizer", type=Path, metavar="PATH", help="decodes rows (default: that of global_step_N/actor/huggingface)"
    )
    parser.add_argument("--verify", action="store_true", help="check every byte, as loading does")


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is no number of rows: give 0 or more.")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 1 <= seconds <= 86400:
        raise argparse.ArgumentTypeError(f"{text} is no number of seconds from 1 to 86400: put RUN_DIRs before --watch")
    return seconds


def make_report(runs: Sequence[Path], output: Path, seed: int | None, watch: float | None = None) -> int:
    """Write the report and print its table, once or every ``watch`` seconds; 1 if it can't be written."""
    from repo_verl.report import write_report

    shown = None
    try:
        while True:
            text = write_report(runs, output, seed, watch)
            if text != shown:
                print(text)
                beside = "" if watch else ", with report.png, charts/ and summary.json beside it"
                print(f"written: {output / 'report.html'}{beside}", flush=True)
            shown = text
            if watch is None:
                return 0
            time.sleep(watch)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 0


def check() -> int:
    """Print one line per finding; 1 if any is a problem."""
    status = 0
    for good, subject, found in findings():
        print(f"{'ok     ' if good else 'PROBLEM'}  {subject:<22} {found}", flush=True)
        status = status if good else 1
    return status


def findings() -> Iterator[Line]:
    """What `check` looks at, one after the other."""
    has_cpu_extra = versions.has_cpu_extra()
    yield (sys.version_info >= (3, 11), "python", f"{platform.python_version()} (wanted: 3.11 or 3.12)")
    for name, wanted in versions.pinned().items():
        found, tested = versions.installed(name), versions.TESTED.get(name)
        known = f"tested: {', '.join(tested)}" if tested else f"pinned: {wanted}"
        yield (found is not None, name, f"{found or 'not installed'} ({known})")
    yield _attempt("config files", lambda: str(config_dir()))
    if versions.installed("verl") is None:
        yield (False, "registration", "no verl: pip install '.[gpu]' in the checkout or bash run_scripts/setup.sh")
        return
    if has_cpu_extra:
        os.environ.setdefault("VERL_PLATFORM", "cpu")
    yield _attempt("plugin", _plugin)
    yield _attempt("estimator", _estimator)
    yield _attempt("trainer", _trainer)
    for seam, fault in importlib.import_module("repo_verl.trainer.seams").look_at_seams():
        yield (fault is None, "seam", f"found: {seam}" if fault is None else fault)
    yield _attempt("weight sockets", _weight_sockets)
    yield _devices(has_cpu_extra)


def _attempt(subject: str, look: Callable[[], str]) -> Line:
    try:
        return (True, subject, look())
    except Exception as error:  # a finding of its own, printed as a problem
        return (False, subject, f"{type(error).__name__}: {error}")


def _plugin() -> str:
    importlib.import_module("verl")
    plugin = sys.modules.get("repo_verl.plugin")
    if plugin is None:
        raise RuntimeError("verl did not load repo_verl.plugin: unset VERL_USE_EXTERNAL_PLUGINS, or install again")
    plugin.raise_failures()
    return "loaded by import verl"


def _estimator() -> str:
    registry = importlib.import_module("verl.trainer.ppo.core_algos").ADV_ESTIMATOR_REGISTRY
    if "repo" not in registry:
        raise RuntimeError("algorithm.adv_estimator=repo is not registered")
    return "algorithm.adv_estimator=repo is registered"


def _trainer() -> str:
    trainer = importlib.import_module("verl.trainer.ppo.v1").get_trainer_cls("sync")
    if getattr(vars(trainer).get("__new__"), "__module__", None) != "repo_verl.plugin":
        raise RuntimeError(f"trainer_mode=sync is {trainer.__module__}.{trainer.__name__}, which is not RePO's trainer")
    importlib.import_module("repo_verl.trainer.trainer")
    sys.modules["repo_verl.plugin"].raise_failures()
    return "trainer_mode=sync dispatches to RePO"


def _weight_sockets() -> str:
    unknown = importlib.import_module("repo_verl.verl_workarounds.weight_sockets").find_unknown_end()
    return "named by Ray cluster in RePO's runs" if unknown is None else f"named as verl does ({unknown} is not known)"


def _devices(has_cpu_extra: bool) -> Line:
    torch = importlib.import_module("torch")
    count = torch.cuda.device_count()
    if count:
        return (True, "devices", f"{count} x {torch.cuda.get_device_name(0)}")
    return (has_cpu_extra, "devices", f"no GPU, {os.cpu_count()} CPU cores{'' if has_cpu_extra else '; no CPU extra'}")


if __name__ == "__main__":
    sys.exit(main())
