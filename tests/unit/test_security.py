"""What our code may not do: run what it reads, hang on it, write where data says, or show secrets."""

import ast
import json
import re
import resource
import time
from pathlib import Path

import pytest
import report_logs
from fuzzing import MARKER, ROOT
from grading_cases import honest_rows
from test_fuzz_data_prep import CHATS

from data_prep import cli as data_prep
from repo_verl import cli, secrets
from repo_verl.config import RepoConfigError
from repo_verl.evaluate import Protocol, run
from repo_verl.evaluate.benchmarks import Benchmarks, Problem, benchmark_name
from repo_verl.evaluate.completions import Completion, Store
from repo_verl.evaluate.model import resolve
from repo_verl.rewards import compute_score
from repo_verl.rewards.extract import extract_answer
from repo_verl.rewards.score import gold_is_verifiable

# --- nothing that is read is run -------------------------------------------------------------------------------------

MODULES = {
    "pickle", "cPickle", "_pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib", "jsonpickle", "dbm", "pty",
    "runpy", "imp", "telnetlib",
}  # fmt: skip
CALLS = {
    "eval", "exec", "compile", "os.system", "os.popen", "sympify", "sympy.sympify", "parse_expr", "yaml.unsafe_load",
    "yaml.full_load", "yaml.load_all", "pandas.read_pickle", "builtins.eval", "builtins.exec", "input", "S",
    "lambdify", "sympy.lambdify",
}  # fmt: skip
ALLOWED = {
    # `python -c CODE` of Ray's and multiprocessing's own start of workers: the command line of this user's processes
    ("repo_verl/cpu/fork_server.py", "exec"): 1, ("repo_verl/cpu/fork_server.py", "compile"): 1,
    ("repo_verl/cpu/fork_server.py", "runpy"): 1,
    # repo_verl.report's loader is a subclass of yaml.SafeLoader, which the test below looks at
    ("repo_verl/report/provenance.py", "yaml.load"): 1,
}  # fmt: skip


