"""What README.md, CONTRIBUTING.md and docs/ say can be typed, clicked and opened is so."""

import dataclasses
import re
import runpy
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import torch
import yaml

from mtrl import (
    aggregators,
    arguments,
    cli,
    configs,
    doctor,
    evaluate,
    evaluate_options,
    export,
    group,
    record,
    settings,
    sweep,
    train,
)
from mtrl.aggregators import __main__ as listing
from mtrl.checkpoint import by_step
from mtrl.flags import DEFAULTS, flag_of
from mtrl.report import __main__ as report
from tests.pages import PAGES, ROOT, blocks, commands, in_folder, read, run
from tests.test_train import TINY, unchanged_process  # noqa: F401 - a fixture

README = "README.md"

ENVIRONMENTS = "docs/environments.md"

OPTIONS = {
    "mtrl.doctor": doctor.Options,
    "mtrl.evaluate": evaluate_options.Options,
    "mtrl.export": export.Options,
    "mtrl.group": group.Options,
    "mtrl.record": record.Options,
    "mtrl.report": report.Options,
}

ALL = dict.fromkeys((page, tuple(words)) for page in PAGES for words in commands(page))

SUPERVISED = """
import torch
from torch.nn import Linear, ModuleList
from torch.nn.functional import mse_loss as loss_fn
trunk, heads = Linear(3, 4), ModuleList([Linear(4, 1), Linear(4, 1)])
optimizer = torch.optim.SGD([*trunk.parameters(), *heads.parameters()])
x, targets = torch.ones(5, 3), [torch.zeros(5, 1), torch.ones(5, 1)]
jacobian = torch.tensor([[3.0, 0.0], [0.0, 1.0]])
before = trunk.weight.detach().clone()
{}
assert not torch.equal(before, trunk.weight)
assert all(leaf.grad is not None for leaf in [*trunk.parameters(), *heads.parameters()])
assert torch.allclose(direction, torch.tensor([0.5, 0.5])), direction  # both as long as the shorter, weighed by 1/2
"""
"""What the README takes for granted, and what must have happened."""


@pytest.fixture
def place(tmp_path, monkeypatch) -> Iterator[Path]:
    """A folder that holds the pages' modules, and the runs that the pages go on with."""
    with in_folder(tmp_path, monkeypatch, *PAGES):
        started = cli.read(["--env", "mt10", "--aggregator", "aligned"]).to_yaml()
        for name in ("runs/mt10-aligned-0-20261122-101500", "RUN"):
            (tmp_path / name).mkdir(parents=True)
            (tmp_path / name / "config.yaml").write_text(started)
        yield tmp_path


# ------------------------------------------------------------------------------------------------------------- python


def test_the_supervised_example_fills_gradients_and_steps(tmp_path):
    (block,) = [block for block in blocks(README, "python") if "import backward" in block]
    (tmp_path / "shown.py").write_text(SUPERVISED.format(block))
    runpy.run_path(str(tmp_path / "shown.py"))


@pytest.mark.mujoco
def test_the_environment_example_has_the_sizes_it_says(tmp_path):
    (block,) = blocks(ENVIRONMENTS, "python")
    said = "\nprint(obs.shape, step.obs.shape, picture.shape, picture.std() > 10, len(state) > 0)\n"
    (tmp_path / "shown.py").write_text(block + said)
    assert run(tmp_path, "shown.py") == "(10, 2, 39) (10, 2, 39) (1, 1, 480, 480, 3) True True\n"
    assert "(task, env, 39)" in block
    assert "(1, 1, 480, 480, 3)" in block


def test_the_method_example_weighs_and_trains(tmp_path, monkeypatch):
    with in_folder(tmp_path, monkeypatch, README):
        aggregator = aggregators.make("my_inverse:InverseNorm")
        assert aggregator(torch.tensor([[4.0, 0.0], [0.0, 1.0]])).tolist() == pytest.approx([0.8, 0.8])
        assert aggregator(torch.tensor([[0.0, 0.0], [0.0, 1.0]])).tolist() == [
            0.0,
            1.0,
        ]  # nothing, and all to the other
        assert aggregator(torch.zeros(2, 2)).tolist() == [0.0, 0.0]
        (words,) = [words for words in commands(README) if "my_inverse:InverseNorm" in words]
        short = ["--total-steps", "160", "--warmup-steps", "10", "--eval-every", "0", "--run-dir", "run"]
        assert train.main([*words[1:], *TINY, *short]) == 0
        assert max(by_step(Path("run/checkpoints"))) == 160


