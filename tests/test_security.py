"""Nothing that is loaded can run code, and nothing listens: what could is listed here with its reason."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

FORBIDDEN = {
    "pickle.load", "pickle.loads", "pickle.Unpickler", "marshal.load", "marshal.loads", "shelve.open",
    "yaml.load", "yaml.full_load", "yaml.unsafe_load", "yaml.load_all", "torch.load", "numpy.load", "np.load",
    "eval", "exec", "compile", "__import__", "os.system", "os.popen",
    "socket.socket", "socket.create_server", "socketserver.TCPServer", "http.server.HTTPServer",
}  # fmt: skip

ALLOWED = {
    ("mtrl/envs/worker_process.py", "pickle.loads"): "orders of the parent, through a pipe that no other process holds",
    ("mtrl/envs/worker_process.py", "socket.socket"): "the worker's end of that pipe, inherited; it has no address",
    ("mtrl/envs/worker_pool.py", "pickle.loads"): "replies of the workers it has started, through the same pipe",
    ("scripts/check_goals.py", "pickle.loads"): "goals that the installed metaworld has just drawn in this process",
}


def risks(source: str) -> Iterator[str]:
    """Yield the calls of a module that could run what they read, or listen."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        is_safe = name == "torch.load" and given.get("weights_only") == "True"
        if (name in FORBIDDEN and not is_safe) or given.get("shell") == "True" or given.get("allow_pickle") == "True":
            yield name


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("torch.load(file)", ["torch.load"]),
        ("torch.load(file, weights_only=False)", ["torch.load"]),
        ("torch.load(file, weights_only=True)", []),
        ("yaml.load(text, Loader=yaml.Loader)", ["yaml.load"]),
        ("yaml.safe_load(text)", []),
        ("subprocess.run(line, shell=True)", ["subprocess.run"]),
        ("subprocess.run(['git'])", []),
        ("np.load(file)", ["np.load"]),
        ("re.compile(x)", []),
        ("eval(text)", ["eval"]),
    ],
)
def test_risks_are_seen(source, found):
    assert list(risks(source)) == found


def test_nothing_runs_what_it_reads_and_nothing_listens_but_for_what_is_listed():
    files = [file for folder in ("mtrl", "scripts") for file in (ROOT / folder).rglob("*.py")]
    assert len(files) > 100
    found = {(str(file.relative_to(ROOT)), name) for file in files for name in risks(file.read_text(encoding="utf-8"))}
    assert found == ALLOWED.keys()
