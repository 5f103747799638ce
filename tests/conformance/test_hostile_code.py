"""Bundle code that hangs, hogs, forks, fills and leaves things behind: the guest ends, and the machine is as before."""

from __future__ import annotations

import os
import re
import time

import pytest
from guests import begin, listen, process_guest_runs, spec, wait_until

from bellglass.errors import GuestFault
from bellglass.records import Role

# Holds the interpreter's lock inside a C call, as a broken extension would.
HOLD_INTERPRETER = "import ctypes; print('held', flush=True); ctypes.PyDLL(None).sleep({})"


def test_a_guest_that_hangs_is_ended_at_its_deadline(opened):
    guest = opened(deadline=1.0)
    begin(guest, "import time; time.sleep(60)")
    assert listen(guest).why == "timeout"


def test_bundle_code_that_holds_the_interpreter_stops_neither_beats_nor_the_deadline(opened):
    guest = opened(deadline=8.0)
    begin(guest, HOLD_INTERPRETER.format(60))
    listen(guest, until=lambda seen: b"held" in seen.out)
    before = guest.line.bytes_in
    assert wait_until(lambda: guest.line.bytes_in > before, 6.0)  # a beat; at the deadline there would be more
    assert listen(guest).why == "timeout"


def test_a_guest_that_does_not_read_for_a_while_gets_everything_after_all(opened):
    def answer(guest, request):
        guest.send_file("data/tokens.npy", bytes(40_000_000))
        guest.send("reply", id=request.id, ok=True, value=None)

    guest = opened()
    hold = "ctypes.PyDLL(None).usleep(600_000)"
    begin(
        guest,
        "import ctypes, glass, os\nglass._link.send('request', id=1, op='data', args={})\n"
        f"import time; time.sleep(0.02); {hold}\n"
        "size = lambda: os.path.exists('data/tokens.npy') and os.path.getsize('data/tokens.npy')\n"
        "while size() < 40_000_000: time.sleep(0.05)\n",
    )
    assert listen(guest, answer).why == "ok"


def test_a_log_flood_costs_the_guest_its_words_and_nothing_else(opened):
    guest = opened()
    begin(guest, "import sys\nfor _ in range(800): sys.stdout.write('x' * 9999 + '\\n')\nprint('end', file=sys.stderr)")
    seen = listen(guest)
    assert seen.why == "ok"
    assert len(seen.out) <= 4 << 20


def test_what_is_left_running_is_ended_with_the_guest(opened):
    guest = opened()
    begin(guest, "import subprocess; print(subprocess.Popen(['sleep', '300']).pid)")
    assert listen(guest).why == "ok"  # and is not waited for, although the sleeper holds its output open


@pytest.mark.behaviour("escapees_end")
def test_what_leaves_its_session_and_its_parent_is_ended_with_the_guest(opened, glass):
    guest = opened()
    begin(
        guest,
        "import os, time\nif os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0:\n"
        "        print(os.getpid(), flush=True)\n        time.sleep(300)\n    os._exit(0)\ntime.sleep(0.3)\n",
    )
    seen = listen(guest)
    assert seen.why == "ok"
    guest.end()
    if glass.name == "process":
        assert wait_until(lambda: not os.path.exists(f"/proc/{int(seen.out)}"))


@pytest.mark.behaviour("supervisor_unkillable")
def test_a_child_cannot_signal_its_supervisor_away(opened):
    guest = opened()
    begin(
        guest,
        "import contextlib, os, signal, time\n"
        "for name in ('SIGINT', 'SIGHUP', 'SIGUSR1', 'SIGALRM', 'SIGTERM', 'SIGSTOP', 'SIGKILL'):\n"
        "    with contextlib.suppress(PermissionError):\n"
        "        os.kill(os.getppid(), getattr(signal, name)); time.sleep(0.05)\n"
        "print('served')\n",
    )
    seen = listen(guest, seconds=20)
    assert seen.why == "ok"
    assert seen.out == b"served\n"


def test_a_guest_whose_supervisor_was_killed_is_lost_and_leaves_nothing(glass, home):
    guest = glass.open(spec())
    begin(guest, "import os, signal; os.kill(os.getppid(), signal.SIGKILL); import time; time.sleep(300)")
    assert listen(guest).why == "lost"
    guest.end()
    assert not process_guest_runs(home / guest.id)
    assert not (home / guest.id).exists()


def test_a_guest_that_froze_its_supervisor_is_ended_all_the_same(glass, home):
    guest = glass.open(spec())
    begin(guest, "import os, signal, time; os.kill(os.getppid(), signal.SIGSTOP); time.sleep(300)")
    time.sleep(0.5)
    began = time.monotonic()
    guest.end()
    assert time.monotonic() - began < 25
    assert not process_guest_runs(home / guest.id)