def test_no_other_block_of_python_goes_unrun():
    assert len(blocks(README, "python")) == 2
    assert len(blocks("docs/running.md", "python")) + len(blocks("docs/evaluating.md", "python")) == 0


# ----------------------------------------------------------------------------------------------------------- commands


def accept(program: str, words: Sequence[str]) -> None:
    """Read a command line with the program's own reader, which ends the process where it refuses it."""
    if program == "mtrl.train":
        cli.parse(words)
    elif program == "mtrl.sweep":
        assert sweep.main([*words, "--dry-run"]) == 0
    elif program in OPTIONS:
        arguments.read(OPTIONS[program], words, program)
    elif program == "mtrl.aggregators":
        assert all(listing.account("aligned" if word == "NAME" else word) for word in words)
    else:
        assert (program, words) == ("mtrl.landscape", []), "a program without a reader here"


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize(("page", "words"), ALL, ids=lambda part: part if isinstance(part, str) else " ".join(part))
def test_a_command_line_is_accepted(page, words):
    del page
    accept(words[0], list(words[1:]))


def test_the_readme_shows_every_program():
    shown = {words[0] for words in commands(README)}
    assert shown == {"mtrl.train", "mtrl.sweep", "mtrl.aggregators", "mtrl.landscape", *OPTIONS}


@pytest.fixture
def measured(tmp_path, monkeypatch) -> list[str]:
    """Train the toy run by its line, cut short, to where the README evaluates it; return what to type after that."""
    (toy,) = [words for words in commands(README) if words[1:5] == ["--env", "toy", "--aggregator", "aligned"]]
    (evaluation,) = [words for words in commands(README) if words[0] == "mtrl.evaluate"]
    short = ["--total-steps", "160", "--warmup-steps", "10", "--eval-every", "80", "--eval-goals", "1"]
    monkeypatch.chdir(tmp_path)
    assert train.main([*toy[1:], *TINY, *short, "--transference-every", "5"]) == 0
    assert toy[-2:] == ["--run-dir", evaluation[1]]
    return evaluation[1:]


def as_if_trained(run_dir: str, words: Sequence[str]) -> list[str]:
    """Put copies of a run where a command line expects runs, with their method and seed; return the folders."""
    folders = [word for word in words if word.startswith("runs/")]
    for folder in folders:
        ((method, seed),) = re.findall(r"(mean|aligned)-(\d)$", folder)
        shutil.copytree(run_dir, folder)
        file = Path(folder, "config.yaml")
        found = yaml.safe_load(file.read_text())
        found |= {"critic.aggregator": method, "actor.aggregator": method, "seed": int(seed)}
        file.write_text(yaml.safe_dump(found, sort_keys=False))
    return folders


def test_the_toy_run_is_evaluated_and_grouped_by_the_lines_that_stand_there(measured, capsys):
    assert evaluate.main([*measured, "--goals", "2"]) == 0
    (run_dir,) = measured
    assert f"written to {run_dir}/evaluations/" in capsys.readouterr().out

    (grouping,) = [words for words in commands(README) if words[0] == "mtrl.group"]
    folders = as_if_trained(run_dir, grouping)
    assert group.main(grouping[1:]) == 0
    assert f"{Path(folders[0]).name} and 1 more: transference of critic, 2 records" in capsys.readouterr().out
    assert Path(folders[0], "groups", "3.sh").is_file()


@pytest.mark.slow
def test_the_line_of_the_report_writes_one(measured):
    (reporting,) = [words for words in commands(README) if words[0] == "mtrl.report"]
    folders = as_if_trained(measured[0], reporting)
    assert report.main(reporting[1:]) == 0
    page = Path("report/index.html").read_text()
    assert len(folders) == 4
    assert all(Path(folder).name in page for folder in folders)


def test_methods_are_listed_and_explained(monkeypatch, capsys):
    for words in [words for words in commands(README) if words[0] == "mtrl.aggregators"]:
        monkeypatch.setattr(sys, "argv", [word.replace("NAME", "aligned") for word in words])
        listing.main()
    said = capsys.readouterr().out
    assert all(re.search(rf"^{name} ", said, re.MULTILINE) for name in aggregators.names())
    assert "Aligned-MTL (Senushkin et al. 2023)" in said


