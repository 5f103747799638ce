"""The life of one guest: files in, code runs, words and results out, the end."""

from __future__ import annotations

import hashlib
import json
import threading
import time

import pytest
from guests import Seen, agree, begin, listen, spec, wait_until

from bellglass.errors import GuestFault
from bellglass.records import Role


def test_bundle_code_runs_in_its_workspace_with_its_arguments(opened):
    guest = opened()
    begin(guest, "import glass, os, json; print(json.dumps([glass.args, os.listdir()]))", init_seed=7, device="cpu")
    seen = listen(guest)
    args, listing = json.loads(seen.out)
    assert seen.why == "ok"
    assert args == {"init_seed": 7, "device": "cpu"}
    assert {"trainer", "out"} <= set(listing)


def test_files_arrive_whole_at_every_size(opened):
    sizes = [0, 1, 65_535, 65_536, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, 5_000_000]
    files = {f"data/{size}.bin": bytes(range(256)) * (size // 256) + b"x" * (size % 256) for size in sizes}
    guest = opened()
    begin(
        guest,
        "import os, hashlib, json; print(json.dumps("
        "{n: hashlib.sha256(open('data/' + n, 'rb').read()).hexdigest() for n in os.listdir('data')}))",
        files,
    )
    told = json.loads(listen(guest).out)
    assert told == {name.removeprefix("data/"): hashlib.sha256(data).hexdigest() for name, data in files.items()}


def test_training_data_comes_only_when_it_is_asked_for(opened):
    def answer(guest, request):
        if request.op == "data":
            guest.send_file("data/tokens.npy", b"tokens")
        agree(guest, request)

    guest = opened()
    begin(
        guest,
        "import glass, os\n"
        "print(os.path.exists('data/tokens.npy'))\n"
        "print(open(os.path.join(glass.data(), 'tokens.npy')).read())\n",
    )
    assert listen(guest, answer).out == b"False\ntokens\n"


def test_the_time_left_is_what_the_host_says(opened):
    guest = opened()
    begin(guest, "import glass; print(glass.time_left())")
    seen = listen(guest)
    assert seen.out == b"(1.0, 2.0)\n"
    assert [request.op for request in seen.requests] == ["time_left"]


def test_metrics_arrive_and_numbers_that_are_none_are_left_out(opened):
    guest = opened()
    begin(guest, "import glass\nfor v in (2.5, float('nan'), float('inf'), 3): glass.metric('claim_bits', v, 4)")
    assert [(metric.name, metric.value, metric.step) for metric in listen(guest).metrics] == [
        ("claim_bits", 2.5, 4),
        ("claim_bits", 3.0, 4),
    ]


def test_what_it_prints_arrives_as_log_with_any_bytes(opened):
    guest = opened()
    begin(guest, r"import os; print('to out'); os.write(2, b'to err \xff\x00\x1b[2J')")
    seen = listen(guest)
    assert seen.out == b"to out\n"
    assert seen.err == b"to err \xff\x00\x1b[2J"


def test_weights_and_small_json_leave_and_nothing_else(opened):
    guest = opened()
    begin(
        guest,
        "import pickle\n"
        "for name in ('weights.safetensors', 'notes.json', 'model.pkl', 'weights.pt', 'a.txt'):\n"
        "    open('out/' + name, 'wb').write(pickle.dumps(name) if name[-1] != 'n' else b'{}')\n",
    )
    seen = listen(guest)
    assert seen.why == "ok"
    assert set(seen.files) == {"out/weights.safetensors", "out/notes.json"}


def test_an_exception_ends_as_crashed_with_its_traceback_in_the_log(opened):
    guest = opened()
    begin(guest, "open('out/weights.safetensors', 'w').write('x')\nraise ValueError('seven')")
    seen = listen(guest)
    assert seen.why == "crashed"
    assert b"ValueError: seven" in seen.err
    assert not seen.files


@pytest.mark.parametrize(
    ("code", "why", "number"),
    [
        ("raise SystemExit", "ok", 0),
        ("raise SystemExit(0)", "ok", 0),
        ("raise SystemExit(3)", "crashed", 3),
        ("raise SystemExit('text')", "crashed", 1),
        ("import os; os._exit(0)", "ok", 0),
        ("import os; os._exit(130)", "crashed", 130),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "crashed", None),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "crashed", None),
        ("import os; os.abort()", "crashed", None),
        ("import sys; sys.exit = None; sys.stdout = None; sys.modules.clear(); 1/0", "crashed", None),
        ("import os; os.closerange(0, 1000)", "ok", 0),
        ("syntax error", "crashed", 1),
    ],
)
def test_every_way_to_end_is_told_apart_from_success(opened, code, why, number):
    guest = opened()
    begin(guest, code)
    done = listen(guest).done
    assert done is not None
    assert done.why == why
    assert number is None or done.code == number


def test_a_trainer_that_leaves_by_exit_still_hands_in_its_weights(opened):
    guest = opened()
    begin(guest, "open('out/weights.safetensors', 'w').write('x'); raise SystemExit")
    assert listen(guest).files == {"out/weights.safetensors": b"x"}


