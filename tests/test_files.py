"""Files that are written whole or not at all."""

import errno
import os
import stat
import sys

import pytest

from softlan.errors import ConfigError
from softlan.files import file_error, read_text, write_atomically


def test_content_and_mode(tmp_path):
    path = tmp_path / "file"
    write_atomically(path, b"one", mode=0o600)
    write_atomically(path, b"two", mode=0o600)
    assert path.read_bytes() == b"two"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert os.listdir(tmp_path) == ["file"]


def test_the_mode_does_not_hang_on_the_umask(tmp_path):
    former = os.umask(0o077)
    try:
        write_atomically(tmp_path / "file", b"x", mode=0o644)
    finally:
        os.umask(former)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o644


def test_a_failure_leaves_what_was_there(tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def full(_handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.skipif(sys.platform == "win32", reason="directories are POSIX's")
def test_the_new_name_is_on_the_disk_too(tmp_path, monkeypatch):
    path, synced = tmp_path / "file", []

    def spy(handle, fsync=os.fsync):
        fsync(handle)
        synced.append((stat.S_ISDIR(os.fstat(handle).st_mode), path.exists()))

    monkeypatch.setattr(os, "fsync", spy)
    write_atomically(path, b"x")
    assert synced == [(False, False), (True, True)]


def test_a_link_keeps_pointing(tmp_path):
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_bytes(b"old")
    link.symlink_to(target)
    write_atomically(link, b"new")
    assert link.is_symlink()
    assert target.read_bytes() == b"new"


def test_a_pipe_is_written_to_not_replaced(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        write_atomically(pipe, b"through")
        assert os.read(reader, 100) == b"through"
    finally:
        os.close(reader)
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_a_missing_directory_is_the_callers_business(tmp_path):
    with pytest.raises(FileNotFoundError):
        write_atomically(tmp_path / "none" / "file", b"x")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_text_as_editors_write_it(tmp_path, encoding):
    path = tmp_path / "file"
    path.write_text("grüße\n", encoding=encoding)
    assert read_text(path, "the file") == "grüße\n"


@pytest.mark.parametrize(
    ("number", "is_for_a_person"),
    [
        *((number, True) for number in (errno.ENOENT, errno.EACCES, errno.EPERM, errno.EROFS)),
        *((number, True) for number in (errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ELOOP)),
        *((number, False) for number in (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EMFILE, errno.ENFILE)),
        *((number, False) for number in (errno.ENOMEM, errno.ESTALE, errno.ETIMEDOUT)),
    ],
)
def test_what_may_pass_does_not_end_as_a_wrong_setting_does(number, is_for_a_person):
    """At whose status units stop."""
    error = file_error("cannot read x", OSError(number, os.strerror(number)), hint="try")
    assert (str(error), error.hint) == (f"cannot read x: {os.strerror(number)}", "try")
    assert isinstance(error, ConfigError) is is_for_a_person
    assert error.exit_code == (2 if is_for_a_person else 1)


def test_text_as_windows_powershell_writes_it_is_refused_with_what_to_do(tmp_path):
    path = tmp_path / "file"
    path.write_text("grüße\n", encoding="utf-16")
    with pytest.raises(ConfigError, match="cannot read the file: it is not UTF-8 text") as caught:
        read_text(path, "the file")
    assert "UTF-8" in caught.value.hint
    with pytest.raises(ConfigError, match="cannot read the file: No such file"):
        read_text(tmp_path / "none", "the file")