# -------------------------------------------------------------------------------------------------- names in sentences


def all_flags() -> set[str]:
    """Return every flag of every program."""
    chosen = [DEFAULTS, *(DEFAULTS | {"critic.aggregator": name} for name in aggregators.names())]
    of_training = {flag for names in chosen for flag in settings.valid_flags(names)}
    others = {
        flag_of(entry.name) for options in (*OPTIONS.values(), sweep.Options) for entry in dataclasses.fields(options)
    }
    return of_training | others | {"--help"}


@pytest.mark.parametrize("page", [page for page in PAGES if page not in {"CONTRIBUTING.md", "docs/methods.md"}])
def test_every_flag_exists(page):
    others = {"--logdir", "--aggregator.power", "--network.embedding-dim"}  # of TensorBoard; of classes shown there
    lines = [
        line for line in read(page).splitlines() if "python scripts/" not in line and "python -m scripts" not in line
    ]
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z.-]*[a-z]", "\n".join(lines)))
    assert named
    assert named - others <= all_flags()


def test_every_method_and_preset_is_named():
    text = read(README)
    methods = text[text.index("\n## Methods") : text.index("\n## Extend")]
    assert {name for name in aggregators.names() if f"`{name}`" not in methods} == set()
    assert {name for name in configs.names() if f"`{name}`" not in text} == set()
    (count,) = re.findall(r"^\| ways to combine gradients \| (\d+),", text, re.MULTILINE)
    assert int(count) == len(aggregators.names())


# ------------------------------------------------------------------------------------------------------ links and files


def anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub gives the headings of a page."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


RESULTS = sorted((ROOT / "results").glob("*.md"))

LINKS = [
    (page, target)
    for page in (*PAGES, "CHANGELOG.md", "DECISIONS.md", *(f"results/{file.name}" for file in RESULTS))
    for target in re.findall(r"\]\(([^()\s]+)\)", read(page))
    if "://" not in target
]


def test_anchors_are_those_of_github(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# One, two & `three`\n```bash\n# no heading\n```\n## A - B\n")
    assert anchors(page) == {"one-two--three", "a---b"}


@pytest.mark.parametrize(("page", "target"), LINKS)
def test_a_link_leads_somewhere(page, target):
    path, _, anchor = target.partition("#")
    file = (ROOT / page).parent / path if path else ROOT / page
    assert file.exists()
    assert not anchor or anchor in anchors(file)


def test_the_readme_has_links():
    assert len({target for page, target in LINKS if page == README}) > 20


@pytest.mark.parametrize("page", PAGES)
def test_files_that_are_named_exist(page):
    text = read(page)
    named = set(re.findall(r"(?<![\w/])((?:mtrl|tests|scripts|results|docs)/[\w/.-]*\.\w+)", text))
    named |= {f"{name.replace('.', '/')}.py" for name in re.findall(r"python -m (scripts\.\w+)", text)}
    to_be_written = {"mtrl/aggregators/NAME.py", "mtrl/networks/NAME.py", "mtrl/agents/NAME.py", "mtrl/envs/NAME.py"}
    to_be_written |= {"mtrl/configs/NAME.yaml", "mtrl/aggregators/inverse_norm.py", "mtrl/networks/task_embedding.py"}
    assert {name for name in named - to_be_written if not (ROOT / name).exists()} == set()


def test_the_layout_names_every_module():
    text = read(README)
    tree = text[text.index("\nmtrl/\n") : text.index("\ntests/  ")]
    modules = {file.name for file in (ROOT / "mtrl").glob("*.py")} - {"__init__.py"}
    folders = {f"{file.parent.name}/" for file in (ROOT / "mtrl").glob("*/__init__.py")}
    assert set(re.findall(r"[a-z_]+\.py", tree)) - {"mtsac.py", "losses.py"} == modules  # those two are said of agents/
    assert set(re.findall(r"[a-z_]+/", tree)) - {"mtrl/"} == folders


def test_every_page_of_results_is_listed():
    listed = {target for page, target in LINKS if page == "results/README.md"}
    assert {file.name for file in RESULTS} - {"README.md"} <= listed