def test_many_processes_are_ended(opened):
    guest = opened()
    begin(
        guest,
        "import os, time\ntry:\n    for _ in range(400):\n        if os.fork() == 0:\n            time.sleep(300)\n"
        "except OSError:\n    os._exit(9)\ntime.sleep(20)\n",
    )
    seen = listen(guest)
    assert seen.why in ("flood", "crashed")
    guest.end()


@pytest.mark.behaviour("processes_limited", safe=False)
def test_a_fork_bomb_is_ended(opened):
    guest = opened(deadline=8.0)
    begin(guest, "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass\n")
    assert listen(guest).why in ("timeout", "crashed", "flood", "lost", "stalled")
    assert guest.end() is not None


def test_memory_beyond_the_limit_is_not_given(opened):
    guest = opened(memory_mb=512)
    begin(guest, "data = bytearray(1_500_000_000)\nfor i in range(0, len(data), 4096): data[i] = 1\nprint('had it')")
    seen = listen(guest)
    exited = guest.end()
    assert seen.out == b""
    assert seen.why in ("crashed", "lost", "memory") or exited.out_of_memory


@pytest.mark.behaviour("memory_limited_in_sum", safe=False)
def test_memory_is_limited_for_all_processes_together(opened):
    guest = opened(memory_mb=512)
    begin(
        guest,
        "import os, time\nchildren = []\nfor _ in range(8):\n    children.append(os.fork())\n"
        "    if children[-1] == 0:\n        data = bytearray(200_000_000)\n"
        "        for i in range(0, len(data), 4096): data[i] = 1\n"
        "        time.sleep(60); os._exit(0)\n"  # none gives its share back
        # Which one is killed is the kernel's choice: perhaps one that had its share already.
        "end = time.monotonic() + 20\nkilled = 0\nwhile not killed and time.monotonic() < end:\n    time.sleep(0.1)\n"
        "    killed = sum(os.WIFSIGNALED(os.waitpid(child, os.WNOHANG)[1]) for child in children)\n"
        "print('killed', killed, flush=True)\n",
    )
    found = re.fullmatch(rb"killed (\d+)\n", listen(guest).out)
    assert found is not None
    assert int(found[1]) > 0


def test_a_file_beyond_a_gigabyte_cannot_be_made(opened):
    guest = opened()
    begin(
        guest, "import signal\nwith open('out/weights.safetensors', 'wb') as f:\n    f.seek(1 << 30)\n    f.write(b'x')"
    )
    seen = listen(guest)
    assert seen.why == "crashed"
    assert not seen.files


@pytest.mark.behaviour("disk_limited_in_sum", safe=False)
def test_filling_the_disk_fails_inside(opened):
    guest = opened(deadline=60.0)
    begin(guest, "for i in range(200):\n    open(f'out/{i}', 'wb').write(bytes(50_000_000))\nprint('wrote it')")
    seen = listen(guest, seconds=50)
    assert seen.why in ("crashed", "lost", "memory")
    assert seen.out == b""


@pytest.mark.parametrize(
    "code",
    [
        "os.symlink('/etc/passwd', 'out/weights.safetensors')",
        "os.mkfifo('out/weights.safetensors')",
        "os.mkdir('out/weights.safetensors')",
        "os.symlink('/dev/zero', 'out/notes.json')",
        "open('out/weights.safetensors', 'wb').truncate(300 << 20)",
        "open('out/notes.json', 'wb').truncate(100_000)",
        "os.rmdir('out')",
    ],
)
def test_results_that_are_no_small_regular_files_do_not_leave(opened, code):
    guest = opened()
    begin(guest, f"import os; {code}")
    seen = listen(guest)
    assert seen.why == "crashed"
    assert not seen.files


def test_a_folder_full_of_files_is_removed_in_good_time(glass, home):
    guest = glass.open(spec())
    begin(
        guest,
        "import os\nfor i in range(5_000): os.close(os.open(f'out/{i}', os.O_CREAT))\n"
        "os.makedirs('a/b'); open('a/b/c', 'w'); os.chmod('a/b', 0); os.chmod('a', 0)\n",
    )
    assert listen(guest).why == "ok"
    guest.end()
    assert not (home / guest.id).exists()


def test_a_warm_role_without_torch_is_still_served_cold(opened):
    guest = opened(Role.TRAIN)
    begin(guest, "import sys; print('torch' in sys.modules)")
    assert listen(guest).out == b"False\n"


def test_closing_a_glass_ends_its_guests(glass):
    mine = type(glass)(warm=False)
    guests = [mine.open(spec()) for _ in range(2)]
    began = time.monotonic()
    mine.close()
    assert time.monotonic() - began < 25
    for guest in guests:
        with pytest.raises(GuestFault):
            guest.send("beat")


def test_reaping_leaves_the_guests_of_living_drivers_alone(opened, glass):
    guest = opened()
    glass.reap()
    begin(guest, "print('here')")
    assert listen(guest).out == b"here\n"
