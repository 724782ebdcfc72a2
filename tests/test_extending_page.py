"""What docs/extending.md shows trains as it stands there, cut short; it is also put into a copy of the package."""

import re
import runpy
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from mtrl import evaluate, networks, train
from mtrl.aggregators import make
from mtrl.aggregators.traits import examine
from mtrl.checkpoint import by_step
from mtrl.flags import MODULES
from mtrl.registry import resolve
from tests.pages import ROOT, blocks, commands, in_folder, modules, printed, read, run
from tests.test_train import TINY, records, unchanged_process  # noqa: F401 - a fixture

PAGE = "docs/extending.md"

SHORT = [*TINY, "--warmup-steps", "20", "--eval-every", "0", "--log-every", "50", "--workers", "1"]

TRAINING = [words for words in commands(PAGE) if words[0] == "mtrl.train" and "RUN" not in words]

ENTRIES = re.findall(r'^    ("(\w+)": "mtrl\.(\w+)\.(\w+):(\w+)",)$', read(PAGE), re.MULTILINE)


@pytest.fixture
def place(tmp_path, monkeypatch) -> Iterator[Path]:
    with in_folder(tmp_path, monkeypatch, PAGE):
        yield tmp_path


def test_the_page_shows_a_method_a_network_and_an_environment():
    assert [name for words in TRAINING for name in words if ":" in name] == [
        "my_methods:InverseNorm",
        "my_networks:TaskEmbedding",
        "gymnasium:my_line:Left-v0,my_line:Right-v0",
    ]


@pytest.mark.parametrize("words", TRAINING, ids=str)
def test_a_command_trains_and_its_run_goes_on_where_its_module_is_allowed(place, monkeypatch, capfd, words):
    begin(place, [*words, *SHORT, "--total-steps", "304", "--run-dir", "run"])
    assert max(by_step(place / "run" / "checkpoints")) == 304
    last = records(place / "run", "train")[-1]
    losses = [value for key, value in last.items() if key.startswith("critic_loss/")]
    assert len(losses) in (2, 4)
    assert min(losses) > 0

    allow, *follow = blocks(PAGE, "bash")[-1].replace("RUN", "run").splitlines()
    main = {"mtrl.evaluate": evaluate.main, "mtrl.train": train.main}
    short = {"mtrl.evaluate": ["--goals", "1"], "mtrl.train": ["--total-steps", "320"]}
    for line in follow:
        program, *flags = shlex.split(line)[2:]
        with pytest.raises(SystemExit) as caught:
            main[program]([*flags, *short[program]])
        assert caught.value.code == 2
        assert "would import my_" in capfd.readouterr().err
    variable, equals, value = allow.removeprefix("export ").partition("=")
    assert (variable, equals) == (MODULES, "=")
    monkeypatch.setenv(variable, value)
    for line in follow:
        program, *flags = shlex.split(line)[2:]
        assert main[program]([*flags, *short[program]]) == 0
    assert max(by_step(place / "run" / "checkpoints")) == 320


def begin(place: Path, words: list[str]) -> None:
    """Train in a process of its own where the class is a method, which then finds its module as a reader's would."""
    if "--aggregator.power" in words:
        run(place, "-m", *words)
    else:
        assert train.main(words[1:]) == 0


def test_python_prints_what_its_comments_say(place, capsys):
    (block,) = [block for block in blocks(PAGE, "python") if printed(block)]
    (place / "shown.py").write_text(block)
    runpy.run_path("shown.py")
    assert capsys.readouterr().out.splitlines() == printed(block)


@pytest.mark.usefixtures("place")
def test_the_method_by_hand():
    gradients = torch.tensor([[4.0, 0.0], [0.0, 1.0], [0.0, 0.0]], dtype=torch.float64)
    # Lengths 4 and 1 to the power of -1/2 are 1/2 and 1, divided by their sum 1/3 and 2/3: (4/3, 2/3).
    found = make("my_methods:InverseNorm", power=0.5)(gradients)
    assert torch.allclose(found, torch.tensor([4 / 3, 2 / 3], dtype=torch.float64), rtol=1e-12)
    assert make("my_methods:InverseNorm")(torch.zeros(2, 3)).tolist() == [0, 0, 0]
    assert make("my_methods:InverseNorm")(torch.tensor([[3.0, -5.0]])).tolist() == [3, -5]
    assert examine(make("my_methods:InverseNorm")).needs() == "Gramian"


@pytest.mark.usefixtures("place")
def test_the_network_tells_tasks_apart_by_private_vectors_alone():
    network = resolve(networks.REGISTRY, "network", "my_networks:TaskEmbedding")
    config = network.Config(hidden_dims=(16,), embedding_dim=2)
    built = network(config, input_dim=3, output_dim=1, num_tasks=2, output_bound=1.0)
    shared, private = built.init(torch.Generator().manual_seed(0))
    assert private["embedding"].shape == (2, 2)
    assert shared["hidden.0.weight"].shape == (16, 3 + 2)
    inputs, task = torch.ones(1, 3), torch.zeros(1, dtype=torch.int64)
    first, second = (built(shared, {"embedding": vector}, inputs, task) for vector in private["embedding"])
    assert first.shape == (1, 1)
    assert not torch.allclose(first, second)


def test_a_file_and_a_line_make_them_part_of_the_package(tmp_path):
    shutil.copytree(ROOT / "mtrl", tmp_path / "mtrl", ignore=shutil.ignore_patterns("__pycache__"))
    for line, _, folder, module, cls in ENTRIES:
        file, registry = f"mtrl/{folder}/{module}.py", f"mtrl/{folder}/__init__.py"
        assert f"`{file}`" in read(PAGE)
        assert f"`{registry}`" in read(PAGE)
        (block,) = [block for block in modules(PAGE).values() if f"class {cls}" in block]
        (tmp_path / file).write_text(block)
        table = (tmp_path / registry).read_text()
        (tmp_path / registry).write_text(table.replace("REGISTRY = {\n", f"REGISTRY = {{\n    {line}\n"))
    flags = [word for _, name, folder, _, _ in ENTRIES for word in (f"--{folder[:-1]}", name)]
    assert flags == ["--aggregator", "inverse_norm", "--network", "task_embedding"]
    training = ["--env", "toy", *flags, *SHORT, "--total-steps", "104", "--run-dir", "run"]
    run(tmp_path, "-m", "mtrl.train", *training, path=tmp_path)
    assert max(by_step(tmp_path / "run" / "checkpoints")) == 104