def test_threads_left_behind_do_not_delay_the_end(opened):
    guest = opened()
    begin(guest, "import threading, time; threading.Thread(target=time.sleep, args=(60,)).start()")
    assert listen(guest).why == "ok"


def test_a_polite_stop_interrupts_bundle_code_which_may_tidy_up(opened):
    guest = opened()
    begin(
        guest,
        "import time\n"
        "try:\n    print('at work', flush=True)\n    time.sleep(60)\n"
        "except KeyboardInterrupt:\n    print('tidied up')\n    raise\n",
    )
    listen(guest, until=lambda seen: b"at work" in seen.out)
    guest.send("stop")
    seen = listen(guest)
    assert seen.why == "stopped"
    assert seen.out == b"tidied up\n"


def test_a_stop_interrupts_a_request_that_nobody_answers(opened):
    guest = opened(Role.IMPROVE)
    begin(guest, "import glass; glass.budget()", role=Role.IMPROVE)
    listen(guest, lambda *_: None, until=lambda seen: bool(seen.requests))
    guest.send("stop")
    assert listen(guest).why == "stopped"


def test_a_guest_that_ignores_the_stop_is_killed_after_a_grace(opened):
    guest = opened()
    begin(
        guest, "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN)\nprint(1, flush=True)\ntime.sleep(60)"
    )
    listen(guest, until=lambda seen: bool(seen.out))
    guest.send("stop")
    assert listen(guest).why == "stopped"


def test_end_is_idempotent_quick_and_final(opened):
    guest = opened()
    begin(guest, "import time; time.sleep(60)")
    began = time.monotonic()
    first = guest.end()
    assert time.monotonic() - began < 25
    assert guest.end() == first
    with pytest.raises(GuestFault):
        guest.send("beat")
    with pytest.raises(GuestFault):
        guest.recv(0.1)


def test_many_threads_may_end_the_same_guest(opened):
    guest = opened()
    threads = [threading.Thread(target=guest.end) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not any(thread.is_alive() for thread in threads)


def test_ended_guests_leave_no_threads_in_the_driver(glass):
    before = threading.active_count()
    for _ in range(3):
        glass.open(spec()).end()
    assert wait_until(lambda: threading.active_count() <= before)


def test_sending_to_a_guest_that_crashed_gives_its_reason(opened):
    guest = opened()
    begin(guest, "1/0")
    listen(guest)
    with pytest.raises(GuestFault) as caught:
        for _ in range(100):
            guest.send("beat")
            time.sleep(0.05)
    assert caught.value.code == "crashed"


def test_the_host_measures_cpu_time_of_the_child_and_of_its_children_dead_or_alive(opened):
    guest = opened()
    before = guest.cpu_seconds()
    burn = "import time\nt = time.process_time()\nwhile time.process_time() < t + 0.25: pass\n"
    begin(
        guest,
        f"import subprocess, sys, glass\n{burn}"
        f"subprocess.run([sys.executable, '-c', {burn!r}])\n"
        f"p = subprocess.Popen([sys.executable, '-c', {burn + 'print(1, flush=True); time.sleep(60)'!r}],"
        " stdout=subprocess.PIPE)\np.stdout.readline()\nglass.time_left()\n",
    )
    spent: list[float] = []

    def answer(guest, request):
        wait_until(lambda: guest.cpu_seconds() - before > 0.72)
        spent.append(guest.cpu_seconds() - before)
        agree(guest, request)

    assert listen(guest, answer).why == "ok"
    assert 0.72 < spent[0] < 2.5
    assert guest.cpu_seconds() >= before + spent[0]  # still known when it has ended


def test_the_predict_harness_answers_questions_with_logits(opened):
    np = pytest.importorskip("numpy")
    model = (
        "import numpy, json, os\n"
        "def load(folder):\n"
        "    scale = json.load(open(os.path.join(folder, 'scale.json')))\n"
        "    def predict(tokens):\n"
        "        tokens += 0\n"
        "        return numpy.repeat(tokens[:, :, None], 3, axis=2).astype('float64') * scale\n"
        "    return predict\n"
    )
    seen, answers = Seen(), []

    def answer(guest, request):
        if "logits" in seen.files:
            answers.append(np.frombuffer(seen.files.pop("logits"), "<f4"))
        if len(answers) == 2:
            guest.send("reply", id=request.id, ok=True, value=None)
        else:
            tokens = np.arange(6, dtype="<i8").reshape(2, 3) + len(answers)
            guest.send("reply", tokens.tobytes(), id=request.id, ok=True, value={"shape": [2, 3]})

    guest = opened(Role.PREDICT)
    begin(guest, model, {"out/scale.json": b"2.5"}, Role.PREDICT, device="cpu")
    assert listen(guest, answer, into=seen).why == "ok"
    assert answers[0].tolist() == [2.5 * (i // 3) for i in range(18)]
    assert answers[1].tolist() == [2.5 * (1 + i // 3) for i in range(18)]
