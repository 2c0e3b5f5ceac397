"""Files that appear whole or not at all, with O_TMPFILE and without."""

import errno
import os
import signal
import stat
from pathlib import Path

import pytest
from children import forks

from ckbd.codec.files import output


@pytest.fixture(params=["nameless", "no O_TMPFILE", "refused by the file system", "no links to what is open"])
def way(request, monkeypatch):
    """Each way to do it, of which a system may have only the last."""
    real_open, real_link = os.open, os.link

    def refusing(path, flags, *rest, **named):
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(95, "Operation not supported")
        return real_open(path, flags, *rest, **named)

    def unlinkable(source, *rest, **named):
        if str(source).startswith("/proc"):
            raise PermissionError(1, "Operation not permitted")
        return real_link(source, *rest, **named)

    if request.param == "no O_TMPFILE":
        monkeypatch.delattr(os, "O_TMPFILE")
    elif request.param == "refused by the file system":
        monkeypatch.setattr(os, "open", refusing)
    elif request.param == "no links to what is open":
        monkeypatch.setattr(os, "link", unlinkable)
    elif not hasattr(os, "O_TMPFILE"):
        pytest.skip("no O_TMPFILE here")
    return request.param


def test_it_is_there_whole_at_the_end(way, tmp_path):
    for path in (tmp_path / "a.bin", str(tmp_path / "a.bin"), tmp_path / "b"):
        with output.writing(path) as file:
            file.write(b"some")
            file.seek(0)
            file.write(b"S" + b"ome" * 100_000)
            assert not os.path.exists(path) or open(path, "rb").read() == b"S" + b"ome" * 100_000
        assert open(path, "rb").read() == b"S" + b"ome" * 100_000
    assert sorted(os.listdir(tmp_path)) == ["a.bin", "b"]
    (tmp_path / "plain").write_bytes(b"")
    assert (tmp_path / "b").stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_leaves_the_old_file_and_nothing_else(way, error, tmp_path):
    (tmp_path / "a").write_bytes(b"old")
    for name in ("a", "b"):
        with pytest.raises(error), output.writing(tmp_path / name) as file:
            file.write(b"half")
            raise error
    assert os.listdir(tmp_path) == ["a"] and (tmp_path / "a").read_bytes() == b"old"


def test_what_is_no_regular_file_is_not_replaced(way, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("target")
    for name in ("pipe", "folder"):
        with pytest.raises(OSError, match="not a regular file"), output.writing(tmp_path / name):
            pass
    with pytest.raises(OSError), output.writing(tmp_path / "nowhere" / "a"):
        pass
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)
    assert sorted(os.listdir(tmp_path)) == ["folder", "link", "pipe"]


def test_all_is_in_the_file_before_it_has_a_name(tmp_path, monkeypatch):
    real, seen = output._name, []

    def name(descriptor, path):
        seen.append(Path(f"/proc/self/fd/{descriptor}").read_bytes())
        real(descriptor, path)

    monkeypatch.setattr(output, "_name", name)
    with output.writing(tmp_path / "a") as file:
        file.write(b"all of it")
    assert seen == ([b"all of it"] if hasattr(os, "O_TMPFILE") else [])


def test_a_name_that_cannot_be_given_leaves_nothing(tmp_path, monkeypatch):
    def refused(*paths):
        raise OSError(28, "No space left on device")

    (tmp_path / "a").write_bytes(b"old")
    monkeypatch.setattr(os, "replace", refused)
    with pytest.raises(OSError, match="No space left"), output.writing(tmp_path / "a") as file:
        file.write(b"new")
    assert os.listdir(tmp_path) == ["a"] and (tmp_path / "a").read_bytes() == b"old"


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.ENOSPC])
def test_a_refusal_names_the_file_that_was_meant(number, tmp_path, monkeypatch):
    def refused(path, flags, *rest, **named):
        raise OSError(number, os.strerror(number), str(path))

    monkeypatch.setattr(os, "open", refused)
    with pytest.raises(OSError) as caught, output.writing(tmp_path / "a"):
        pass
    assert (caught.value.errno, caught.value.filename) == (number, str(tmp_path / "a"))


@forks
@pytest.mark.skipif(not hasattr(os, "O_TMPFILE"), reason="no O_TMPFILE here")
def test_a_process_that_is_killed_leaves_nothing(tmp_path):
    child = os.fork()
    if child == 0:
        with output.writing(tmp_path / "a") as file:
            file.write(b"half")
            file.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert os.listdir(tmp_path) == []
