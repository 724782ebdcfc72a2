import numpy as np
import pytest
import torch

from scripts import compare_runs
from scripts.compare_runs import _different, differences
from tests.small_runs import train

OPTIONS = {"total_steps": 140, "log_every": 40, "eval_every": 0}


def test_trees_differ_where_a_number_type_or_name_does():
    a = {"x": [1, torch.tensor([1.0, torch.nan])], "y": np.array([1, 2]), "z": (1, None), "only": 1, "t": "text"}
    assert list(_different("", a, {**a, "x": [1, torch.tensor([1.0, torch.nan])]})) == []
    b = {"x": [2, torch.tensor([1.0, 2.0])], "y": np.array([1.0, 2.0]), "z": [1, None], "other": 1, "t": "texts"}
    assert list(_different("", a, b)) == [
        "/x/0: 1 and 2",
        "/x/1: tensor([1., nan]) and tensor([1., 2.])",
        "/y: [1 2] and [1. 2.]",
        "/z: tuple and list",
        "/only: only in the first",
        "/t: text and texts",
        "/other: only in the second",
    ]
    assert list(_different("", [1], [1, 2])) == [": [1] and [1, 2]"]
    assert list(_different("", torch.tensor(0.0), torch.tensor(-0.0))) == [": tensor(0.) and tensor(-0.)"]


def test_a_run_equals_itself_and_another_seed_differs_everywhere(capsys, monkeypatch, tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        train(tmp_path / name, seed=seed, **OPTIONS)
    assert differences(tmp_path / "a", tmp_path / "b") == []
    found = {place.split(":")[0] for place in differences(tmp_path / "a", tmp_path / "c")}
    assert "/checkpoint/rows/1" in found
    assert "/TensorBoard/critic_loss/reach-west/0/1" in found
    assert "/metrics.jsonl/2/critic_loss/reach-west" in found
    for others, code in (("b", 0), ("c", 1)):
        monkeypatch.setattr("sys.argv", ["compare_runs.py", str(tmp_path / "a"), str(tmp_path / others)])
        with pytest.raises(SystemExit) as caught:
            compare_runs.main()
        assert caught.value.code == code
    assert capsys.readouterr().out.splitlines().count("the same") == 1


def test_a_record_or_a_step_more_is_noticed(tmp_path):
    train(tmp_path / "a", **OPTIONS)
    train(tmp_path / "b", **OPTIONS | {"total_steps": 144})
    assert differences(tmp_path / "a", tmp_path / "b")
    train(tmp_path / "c", **OPTIONS)
    file = tmp_path / "c" / "metrics.jsonl"
    file.write_text("".join(file.read_text().splitlines(keepends=True)[:-1]))
    assert [place.partition(":")[0] for place in differences(tmp_path / "a", tmp_path / "c")] == ["/metrics.jsonl"]
