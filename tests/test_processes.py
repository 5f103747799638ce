"""Naming, measuring and ending processes of this machine, and removing what they leave on disk."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from guests import wait_until

from bellglass import processes
from bellglass.doors.process_glass import remove_tree
from bellglass.processes import Process, is_running, named

FOREST = """
import os, sys, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        time.sleep(300)
    time.sleep(300)
print('grown', flush=True)
time.sleep(300)
"""


@pytest.fixture
def forest():
    with subprocess.Popen([sys.executable, "-c", FOREST], stdout=subprocess.PIPE, start_new_session=True) as process:
        process.stdout.readline()
        yield process
        processes.kill_family(process.pid)


def test_a_process_is_named_by_its_pid_and_start(forest):
    process = named(forest.pid)
    assert is_running(process)
    assert not is_running(Process(forest.pid, "another time"))
    assert not is_running(Process(forest.pid, ""))


def test_a_zombie_is_not_running(forest):
    process = named(forest.pid)
    forest.kill()
    os.waitid(os.P_PID, forest.pid, os.WEXITED | os.WNOWAIT)
    assert not is_running(process)
    forest.wait()
    assert not is_running(process)


def test_a_pid_that_nobody_has_is_nobody():
    assert processes.start_time(2**22 + 1) is None
    assert not is_running(named(2**22 + 1))


def test_a_family_includes_what_left_the_session(forest):
    assert wait_until(lambda: len(processes.family(forest.pid)) == 3)


def test_a_family_is_ended_to_the_last(forest):
    assert wait_until(lambda: len(processes.family(forest.pid)) == 3)
    members = [named(pid) for pid in processes.family(forest.pid)]
    assert processes.kill_family(forest.pid)
    assert not any(is_running(member) for member in members)


def test_cpu_time_counts_the_dead_and_the_living():
    burn = "import time\nwhile time.process_time() < 0.3: pass\n"
    code = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {burn!r}])\nprint(1, flush=True)\ninput()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        assert 0.25 < processes.cpu_seconds_below(process.pid) < 2.0
        process.kill()


@pytest.mark.parametrize(
    ("text", "seconds"), [("00:01", 1), ("1:02.50", 62.5), ("01:00:00", 3600), ("2-00:00:01", 172801)]
)
def test_the_clock_of_ps_is_understood(text, seconds):
    assert processes.clock_seconds(text) == seconds


def test_the_table_of_ps_agrees_with_proc(monkeypatch, forest):
    wait_until(lambda: len(processes.family(forest.pid)) == 3)
    family = processes.family(forest.pid)
    monkeypatch.setattr(processes, "LINUX", False)
    if not os.path.exists("/bin/ps"):
        pytest.skip("no ps here")
    table = processes._table()
    assert table[forest.pid].parent == os.getpid()
    assert table[forest.pid].alive
    assert processes.start_time(forest.pid) == table[forest.pid].start
    below = {pid for pid in family if pid in table}
    assert below == set(family)


def test_a_workspace_is_removed_whatever_its_permissions_and_links(tmp_path):
    keep = tmp_path / "keep"
    keep.mkdir()
    (keep / "file").write_text("precious")
    folder = tmp_path / "folder"
    (folder / "a" / "b").mkdir(parents=True)
    (folder / "a" / "b" / "c").write_text("x")
    (folder / "a" / "link").symlink_to(keep, target_is_directory=True)
    os.mkfifo(folder / "a" / "fifo")
    (folder / "a" / "b").chmod(0)
    (folder / "a").chmod(0)
    remove_tree(folder)
    assert not folder.exists()
    assert (keep / "file").read_text() == "precious"
    assert keep.stat().st_mode & 0o700 == 0o700


def test_ending_a_family_that_is_gone_waits_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes.time, "sleep", lambda seconds: pytest.fail("it waits"))
    assert processes.kill_family(2**22 + 1)
