"""What crosses in both directions: throughput without deadlock, model calls, trials, submissions."""

from __future__ import annotations

import json
import threading
import time

from guests import agree, begin, listen

from bellglass.ports import Guest
from bellglass.records import Role

WORK = {f"work/trainer/{name}.py": f"# {name}\n".encode() for name in ("data", "objective", "model", "train")} | {
    "work/scaffold/improve.py": b"# scaffold\n",
    "work/scaffold/tools/read.py": b"# tool\n",
}
TRAINER = {name.removeprefix("work/"): data for name, data in WORK.items() if "trainer" in name}


def test_both_sides_write_fifty_megabytes_at_once_without_deadlock(opened):
    guest = opened()
    begin(
        guest,
        "import glass, threading\n"
        "ask = threading.Thread(target=glass.data); ask.start()\n"  # the host writes
        "glass._link.send_file('out/weights.safetensors', bytes(50_000_000))\n"  # while we do
        "ask.join()\n"
        "import os; print(os.path.getsize('data/tokens.npy'))\n"
        "os._exit(0)\n",
    )
    writers = []

    def answer(guest, request):
        def write():
            guest.send_file("data/tokens.npy", bytes(50_000_000))
            agree(guest, request)

        writers.append(threading.Thread(target=write))
        writers[-1].start()

    seen = listen(guest, answer)
    writers[0].join(10)
    assert seen.out == b"50000000\n"
    assert len(seen.files["out/weights.safetensors"]) == 50_000_000


class Spent:
    """CPU seconds of this process and of a guest: a busy machine takes longer over it, and no more of them."""

    def __init__(self, guest: Guest) -> None:
        self.guest, self.before = guest, time.process_time() + guest.cpu_seconds()

    def seconds(self) -> float:
        return time.process_time() + self.guest.cpu_seconds() - self.before


def yardstick() -> float:
    """CPU seconds for a fixed piece of work, as busy as the machine is now: about a tenth."""
    began = time.process_time()
    sum(range(4_000_000))
    return time.process_time() - began


def test_a_hundred_megabytes_cost_little_more_than_to_copy_them(opened):
    guest = opened()
    begin(
        guest,
        "import glass, os\ndata = os.urandom(1_000_000) * 100\nglass.time_left()\n"
        "glass._link.send_file('out/weights.safetensors', data)\nos._exit(0)\n",
    )
    began: list[Spent] = []

    def answer(guest, request):
        began.append(Spent(guest))
        agree(guest, request)

    seen = listen(guest, answer, until=lambda seen: bool(seen.files))
    seconds = began[0].seconds()
    assert (seen.fault, seen.done) == (None, None), "it was ended before its file was here"
    assert len(seen.files["out/weights.safetensors"]) == 100_000_000
    assert seconds < 20 * yardstick(), "with both ends on one core"


def test_a_thousand_round_trips_cost_about_a_millisecond_each(opened):
    guest = opened()
    begin(guest, "import glass\nfor _ in range(1000): glass.time_left()")
    spent = Spent(guest)
    seen = listen(guest)
    assert len(seen.requests) == 1000
    assert spent.seconds() < 20 * yardstick()


def test_a_model_call_carries_the_conversation_there_and_the_answer_back(opened):
    def answer(guest, request):
        body = json.loads(request.body)
        reply = {"text": body["messages"][0]["text"].upper(), "calls": [], "opaque": [{"a": 1}], "stop": "end"}
        guest.send("reply", json.dumps(reply).encode(), id=request.id, ok=True, value={"ok": True})

    guest = opened(Role.IMPROVE)
    text = "grüße " * 50_000  # far beyond a header
    code = "import glass; r = glass.chat([{'role': 'user', 'text': open('brief.md').read()}], max_tokens=9)\n"
    code += "print(len(r['text']), r['text'][:5], r['opaque'], r['stop'])"
    begin(guest, code, {"brief.md": text.encode()}, Role.IMPROVE)
    seen = listen(guest, answer)
    assert seen.out.decode() == f"{len(text.upper())} {text.upper()[:5]} [{{'a': 1}}] end\n"
    assert json.loads(seen.requests[0].body)["max_tokens"] == 9


def test_calls_from_many_threads_get_their_own_answers(opened):
    def answer(guest, request):
        guest.send("reply", request.body, id=request.id, ok=True, value=None)

    guest = opened(Role.IMPROVE)
    begin(
        guest,
        "import glass\nfrom concurrent.futures import ThreadPoolExecutor\n"
        "with ThreadPoolExecutor(20) as pool:\n"
        "    told = list(pool.map(lambda i: glass.chat([], max_tokens=i)['max_tokens'], range(200)))\n"
        "print(told == list(range(200)))\n",
        role=Role.IMPROVE,
    )
    assert listen(guest, answer).out == b"True\n"


