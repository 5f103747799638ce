"""Bundle code that writes to the wire itself: what breaks the grammar or a cap ends the guest with a fixed word."""

from __future__ import annotations

import time

import pytest
from guests import begin, listen

from bellglass.errors import GuestFault
from bellglass.records import Role

RAW = "import glass, os, json\nraw = lambda data: os.write(glass._link.fd, data)\nsend = glass._link._send\n"


def outcome(opened, code, role=Role.TRAIN, **options):
    guest = opened(role)
    begin(guest, RAW + code + "\nimport time; time.sleep(20)", role=role)
    return listen(guest, lambda *_: None, **options)


@pytest.mark.parametrize(
    "code",
    [
        "raw(b'garbage\\n')",
        "raw(b'x' * 70_000)",
        "raw(b'{\"t\":\"metric\",\"name\":\"a\",\"value\":NaN,\"step\":0}\\n')",
        "raw(b'{\"t\":\"metric\",\"name\":\"a\",\"value\":1,\"value\":1,\"step\":0}\\n')",
        "raw(b'{\"t\":\"file\",\"name\":\"out/weights.safetensors\",\"last\":true,\"n\":1048577}\\n')",
        "send('ready', b'', {'v': 1})",
        "raw(b'{\"t\":\"beat\",\"cpu_s\":0}\\n')",
        "raw(b'{\"t\":\"done\",\"code\":0,\"why\":\"ok\"}\\n')",
        "raw(b'{\"t\":\"log\",\"stream\":\"out\",\"n\":1}\\nx')",
        "send('file', b'', {'name': '../escape', 'last': True})",
        "send('file', b'', {'name': 'out/.git/config', 'last': True})",
        "send('request', b'', {'id': 2, 'op': 'data', 'args': {}})",
        "for name in 'ab': send('file', b'', {'name': f'out/{name}.json', 'last': False})",
    ],
)  # fmt: skip
def test_what_breaks_the_grammar_is_malformed(opened, code):
    seen = outcome(opened, code)
    assert seen.why == "malformed"
    assert not seen.files
    assert not seen.metrics


@pytest.mark.parametrize(
    ("role", "code", "why"),
    [
        (Role.TRAIN, "send('request', b'', {'id': 1, 'op': 'chat', 'args': {}})", "refused"),
        (Role.TRAIN, "send('request', b'', {'id': 1, 'op': 'next', 'args': {}})", "refused"),
        (Role.TRAIN, "send('file', b'', {'name': 'out/model.pkl', 'last': True})", "refused"),
        (Role.TRAIN, "send('file', b'', {'name': 'trainer/train.py', 'last': True})", "refused"),
        (Role.TRAIN, "send('file', b'', {'name': 'submit/trainer/data.py', 'last': True})", "refused"),
        (Role.IMPROVE, "send('request', b'', {'id': 1, 'op': 'data', 'args': {}})", "refused"),
        (Role.IMPROVE, "send('metric', b'', {'name': 'score', 'value': 0, 'step': 0})", "malformed"),
        (Role.IMPROVE, "send('file', b'', {'name': 'out/weights.safetensors', 'last': True})", "bad_submit"),
        (Role.IMPROVE, "send('file', b'', {'name': 'submit/trainer/evil.py', 'last': True})", "bad_submit"),
        (Role.IMPROVE, "send('file', b'', {'name': 'submit/README', 'last': True})", "bad_submit"),
        (Role.IMPROVE, "send('file', bytes(300_000), {'name': 'submit/scaffold/big', 'last': True})", "bad_submit"),
    ],
)
def test_what_its_role_may_not_send_is_refused(opened, role, code, why):
    assert outcome(opened, code, role).why == why


@pytest.mark.parametrize(
    "code",
    [
        'while True: raw(b\'{"t":"metric","name":"a","value":0,"step":0}\\n\' * 1000)',
        "for i in range(9): send('request', b'', {'id': i + 1, 'op': 'time_left', 'args': {}})",
        "send('request', b'x', {'id': 1, 'op': 'data', 'args': {}})",
        'while True: raw(b\'{"t":"file","name":"out/a.json","last":false}\\n\' * 1000)',
    ],
)
def test_a_flood_is_ended(opened, code):
    assert outcome(opened, code).why in ("flood", "refused")


def test_a_gigabyte_in_one_file_is_ended_at_its_cap(opened):
    seen = outcome(
        opened, "while True: send('file', bytes(1 << 20), {'name': 'out/weights.safetensors', 'last': False})"
    )
    assert seen.why == "refused"


def test_a_hundred_thousand_files_are_ended_at_their_cap(opened):
    line = '{{"t":"file","name":"submit/scaffold/{}","last":true}}\\n'
    code = f"for i in range(100): raw(''.join('{line}'.format(1000 * i + j) for j in range(1000)).encode())"
    seen = outcome(opened, code, Role.IMPROVE)
    assert seen.why == "bad_submit"
    assert len(seen.files) <= 10_000


def test_a_frame_cut_off_by_the_end_is_dropped(opened):
    guest = opened()
    begin(guest, RAW + 'raw(b\'{"t":"file","name":"out/a.json","last":true,"n":9}\\nabc\'); os._exit(0)')
    seen = listen(guest)
    assert seen.why == "ok"
    assert not seen.files


def test_a_closed_socket_ends_nothing_but_the_talk(opened):
    guest = opened()
    begin(guest, RAW + "os.close(glass._link.fd)\nprint('alone')")
    assert listen(guest).why in ("ok", "crashed", "lost")


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("glass._link.ask('next', {'secret': 'text'})", "refused"),
        ("glass._link.ask('chat', {})", "refused"),
        ("glass._link.ask('next', {}, b'text')", "flood"),
        ("glass._link.send_file('text', b'text')", "refused"),
        ("glass.metric('text', 1.0)", "malformed"),
        ("glass._link.send('log', b'text', stream='out')", "malformed"),
        ("send('request', b'', {'id': 77, 'op': 'next', 'args': {}})", "malformed"),
        ("raise ValueError('text')", "crashed"),
    ],
)
def test_a_predict_guest_can_say_nothing_textual(opened, code, why):
    model = RAW + f"import sys\nprint('text')\nprint('text', file=sys.stderr)\ndef load(folder):\n    {code}\n"
    guest = opened(Role.PREDICT)
    begin(guest, model, role=Role.PREDICT)
    seen = listen(guest, lambda *_: None)
    assert seen.why == why
    assert seen.out + seen.err == b""
    assert not seen.files
    assert not seen.metrics
    assert not seen.requests


def test_the_fault_says_nothing_that_the_guest_wrote(opened):
    guest = opened(Role.PREDICT)
    begin(guest, RAW + 'raw(b\'{"t":"my secret","my secret":1}\\n\')', role=Role.PREDICT)
    with pytest.raises(GuestFault) as caught:
        while True:
            guest.recv(5)
    assert "secret" not in str(caught.value)


def test_a_flooding_guest_is_ended_at_once(opened):
    guest = opened()
    begin(guest, RAW + "while True: send('file', bytes(1 << 20), {'name': 'out/weights.safetensors', 'last': False})")
    time.sleep(0.3)
    began = time.monotonic()
    guest.end()
    assert time.monotonic() - began < 25