def forbidden(tree):
    """Names of what may not be imported or called, in a module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            yield from (name for name in names if name.split(".")[0] in MODULES)
        if isinstance(node, ast.Attribute) and node.attr == "ExprExtractionConfig":
            yield "ExprExtractionConfig"  # Math-Verify's reading by sympy.parse_expr, which evaluates Python
        if isinstance(node, ast.keyword):
            yield from _keyword(node)
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            safe = any(
                keyword.arg == "weights_only" and ast.unparse(keyword.value) == "True" for keyword in node.keywords
            )
            if name in CALLS or name == "yaml.load" or name == "torch.load" and not safe:
                yield name


def _keyword(node):
    value = ast.unparse(node.value)
    wrong = {"shell": "True", "allow_pickle": "True", "trust_remote_code": "True", "weights_only": "False"}
    if node.arg in wrong and value != str(wrong[node.arg] == "False"):
        yield f"{node.arg}={value}"
    if node.arg == "allow_pickle" and value == "True":
        yield node.arg


def test_nothing_is_unpickled_or_evaluated():
    found = {}
    for path in sorted([*(ROOT / "repo_verl").rglob("*.py"), *(ROOT / "data_prep").rglob("*.py")]):
        for name in forbidden(ast.parse(path.read_text())):
            key = (str(path.relative_to(ROOT)), name)
            found[key] = found.get(key, 0) + 1
    assert found == ALLOWED


@pytest.mark.parametrize(
    "source",
    [
        "import pickle", "from cloudpickle import loads", "import dill as d", "eval('1')", "exec(x)", "torch.load(p)",
        "torch.load(p, weights_only=False)", "np.load(p, allow_pickle=True)", "yaml.load(x)", "os.system('x')",
        "subprocess.run(x, shell=True)", "LLM(trust_remote_code=True)", "sympy.sympify(x)", "sympy.lambdify(x, y)",
        "math_verify.ExprExtractionConfig()", "LLM(trust_remote_code=flag)",
    ],
)  # fmt: skip
def test_the_look_at_the_source_sees(source):
    assert list(forbidden(ast.parse(source)))


def test_the_loader_of_settings_is_a_safe_one():
    import yaml

    from repo_verl.report.provenance import _PlainLoader

    assert _PlainLoader.yaml_constructors is yaml.SafeLoader.yaml_constructors


EXPLOITS = [
    f"__import__('os').system('touch {MARKER}')",
    f"__import__('pathlib').Path('{MARKER}').touch()",
    rf"\text{{__import__('os').system('touch {MARKER}')}}",
    rf"\operatorname{{__import__}}('os').system('touch {MARKER}')",
    f"().__class__.__base__.__subclasses__()[0]; open('{MARKER}','w')",
    f"[x for x in ().__class__.__mro__[1].__subclasses__()]+open('{MARKER}', 'w').write('1')",
    f"lambda: open('{MARKER}','w')", f"exec(\"open('{MARKER}','w')\")", f"eval('open(\\'{MARKER}\\',\\'w\\')')",
    rf"\begin{{cases}} open('{MARKER}','w') \end{{cases}}", f"x.subs(x, open('{MARKER}','w'))", f"$(touch {MARKER})",
    f"`touch {MARKER}`", f"; touch {MARKER} #", rf"\write18{{touch {MARKER}}}", rf"\input{{|touch {MARKER}}}",
    f"!!python/object/apply:os.system ['touch {MARKER}']", "{0.__class__.__init__.__globals__}", "%(x)s%n",
]  # fmt: skip


@pytest.mark.parametrize("exploit", EXPLOITS, ids=range(len(EXPLOITS)))
def test_answers_and_golds_are_never_run(exploit):
    MARKER.unlink(missing_ok=True)
    for answer, gold in ((exploit, "x+1"), ("x+1", exploit), (f"{exploit}+1", f"1+{exploit}")):
        result = compute_score("a", rf"so \boxed{{{answer}}}", gold, {"x": exploit})
        assert result["status"] in ("ok", "no_answer", "timeout", "error", "gold_unparseable")
    gold_is_verifiable(exploit)
    assert not MARKER.exists()


CONTEXTS = (
    "{}", "1+{}", r"\frac{{{}}}{{2}}", r"\max({},1)", r"\gcd({},2)", r"\operatorname{{gcd}}({},2)", "f({})", "x_{{{}}}",
    r"\sqrt[{}]{{2}}", r"\sum_{{k={}}}^{{3}} k", r"\int {} dx", r"\begin{{pmatrix}} {} \\ 1 \end{{pmatrix}}",
    r"\log_{{{}}} 2",
    r"\operatorname{{{}}}(x)", r"\mathrm{{{}}}", "({},1)", r"\{{{}\}}", "{}=x",
)  # fmt: skip


NUMBER_CODE = re.compile(r"(?:Integer|Float|Rational) \('?[0-9.eE+-]{1,600}'? \)")


def test_sympy_evaluates_numbers_alone(monkeypatch):
    """Math-Verify and latex2sympy call sympify and parse_expr, which run Python where they are given text."""
    import sympy.parsing.sympy_parser as parser

    from repo_verl.rewards import symbolic

    evaluated, evaluate = [], parser.eval_expr
    monkeypatch.setattr(parser, "eval_expr", lambda code, *rest: evaluated.append(code) or evaluate(code, *rest))
    texts = [context.format(exploit) for context in CONTEXTS for exploit in EXPLOITS]
    for text in [*texts, *(text for pair in honest_rows() for text in pair[:2])]:
        try:
            symbolic.parse(text)
        except Exception:  # whatever the engine makes of it
            continue
    assert len(evaluated) > 200 and [code for code in evaluated if not NUMBER_CODE.fullmatch(code.strip())] == []
    assert parser.parse_expr("1+1") == 2 and NUMBER_CODE.fullmatch(evaluated[-1].strip()) is None  # the hook sees all


def test_data_files_are_never_run(tmp_path, capsys):
    MARKER.unlink(missing_ok=True)
    source = tmp_path / "gsm8k_train.jsonl"
    records = [{"question": f"{exploit} = ?", "answer": f"so #### {exploit}"} for exploit in EXPLOITS]
    source.write_text(
        "".join(json.dumps(record) + "\n" for record in [*records, {"question": "1+1?", "answer": "#### 2"}])
    )
    arguments = ["--input", str(source), "--output", str(tmp_path / "out"), "--quiet", "--filter-unverifiable"]
    assert data_prep.main(["gsm8k", *arguments]) == 0
    assert not MARKER.exists()


# --- completions are bounded -----------------------------------------------------------------------------------------

TEN = 10_000_000
HUGE = {
    "spaces": " " * TEN, "backslashes": "\\" * TEN, "boxes": r"\boxed" * (TEN // 6),
    "box-spaces": r"\boxed" + " " * TEN,
    "many-box-spaces": (r"\boxed" + " " * 1000 + "x") * 5000, "think-tags": "<think>" * (TEN // 7),
    "closing-tags": "</think>" * (TEN // 8) + r"\boxed{1}", "dollars": "$" * TEN,
    "braces": r"\boxed{" + "{}" * (TEN // 2),
    "nested": r"\boxed{" * (TEN // 7) + "}" * (TEN // 7), "digits": r"\boxed{" + "9" * TEN + "}",
    "newlines": "\n" * TEN,
    "boxed-letters": r"\boxeda" * (TEN // 7), "surrogates": "\ud800" * (TEN // 4), "emoji": "\U0001f600" * (TEN // 4),
    "combining": "a" + "\u0301" * (TEN // 2),
}  # fmt: skip
SHORT = {
    # as long as an answer may be, in forms that make a careless expression try all ways
    "commas": ",".join(["1"] * 250), "open": "(" * 500, "brackets": "[(" * 250, "signs": "+-" * 250,
    "spaces": "1" + " " * 500 + "x",
    "digits-spaces": "1 " * 250, "backslashes": "\\" * 501, "text": r"\text{" * 80, "units": "1 " + "cm " * 160,
    "powers": "9^" * 250 + "9", "big-power": "9^{9^{9^{9}}}", "exponent": "1e" + "9" * 500,
    "factorials": "9" + "!" * 500,
    "fractions": r"\frac" * 100, "and": " and " * 100, "pm": r"\pm" * 160, "equals": "=" * 500, "percent": "%" * 500,
    "zeros": "0." + "0" * 505 + "1", "groups": "1,234," * 80, "letters": "a" * 510, "long-division": "1/" * 250 + "1",
    "cases": r"\begin{cases}" * 35, "roots": r"\sqrt{" * 80 + "}" * 80, "bars": "|" * 500, "primes": "f" + "'" * 500,
    "circ": r"^\circ" * 100, "mixed": "1 1/2 " * 80, "inf": r"\infty" * 80, "sum": r"\sum_{k=1}^{10^9} k^k",
}  # fmt: skip


@pytest.mark.parametrize("template", ["boxed", "think"])
def test_huge_completions_take_little_time_and_memory(template):
    """The parent's part alone, which has no clock: linear, and no copy of more than a few times the text."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for name, text in HUGE.items():
        start = time.process_time()
        result = compute_score("a", text, "7", template=template)
        spent = time.process_time() - start
        assert spent < 2.0 and result["score"] == 0.0 and len(result["extracted"]) <= 512, (name, spent)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 256 << 10


