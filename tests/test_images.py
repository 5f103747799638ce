"""What an image may be: no layer of another, nothing that gives rights, and still all that a guest's code asks for."""

from __future__ import annotations

import ctypes
import dataclasses
import importlib.util
import io
import secrets
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy
import pytest
from guests import begin, listen, spec

from bellglass.doors.docker.admission import ImageFacts, refusals, shared, unfit
from bellglass.doors.docker.profile import PYTHON, SCRIPT
from bellglass.errors import SetupError
from bellglass.paths import content_root
from bellglass.records import Role

CONFIG = {"Entrypoint": [PYTHON, "-I", SCRIPT], "Env": ["PATH=/usr/bin"]}


def facts(name: str, *layers: str, stage: str = "", **config: Any) -> ImageFacts:
    labels = {"Labels": {"bellglass.stage": stage or name}}
    return ImageFacts(f"sha256:{name}", layers, {**CONFIG, **labels, **config}, 1)


@pytest.fixture(scope="module")
def slim() -> ModuleType:
    """The program that makes the roots, which is no module of ours."""
    at = importlib.util.spec_from_file_location("slim", content_root() / "sandbox/slim.py")
    assert at is not None
    assert at.loader is not None
    module = importlib.util.module_from_spec(at)
    at.loader.exec_module(module)
    return module


# Layers


def test_images_without_a_common_layer_are_run() -> None:
    ours = [facts("agent", "a", "b"), facts("trainer", "c", "d"), facts("predictor", "e", "f")]
    assert [refusals(each, ours) for each in ours] == [[], [], []]


def test_images_of_two_roles_over_one_base_are_both_refused() -> None:
    ours = [facts("agent", "base", "a"), facts("trainer", "base", "b"), facts("predictor", "c")]
    assert [len(refusals(each, ours)) for each in ours] == [1, 1, 0]


@pytest.mark.parametrize("stage", ["trainer", "trainer-with-wheels"])
def test_an_image_built_on_one_of_ours_is_refused_and_that_one_is_not(stage: str) -> None:
    ours = [facts("trainer", "a", "b"), facts("derived", "a", "b", "c", stage=stage)]
    assert [len(refusals(each, ours)) for each in ours] == [0, 1]


def test_versions_of_one_stage_may_have_their_libraries_in_common() -> None:
    ours = [facts("old", "libraries", "old code", stage="trainer"), facts("new", "libraries", "new", stage="trainer")]
    assert [refusals(each, ours) for each in ours] == [[], []]


def test_an_image_whose_layers_the_engine_does_not_name_is_refused() -> None:
    assert len(refusals(facts("agent"), [])) == 1


@pytest.mark.parametrize(
    "config",
    [
        {"Entrypoint": ["/bin/sh"]},
        {"Entrypoint": None},
        {"Cmd": ["--cold"]},
        {"Env": ["PATH=/usr/bin", "LD_PRELOAD=/opt/x.so"]},
        {"User": "1000"},
        {"Volumes": {"/data": {}}},
        {"OnBuild": ["RUN id"]},
        {"Healthcheck": {"Test": ["CMD", "id"]}},
    ],
    ids=lambda config: next(iter(config)),
)
def test_an_image_that_wants_something_of_its_own_is_refused(config: dict[str, Any]) -> None:
    assert refusals(facts("agent", "a"), []) == []
    assert len(refusals(facts("agent", "a", **config), [])) == 1


# Files


def entry(name: str, mode: int = 0o644, kind: bytes = tarfile.REGTYPE, uid: int = 0) -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.mode, made.type, made.uid, made.size = mode, kind, uid, 10
    return made