def test_a_refusal_is_an_exception_that_the_scaffold_can_handle(opened):
    def answer(guest, request):
        guest.send("reply", id=request.id, ok=False, value={"code": "rate_limited", "detail": "later"})

    guest = opened(Role.IMPROVE)
    begin(
        guest,
        "import glass\ntry:\n    glass.chat([])\nexcept glass.Refused as no:\n    print(no.code, no.detail)\n",
        role=Role.IMPROVE,
    )
    assert listen(guest, answer).out == b"rate_limited later\n"


def test_brief_history_budget_and_note_work(opened):
    def answer(guest, request):
        guest.send("reply", id=request.id, ok=True, value={"history": [1], "budget": {"usd": None}}.get(request.op))

    guest = opened(Role.IMPROVE)
    code = "import glass; print(glass.brief(), glass.history(), glass.budget(), glass.note('mark'))"
    begin(guest, code, {"brief.md": b"do well"}, Role.IMPROVE)
    seen = listen(guest, answer)
    assert seen.out == b"do well [1] {'usd': None} None\n"
    assert seen.requests[-1].args == {"text": "mark"}


def test_a_trial_sends_the_trainer_as_it_now_is(opened):
    guest = opened(Role.IMPROVE)
    code = "import glass; open('work/trainer/model.py', 'a').write('edited'); glass.trial('try', 0.5)"
    begin(guest, code, WORK, Role.IMPROVE)
    seen = listen(guest)
    assert seen.requests[0].args == {"note": "try", "fraction": 0.5}
    edited = {f"trial/{name}": data for name, data in TRAINER.items()}
    edited["trial/trainer/model.py"] += b"edited"
    assert seen.files == edited


def test_trials_send_the_base_once_and_each_candidate_as_an_overlay(opened):
    guest = opened(Role.IMPROVE)
    code = "import glass; glass.trials([{'files': {'trainer/data.py': 'one'}, 'fraction': 0.25}, {'note': 'two'}])"
    begin(guest, code, WORK, Role.IMPROVE)
    seen = listen(guest)
    assert seen.files == {f"trial/{name}": data for name, data in TRAINER.items()}
    assert json.loads(seen.requests[0].body) == [
        {"files": {"trainer/data.py": "one"}, "note": "", "fraction": 0.25},
        {"files": {}, "note": "two", "fraction": 1.0},
    ]


def test_a_submission_sends_both_halves_without_caches_and_ends_the_session(opened):
    guest = opened(Role.IMPROVE)
    begin(
        guest,
        "import glass, os\nos.mkdir('work/scaffold/__pycache__')\n"
        "open('work/scaffold/__pycache__/x.py', 'w').write('cache')\nopen('work/scaffold/y.pyc', 'w').write('cache')\n"
        "glass.submit('done')\nprint('never')\n",
        WORK,
        Role.IMPROVE,
    )
    seen = listen(guest)
    assert seen.why == "ok"
    assert seen.out == b""
    assert seen.requests[0].args == {"note": "done"}
    assert seen.files == {name.replace("work/", "submit/"): data for name, data in WORK.items()}


MISCHIEF = [
    "os.symlink('/etc/passwd', 'work/scaffold/link.py')",
    "os.symlink('/etc', 'work/scaffold/folder')",
    "os.unlink('work/trainer/data.py'); os.symlink('/etc/passwd', 'work/trainer/data.py')",
    "os.mkfifo('work/scaffold/fifo')",
    "socket.socket(socket.AF_UNIX).bind('work/scaffold/socket')",
    "open('work/trainer/extra.py', 'w')",
    "os.unlink('work/trainer/data.py')",
    "open('work/scaffold/big', 'wb').truncate(300_000)",
    "[open(f'work/scaffold/{i}', 'w') for i in range(300)]",
    "[open(f'work/scaffold/{i}', 'wb').truncate(250_000) for i in range(20)]",
    "open('work/scaffold/.gitattributes', 'w')",
    "os.mkdir('work/scaffold/.GIT'); open('work/scaffold/.GIT/config', 'w')",
    "open('work/scaffold/a\\nb', 'w')",
    "open(b'work/scaffold/\\xff', 'w')",
    "os.makedirs('work/scaffold/' + 'd/' * 9); open('work/scaffold/' + 'd/' * 9 + 'x', 'w')",
]


def test_a_submission_that_could_not_pass_is_refused_inside_and_the_session_goes_on(opened):
    guest = opened(Role.IMPROVE)
    code = (
        "import glass, os, shutil, socket\nshutil.copytree('work', 'clean')\n"
        f"for mischief in {MISCHIEF!r}:\n"
        "    shutil.rmtree('work'); shutil.copytree('clean', 'work')\n"
        "    exec(mischief)\n"
        "    try:\n        glass.submit()\n"
        "    except glass.Refused as no:\n        print(no.code)\n"
    )
    begin(guest, code, WORK, Role.IMPROVE)
    seen = listen(guest)
    assert seen.err == b""
    assert seen.out == b"bad_submit\n" * len(MISCHIEF)
    assert seen.why == "ok"
    assert not seen.files