@pytest.mark.parametrize("name", SHORT)
def test_no_expression_tries_all_ways(name):
    """Extraction and the cheap rules, in this process; what they leave to the engine has its own limits."""
    from repo_verl.rewards.compare import verdict
    from repo_verl.rewards.structure import TooDeep

    body = SHORT[name][:512]
    for answer, gold in ((body, "7"), (body, body[:-1] + "7"), ("7", body)):
        start = time.process_time()
        extract_answer(rf"\boxed{{{answer}}}")
        try:
            verdict(answer, gold, None)
        except TooDeep:
            pass
        assert time.process_time() - start < 0.5, name


# --- paths from data stay in the output folder -----------------------------------------------------------------------

NAMES = (
    "../../x", "../x", "..", ".", "/etc/x", "a/b", "a\\b", "C:\\x", "CON", "nul.txt", " x", "x ", ".hidden", "a%2Fb",
    "-rf",
    "~", "$HOME", "é", "\U0001f600", "x" * 64, "*", "?", "a b", "%", "%00", "completions",
)  # fmt: skip


def tree(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


@pytest.mark.parametrize("name", NAMES)
def test_a_benchmarks_name_names_one_file_in_the_folder(name, tmp_path):
    output = tmp_path / "a" / "b" / "out"
    store = Store(output, {"seed": 1})
    assert benchmark_name(name) == name
    store.add(name, "../0", [Completion("x", 1, "stop")])
    assert Store(output, {"seed": 1}).finished == {(name, "../0"): [Completion("x", 1, "stop")]}
    left = tree(tmp_path) - {"a", "a/b", "a/b/out", "a/b/out/settings.json", "a/b/out/completions"}
    assert len(left) == 1 and left.pop().startswith("a/b/out/completions/")


@pytest.mark.parametrize("name", ["", " ", "a\0b", "a\nb", "x" * 65, "\x1b[31m", "\u202ex", "\ud800", None, 5, True])
def test_a_name_that_cannot_be_shown_is_refused(name):
    with pytest.raises(ValueError, match="printable text"):
        benchmark_name(name)


def test_a_link_in_the_place_of_completions_is_not_written_to(tmp_path):
    Store(tmp_path / "out", {"seed": 1})
    victim = tmp_path / "victim"
    victim.write_text("not cut short")
    (tmp_path / "out" / "completions" / "a.jsonl").symlink_to(victim)
    with pytest.raises(ValueError, match="is a link"):
        Store(tmp_path / "out", {"seed": 1})
    assert victim.read_text() == "not cut short"


@pytest.mark.parametrize("text", ["../../x", "5/../../x", "-1", "", "\0", "9" * 30, "٣", "1\n2"])
def test_a_tracker_file_names_a_step_alone(text, tmp_path):
    (tmp_path / "latest_checkpointed_iteration.txt").write_text(text)
    with pytest.raises(ValueError, match="want the number of a step"):
        resolve(str(tmp_path), tmp_path / "work")


def test_names_in_records_name_no_file(tmp_path, capsys):
    source = tmp_path / "in" / "math500_test.jsonl"
    source.parent.mkdir()
    rows = [{**row, "data_source": "../../x", "extra_info": {"id": "/etc/x", "split": "test"}} for row in CHATS]
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert data_prep.main(["math500", "--input", str(source), "--output", str(tmp_path / "a" / "out"), "--quiet"]) == 0
    assert tree(tmp_path / "a") == {"out", "out/math500.json", "out/math500_test.parquet"}


def test_an_account_names_no_file_elsewhere(tmp_path, capsys):
    """Its names are not looked up outside its folder."""
    import hashlib

    victim, output = tmp_path / "victim.parquet", tmp_path / "out"
    victim.write_bytes(b"x")
    output.mkdir()
    name, digest = "../victim.parquet", hashlib.sha256(b"x").hexdigest()
    (output / "arithmetic.json").write_text(
        json.dumps({"set": "arithmetic", "files": {name: {}}, "source": {"made": "x"}, "sha256": {name: digest}})
    )
    arguments = ["--train-size", "4", "--test-size", "2", "--output", str(output), "--quiet"]
    assert data_prep.main(["arithmetic", *arguments]) == 0
    assert name not in (output / "arithmetic.json").read_text()


def test_names_of_runs_and_metrics_name_no_file(tmp_path, capsys):
    folder = tmp_path / "runs" / "..%2F<b>é"
    entries = [
        (step, {**data, "../../metric": 1.0, "<script>": float("nan")})
        for step, data in report_logs.steps("repo", 0, 6)
    ]
    report_logs.write_log(folder, entries)
    before = tree(tmp_path / "runs")
    assert cli.main(["report", str(folder), "--output", str(tmp_path / "a" / "out")]) == 0
    assert tree(tmp_path / "runs") == before and {path.name for path in tmp_path.iterdir()} == {"runs", "a"}
    assert "<b>é" not in (tmp_path / "a" / "out" / "report.html").read_text()


# --- secrets ---------------------------------------------------------------------------------------------------------

SECRET = "hunter2-never-shown-9b1f"
TOKEN = "hf_" + "AbCdEfGh" * 4
CONFIG = {
    "reward": {
        "custom_reward_function": {"reward_kwargs": {"api_key": SECRET, "judge_url": f"https://me:{SECRET}@judge/v1"}},
    },
    "algorithm": {"adv_estimator": "repo", "repo": {"strategy": "recency"}},
    "actor_rollout_ref": {"model": {"path": f"https://user:{SECRET}@host/model"}, "rollout": {"n": 8}},
    "data": {"train_files": [f"s3://key:{SECRET}@bucket/a.parquet"], "prompt_key": "prompt"},
    "trainer": {"env": {"WANDB_API_KEY": SECRET, "HF_TOKEN": TOKEN}, "args": [f"+x.HF_TOKEN={SECRET}", TOKEN]},
}


@pytest.mark.parametrize("mark", [secrets.fingerprint, secrets.hidden])
def test_secrets_are_replaced(mark):
    redacted = secrets.redact(CONFIG, mark)
    text = json.dumps(redacted)
    assert SECRET not in text and TOKEN not in text
    assert redacted["algorithm"] == CONFIG["algorithm"] and redacted["data"]["prompt_key"] == "prompt"
    assert redacted["actor_rollout_ref"]["rollout"] == {"n": 8} and redacted.keys() == CONFIG.keys()


@pytest.mark.parametrize("text", [
    "gsk_" + "a1" * 12, "nvapi-" + "a-b_" * 6, "https://hooks.slack.com/services/T0/B0/" + "x" * 24,
    "Authorization: Bearer " + "ab.cd-" * 4, "AKIA" + "A1" * 8,
])  # fmt: skip
def test_known_spellings_are_replaced_wherever_they_are(text):
    secret = text.split("Bearer ")[-1].split("/services/")[-1]
    assert secret not in json.dumps(secrets.redact({"args": ["--x", text]}, secrets.hidden))


def test_equal_secrets_have_one_fingerprint_and_others_another():
    first, second, other = ({"api_key": value} for value in ("a", "a", "b"))
    assert secrets.redact(first) == secrets.redact(second) != secrets.redact(other)
    assert secrets.redact(secrets.redact(first)) != first and secrets.redact(first, secrets.hidden) == {
        "api_key": "[secret]"
    }


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("api_key", "x"), ("apiKey", "x"), ("WANDB_API_KEY", "x"), ("HF_TOKEN", "x"), ("hf_token", "x"), ("PASSWORD",
        12345),
        ("client_secret", "x"), ("passwd", "x"), ("aws_access_key_id", "x"), ("credentials", {"user": "a", "n": [1]}),
        ("key", "x"), ("private_key", "x"), ("x.y.token", "x"), ("Authorization", "Bearer abc"), ("tokens_secret", "x"),
        ("url", "https://a:b@c"), ("url", "https://token@c"), ("text", "x HF_TOKEN=abc y"), ("text", "password: abc"),
        ("text", "sk-abcdefghijklmnopqrst"), ("text", "AKIAABCDEFGHIJKLMNOP"), ("text", "ghp_" + "a" * 36), ("pwd",
        "x"),
        ("text", "-----BEGIN RSA PRIVATE KEY-----"), ("text", "Authorization: Bearer abc"), ("text",
        "https://h/x?api_key=abc"),
    ],
)  # fmt: skip
def test_what_is_a_secret(name, value):
    assert secrets.redact({name: value}) != {name: value}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_tokens", 2048), ("tokenizer", "a/b"), ("max_token_len_per_gpu", 16384), ("prompt_key", "prompt"),
        ("lr", 1e-6),
        ("reward_fn_key", "data_source"), ("eos_token", "<eos>"), ("path", "/a/b"), ("url", "https://host/path"),
        ("token", None),
        ("use_token", True), ("monkey", "x"), ("keyboard", "x"), ("text", "the token is big"), ("total_tokens", 5),
        ("seed", 1),
        ("text", "max_tokens=5"), ("loss_agg_mode", "seq-mean-token-mean"), ("author", "x"), ("email", "a@b"),
    ],
)  # fmt: skip
def test_what_is_no_secret(name, value):
    assert secrets.redact({name: value}) == {name: value}