@pytest.mark.parametrize(
    "wrong",
    [
        entry("usr/bin/su", 0o4755),
        entry("usr/bin/wall", 0o2755),
        entry("etc/x", 0o666),
        entry("etc/x", 0o664),
        entry("var/tmp", 0o1777, tarfile.DIRTYPE),
        entry("etc/shadow", 0o640),
        entry("root", 0o700, tarfile.DIRTYPE),
        entry("opt/disk", 0o644, tarfile.BLKTYPE),
        entry("opt/pipe", 0o644, tarfile.FIFOTYPE),
        entry("opt/x", uid=1000),
    ],
    ids=lambda wrong: f"{wrong.name}-{wrong.mode:o}",
)
def test_a_file_that_gives_rights_or_takes_bits_is_named(wrong: tarfile.TarInfo) -> None:
    right = [entry("usr", 0o755, tarfile.DIRTYPE), entry("usr/x"), entry("tmp", 0o1777, tarfile.DIRTYPE)]
    right += [entry("usr/link", 0o777, tarfile.SYMTYPE), entry("dev/null", 0o666, tarfile.CHRTYPE)]
    assert unfit(right).faults == ()
    assert (unfit(right).files, unfit([*right, wrong]).faults) == (1, unfit([wrong]).faults)
    assert len(unfit([wrong]).faults) == 1


@pytest.mark.parametrize(
    "name",
    ["torch/bin/test_jit", "torch/test/atest", "torch/include/c10/x.h", "torch/lib/libtorchbind_test.so",
     "sympy/core/tests/test_x.py", "numpy/_core/include/numpy/x.h", "numpy-2.4.6.dist-info/RECORD", "../../../bin/f2py",
     "numpy/_core/tests/data/x.csv"],
)  # fmt: skip
def test_what_no_guest_needs_of_a_library_stays_behind(slim: ModuleType, name: str) -> None:
    assert slim.NOT_OF_LIBRARIES.match(name)


@pytest.mark.parametrize(
    "name",
    ["torch/testing/_internal/logging_tensor.py", "torch/bin/torch_shm_manager", "torch/lib/libtorch_cpu.so",
     "torch/nn/utils/__init__.py", "numpy/testing/__init__.py", "sympy/testing/__init__.py",
     "torch-2.13.0.dist-info/METADATA", "nvidia/cudnn/lib/libcudnn.so.9", "lightning_fabric/fabric.py"],
)  # fmt: skip
def test_what_a_library_imports_of_itself_is_kept(slim: ModuleType, name: str) -> None:
    assert not slim.NOT_OF_LIBRARIES.match(name)


def test_a_library_without_its_tables_for_debuggers_is_smaller_and_loads(slim: ModuleType, tmp_path: Path) -> None:
    source = tmp_path / "answer.c"
    source.write_text("static int hidden(void) { return 42; }\nint answer(void) { return hidden(); }\n")
    whole, cut = tmp_path / "whole.so", tmp_path / "cut.so"
    try:
        subprocess.run(["cc", "-g", "-shared", "-fPIC", "-o", whole, source], check=True)
    except FileNotFoundError:
        whole.write_bytes(next(Path(numpy.__file__).parent.rglob("_multiarray_umath*.so")).read_bytes())
    cut.write_bytes(whole.read_bytes())
    slim.trim(cut)
    assert cut.stat().st_size <= whole.stat().st_size
    slim.trim(source)
    assert b"hidden" in source.read_bytes()
    if sys.platform.startswith("linux"):
        library = ctypes.CDLL(str(cut))
        assert not hasattr(library, "answer") or library.answer() == 42


# Of a real engine


@pytest.fixture(scope="module")
def glass(engine: Any) -> Iterator[Any]:
    from bellglass.doors.docker.glass import DockerGlass

    made = DockerGlass(engine, warm=False, prove=False)
    yield made
    made.close()


@pytest.mark.docker
def test_no_two_of_the_images_share_a_layer(engine: Any) -> None:
    from bellglass.doors.docker import image

    layers = [ImageFacts.read(engine.image(image.find(engine, role).id)).layers for role in Role]
    assert all(layers)
    assert [shared(one, other) for one, other in combinations(layers, 2)] == [set(), set(), set()]


