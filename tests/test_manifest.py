import hashlib
import json

import pytest

from mtrl import manifest
from mtrl.files import Digest
from mtrl.manifest import FormatError, Manifest

WRITTEN = Manifest(step=1200, files={"agent.pt": Digest(3, "ab"), "env.pt": Digest(10, "cd")})


def test_what_is_written_is_read(tmp_path):
    manifest.write(tmp_path, WRITTEN)
    assert manifest.read(tmp_path) == WRITTEN
    assert json.loads((tmp_path / "manifest.json").read_text())["files"]["env.pt"] == {"size": 10, "sha256": "cd"}


def test_every_single_flipped_bit_is_noticed(tmp_path):
    manifest.write(tmp_path, WRITTEN)
    path = tmp_path / "manifest.json"
    content = path.read_bytes()
    for place in range(8 * len(content)):
        flipped = bytearray(content)
        flipped[place // 8] ^= 1 << place % 8
        path.write_bytes(flipped)
        with pytest.raises(ValueError, match=r"manifest\.json is damaged"):
            manifest.read(tmp_path)


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b"7", b"\xff", b'{"step": 1', b"[" * 100_000])
def test_what_is_no_manifest_is_refused_by_name(tmp_path, content):
    (tmp_path / "manifest.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"manifest\.json is damaged"):
        manifest.read(tmp_path)


def test_another_format_is_named_with_its_number(tmp_path):
    content = {"format": 99, "rings": []}
    seal = hashlib.sha256(json.dumps(content).encode()).hexdigest()
    (tmp_path / "manifest.json").write_text(json.dumps(content | {"sha256": seal}) + "\n")
    with pytest.raises(
        FormatError, match=f"is a checkpoint of format 99; this version of mtrl reads format {manifest.FORMAT}"
    ):
        manifest.read(tmp_path)