@pytest.mark.parametrize(
    "text", ["token=" * 20_000, "a" * 100_000, "://" * 30_000, "hf_" * 30_000, "eyJ" + "a." * 40_000]
)
def test_redaction_is_linear(text):
    start = time.process_time()
    secrets.redact({"a": text, "A" * 50_000: "x"})
    assert time.process_time() - start < 2.0


@pytest.fixture
def secret_environment(monkeypatch):
    for name in ("WANDB_API_KEY", "HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "MY_PASSWORD"):
        monkeypatch.setenv(name, SECRET)


def everything_in(folder):
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("kind", ["yaml", "printed"])
def test_reports_show_no_secret(kind, tmp_path, capsys, secret_environment):
    import yaml

    runs = [report_logs.write_log(tmp_path / "runs" / name, report_logs.steps("repo", 0, 6)) for name in ("a", "b")]
    for number, folder in enumerate(runs):
        config = {**CONFIG, "extra": {"api_key": f"{SECRET}{number}"}}
        if kind == "yaml":
            (folder / "config.yaml").write_text(yaml.safe_dump(config))
        else:
            (folder / "train.log").write_text(f"{dict(sorted(config.items()))!r}\n")
    assert cli.main(["report", *map(str, runs), "--output", str(tmp_path / "out")]) == 0
    written = everything_in(tmp_path / "out")
    assert b"actor_rollout_ref.model.path" in written and b"[secret]" in written
    assert SECRET.encode() not in written and TOKEN.encode() not in written
    shown = capsys.readouterr()
    assert SECRET not in shown.out + shown.err


def test_evaluations_keep_no_secret(tmp_path, monkeypatch, caplog, secret_environment):
    problem = Problem("aime24", "0", [{"role": "user", "content": "1+1?"}], "2", None)
    seen = []

    def answers(model, protocol, problems, engine):
        seen.append(engine)
        for each in problems:
            yield each, [Completion(r"\boxed{2}", 3, "stop")]

    monkeypatch.setattr(run, "generate", answers)
    benchmarks, protocol = Benchmarks({"aime24": [problem]}, {"f": "0"}), Protocol(samples={}, default_samples=1)
    engine = {"hf_token": SECRET, "seed": 1}
    run.evaluate("owner/model", benchmarks, tmp_path / "out", protocol, engine)
    assert seen == [engine] and SECRET.encode() not in everything_in(tmp_path / "out")
    with pytest.raises(ValueError, match="holds completions made with engine") as error:
        run.evaluate("owner/model", benchmarks, tmp_path / "out", protocol, {**engine, "hf_token": "other"})
    assert SECRET not in str(error.value) and SECRET not in caplog.text


def test_a_broken_engine_argument_is_not_repeated(tmp_path, capsys):
    arguments = ["--model", "a/b", "--benchmarks", str(tmp_path), "--output", str(tmp_path / "out")]
    assert cli.main(["evaluate", *arguments, "--engine", f'{{"hf_token": "{SECRET}"']) == 1
    assert SECRET not in capsys.readouterr().err


def test_no_module_logs_the_environment_or_a_whole_configuration():
    """Calls of loggers take no environment and no configuration."""
    for path in sorted((ROOT / "repo_verl").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func).startswith("logger."):
                arguments = " ".join(ast.unparse(argument) for argument in node.args)
                assert "environ" not in arguments and not arguments.endswith((" config", " settings")), (
                    path,
                    arguments,
                )


def test_messages_about_settings_are_short():
    from repo_verl.trainer.validation import check_config

    with pytest.raises(RepoConfigError) as error:
        check_config({"algorithm": {"repo": {"strategy": "x" * 10_000 + "\n" * 10}}})
    assert len(str(error.value)) < 600 and "\n" not in str(error.value)
    assert Path(MARKER).is_absolute()