@pytest.mark.docker
@pytest.mark.parametrize("role", Role)
def test_every_file_of_an_image_can_be_read_and_none_written_or_run_with_rights(engine: Any, role: Role) -> None:
    from bellglass.doors.docker import image
    from bellglass.doors.docker.reaper import owner_labels

    found = image.find(engine, role)
    inside = unfit(engine.files_of(found.id, owner_labels("look", {})))
    assert inside.faults == ()
    # What a keeper maps and locks: 28,500 files and 1,100 MB each for train and predict before.
    files, megabytes = {Role.IMPROVE: (1_400, 65), Role.TRAIN: (10_700, 680), Role.PREDICT: (9_000, 660)}[role]
    assert inside.files < files
    assert inside.megabytes < megabytes


@pytest.mark.docker
def test_looking_into_an_image_leaves_no_container_when_it_is_broken_off(engine: Any) -> None:
    from bellglass.doors.docker import image
    from bellglass.doors.docker.reaper import owner_labels

    mark = {"look": secrets.token_hex(6)}
    files = engine.files_of(image.find(engine, Role.IMPROVE).id, owner_labels("look", mark))
    next(files)
    assert len(engine.containers({"bellglass.look": mark["look"]})) == 1
    files.close()
    assert engine.containers({"bellglass.look": mark["look"]}) == []


def made(engine: Any, dockerfile: str, recipe: Any) -> str:
    """An image that says of itself that it was made by this recipe."""
    context = io.BytesIO()
    with tarfile.open(fileobj=context, mode="w") as tar:
        row = tarfile.TarInfo("Dockerfile")
        row.size = len(dockerfile)
        tar.addfile(row, io.BytesIO(dockerfile.encode()))
    context.seek(0)
    labels = {"bellglass.stage": recipe.stage, "bellglass.content": recipe.content("cpu"), "bellglass.device": "cpu"}
    steps = engine.build(context, target="it", tag=recipe.tag("cpu"), args={}, labels=labels, offline=True)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return str(end.value)


@pytest.mark.docker
def test_a_derived_image_is_refused_until_it_is_flattened(engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Derived from the improver's, and meant for guests that predict: it would have the improver's very files."""
    from bellglass.doors.docker import image

    recipe = dataclasses.replace(image.RECIPES[Role.PREDICT], stage=f"derived-{secrets.token_hex(4)}")
    base = image.find(engine, Role.IMPROVE).id
    monkeypatch.setitem(image.RECIPES, Role.PREDICT, recipe)
    entry_point = f'ENTRYPOINT ["{PYTHON}", "-I", "{SCRIPT}"]\n'
    derived = made(engine, f"FROM {base} AS it\nRUN echo more > /opt/more\n", recipe)
    try:
        with pytest.raises(SetupError) as caught:
            image.find(engine, Role.PREDICT)
        assert caught.value.code == "image_unfit"
        assert image.find(engine, Role.IMPROVE).id == base
        flat = made(engine, f"FROM {derived} AS all\nFROM scratch AS it\nCOPY --from=all / /\n{entry_point}", recipe)
        try:
            assert image.find(engine, Role.PREDICT).id == flat
        finally:
            engine.remove_image(flat)
    finally:
        engine.remove_image(derived)
    assert engine.images({"bellglass.stage": recipe.stage}) == []


# What guests' code asks for

TRAINER_ASKS = """
import getpass, importlib, os, shutil, tempfile, traceback, faulthandler
for name in ("torch.nn.functional torch.optim torch.utils.data torch.utils.checkpoint torch.fft torch.linalg torch.func"
             " torch.distributions torch.distributed torch.autograd torch.profiler torch.amp torch.sparse torch.special"
             " torch.nn.utils.parametrizations torch.ao.quantization torch.jit torch.fx torch.export torch._dynamo"
             " torch.optim.swa_utils torch.nn.attention.flex_attention torch.testing numpy.testing numpy.random"
             " safetensors.numpy safetensors.torch lightning lightning.fabric lightning_fabric sympy yaml tqdm unittest"
             " sqlite3 ssl hashlib lzma bz2 decimal concurrent.futures multiprocessing").split():
    importlib.import_module(name)
import torch
assert getpass.getuser() == "glass"
model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.GELU(), torch.nn.Linear(8, 1))
torch.func.vmap(torch.func.grad(lambda x: model(x).sum()))(torch.randn(4, 8))
torch.utils.checkpoint.checkpoint(model, torch.randn(4, 8, requires_grad=True), use_reentrant=False).sum().backward()
torch.jit.script(torch.nn.Linear(2, 2))(torch.randn(1, 2))
torch.compile(model, backend="eager")(torch.randn(2, 8))
torch.compile(model, backend="aot_eager")(torch.randn(2, 8)).sum().backward()
torch.distributions.Normal(0.0, 1.0).log_prob(torch.zeros(2))
try:
    torch.compile(model)(torch.randn(2, 8))
