import errno
import os

import numpy as np
import pytest

from mtrl import files
from mtrl.files import Digest

# FIPS 180-2, appendix B.1
ABC = Digest(3, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")


def test_the_digest_is_that_of_all_chunks_together(tmp_path):
    assert files.write(tmp_path / "file", [b"a", b"", b"bc"]) == ABC
    assert (tmp_path / "file").read_bytes() == b"abc"
    assert files.read(tmp_path / "file", ABC) == b"abc"
    files.check(tmp_path / "file", ABC)


def test_arrays_are_written_as_they_lie_in_memory(tmp_path):
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    digest = files.write(tmp_path / "file", [array.data, array[1].data])
    assert digest.size == 36
    assert np.frombuffer(files.read(tmp_path / "file", digest), np.float32).tolist() == [0, 1, 2, 3, 4, 5, 3, 4, 5]


@pytest.mark.parametrize("use", [files.check, files.read])
def test_another_content_is_refused_by_name(tmp_path, use):
    path = tmp_path / "file"
    path.write_bytes(b"abd")
    with pytest.raises(ValueError, match="file is damaged: its bytes are not those that were written"):
        use(path, ABC)
    path.write_bytes(b"abcd")
    with pytest.raises(ValueError, match="file is damaged: it has 4 bytes, 3 were written"):
        use(path, ABC)
    path.unlink()
    with pytest.raises(FileNotFoundError):
        use(path, ABC)
    path.mkdir()
    with pytest.raises(ValueError, match="file cannot be read: Is a directory"):
        use(path, ABC)


def test_files_longer_than_the_buffer_are_compared_to_their_end(tmp_path):
    content = bytearray(files._READ_BYTES + 100)
    digest = files.write(tmp_path / "file", [memoryview(content)])
    files.check(tmp_path / "file", digest)
    content[-1] ^= 1
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(ValueError, match="damaged"):
        files.check(tmp_path / "file", digest)


def test_a_file_that_cannot_be_written_is_named(monkeypatch, tmp_path):
    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space") as caught:
        files.write(tmp_path / "file", [b"abc"])
    assert caught.value.filename == str(tmp_path / "file")
