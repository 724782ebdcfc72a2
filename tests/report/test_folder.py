import json

import pytest

from mtrl.flags import UsageError
from mtrl.report.folder import LIST, replace


def report(folder, *names):
    with replace(folder) as place:
        for name in names:
            (place / name).write_text("new")


def test_an_earlier_report_gives_way_and_other_files_stay(tmp_path):
    folder = tmp_path / "deep" / "report"
    report(folder, "index.html", "tasks.png")
    (folder / "notes.txt").write_text("mine")
    report(folder, "index.html", "success.png")
    assert {path.name for path in folder.iterdir()} == {"index.html", "success.png", "notes.txt", LIST}


def test_a_folder_with_other_files_is_refused_untouched(tmp_path):
    (tmp_path / "index.html").write_text("mine")
    with pytest.raises(UsageError, match=r"holds other files, such as index\.html"):
        report(tmp_path, "index.html")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("index.html", "mine")]


def test_a_foreign_file_in_the_way_is_refused_and_the_earlier_report_stays(tmp_path):
    report(tmp_path, "index.html")
    (tmp_path / "tasks.png").write_text("mine")
    with pytest.raises(UsageError, match=r"tasks\.png belongs to no report"):
        report(tmp_path, "tasks.png")
    assert (tmp_path / "tasks.png").read_text() == "mine"
    assert (tmp_path / "index.html").exists()


def test_the_list_names_no_file_outside(tmp_path):
    folder, outside = tmp_path / "report", tmp_path / "outside.txt"
    report(folder, "index.html")
    outside.write_text("mine")
    (folder / LIST).write_text(json.dumps(["../outside.txt", "index.html", LIST]))
    report(folder, "index.html")
    assert outside.exists()


def test_a_report_that_fails_leaves_the_earlier_one(tmp_path):
    report(tmp_path, "index.html")
    with pytest.raises(ZeroDivisionError), replace(tmp_path) as place:
        (place / "index.html").write_text(str(1 / 0))
    assert {path.name for path in tmp_path.iterdir()} == {"index.html", LIST}


def test_a_file_in_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "report").write_text("mine")
    with pytest.raises(UsageError, match="--output: cannot write"):
        report(tmp_path / "report", "index.html")