except Exception as error:
    print("compile:", type(error).__name__)
print("all there")
"""
PREDICTOR_ASKS = """
import importlib, shutil
for name in ("torch.nn.functional torch.func torch.fft torch.linalg torch.special torch.nn.attention.flex_attention"
             " torch.jit torch.nn.utils.parametrizations safetensors.torch numpy.random").split():
    importlib.import_module(name)
assert importlib.util.find_spec("lightning_fabric") is None and importlib.util.find_spec("lightning") is None
assert not any(shutil.which(name) for name in ("sh", "bash", "cat", "ls", "env", "perl", "timeout"))
import numpy
def load(folder):
    return lambda tokens: numpy.full((*tokens.shape, 2), 7.0)
"""
SHELL_ASKS = r"""
import subprocess
script = '''
set -eu
cd "$HOME"; mkdir -p d; printf 'b\na\n' > d/x; sort d/x > d/y
diff -u d/x d/y > d/patch && exit 1
grep -c a d/x; sed -i s/a/c/ d/x; awk '{print NR}' d/x | tail -1; find d -name x | xargs wc -l
timeout 5 python3 -c 'import json; print(json.dumps(1))'; tar czf d.tgz d; cmp d/x d/x
bash -c 'echo ${BASH_VERSION%%.*}'
test "$(whoami 2>/dev/null || echo nobody)"; test "$USER" = glass
for name in perl su mount apt-get gcc; do if command -v $name; then exit 1; fi; done
echo through
'''
done = subprocess.run(["/bin/sh", "-c", script], capture_output=True, text=True)
print(done.stdout, done.stderr, done.returncode)
"""


@pytest.mark.docker
def test_a_trainer_finds_what_authors_use_and_no_compiler(glass: Any) -> None:
    guest = glass.open(spec(Role.TRAIN, deadline=300.0, memory_mb=1500))
    try:
        begin(guest, TRAINER_ASKS)
        seen = listen(guest, seconds=240.0)
    finally:
        guest.end()
    assert seen.why == "ok", seen.err.decode()
    assert seen.out.endswith(b"all there\n")
    assert b"compile: " in seen.out  # its default backend wants a compiler; README says so


@pytest.mark.docker
def test_a_predictor_finds_torch_and_neither_shell_nor_lightning(glass: Any) -> None:
    def answer(guest: Any, request: Any) -> None:
        told = {} if asked else {"body": b"\0" * 16}
        guest.send("reply", id=request.id, ok=True, value=None if asked else {"shape": [1, 2]}, **told)
        asked.append(request)

    asked: list[Any] = []
    guest = glass.open(spec(Role.PREDICT, deadline=120.0))
    try:
        begin(guest, PREDICTOR_ASKS, role=Role.PREDICT)
        seen = listen(guest, answer, seconds=100.0)
    finally:
        guest.end()
    assert seen.why == "ok"
    assert numpy.frombuffer(seen.files["logits"], dtype="<f4").tolist() == [7.0] * 4


@pytest.mark.docker
def test_an_improvers_shell_has_the_usual_tools_and_nothing_with_rights(glass: Any) -> None:
    guest = glass.open(spec(Role.IMPROVE))
    try:
        begin(guest, SHELL_ASKS, role=Role.IMPROVE)
        seen = listen(guest)
    finally:
        guest.end()
    assert b"through" in seen.out, seen.out + seen.err
