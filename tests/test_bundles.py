"""Bundles: what may come out of a glass and become a successor."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bellglass.errors import GuestFault
from bellglass.records import KIND_OF_PATH, Kind
from bellglass.store import bundles
from bellglass.store.bundles import check_bundle, check_files, check_name, check_submission, scaffold_bytes, starter

EVERYTHING = frozenset(Kind)
PARENT = {
    **{path: f"# {path}\n".encode() for path in KIND_OF_PATH},
    "scaffold/improve.py": b"import glass\n",
    "scaffold/prompts/charter.md": b"Be honest.\n",
}


def refused(files: dict[str, bytes], may_edit: frozenset[Kind] = EVERYTHING) -> str:
    with pytest.raises(GuestFault) as caught:
        check_submission(PARENT, files, may_edit)
    assert caught.value.code == "bad_submit"
    return caught.value.detail


def test_the_starter_is_a_whole_bundle_within_its_own_caps() -> None:
    bundle = starter()
    assert set(KIND_OF_PATH) == {path for path in bundle if path.startswith("trainer/")}
    assert "scaffold/improve.py" in bundle
    assert check_bundle(bundle, bundle, frozenset()) == bundle


def test_a_submission_replaces_the_whole_bundle() -> None:
    files = {**PARENT, "trainer/model.py": b"x = 1\n", "scaffold/tools/race.py": b"y\n"}
    del files["scaffold/prompts/charter.md"]
    assert check_submission(PARENT, files, EVERYTHING) == files


def test_a_submission_that_changes_nothing_is_empty() -> None:
    leaving = {**PARENT, "scaffold/__pycache__/improve.cpython-311.pyc": b"\0", "trainer/model.pyc": b"\0"}
    for files in (PARENT, leaving):
        with pytest.raises(GuestFault) as caught:
            check_submission(PARENT, files, EVERYTHING)
        assert caught.value.code == "empty_submit"
        assert check_bundle(PARENT, files, frozenset()) == PARENT


@pytest.mark.parametrize("path", [*KIND_OF_PATH, "scaffold/improve.py"])
def test_a_needed_file_that_is_gone_is_named(path: str) -> None:
    assert refused({name: data for name, data in PARENT.items() if name != path}) == f"{path} is missing"


@pytest.mark.parametrize(
    "path",
    ["trainer/extra.py", "README.md", "scaffolds", "work/trainer/model.py", "Trainers/model.py", "data/tokens.npy"],
)
def test_a_path_that_is_no_part_of_a_bundle_is_named(path: str) -> None:
    assert refused({**PARENT, path: b"x"}) == f"{path} is no part of a bundle"


@pytest.mark.parametrize(("path", "kind"), [*KIND_OF_PATH.items(), ("scaffold/improve.py", Kind.SCAFFOLD)])
def test_what_may_not_be_edited_is_refused_by_path(path: str, kind: Kind) -> None:
    files = {**PARENT, path: b"changed\n"}
    assert path in refused(files, EVERYTHING - {kind})
    assert check_submission(PARENT, files, frozenset({kind})) == files


def test_adding_to_and_removing_from_a_closed_scaffold_are_edits_too() -> None:
    closed = EVERYTHING - {Kind.SCAFFOLD}
    assert "scaffold/new.py" in refused({**PARENT, "scaffold/new.py": b"x"}, closed)
    shorter = {path: data for path, data in PARENT.items() if "charter" not in path}
    assert "scaffold/prompts/charter.md" in refused(shorter, closed)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "/etc/passwd",
        "scaffold/../trainer/model.py",
        "scaffold/./a",
        "scaffold//a",
        "scaffold/",
        "scaffold/.git/config",
        "scaffold/.GIT",
        "scaffold/.gitattributes",
        "scaffold/git~1",
        "scaffold/a\nb",
        "scaffold/a\x1b[31m",
        "scaffold/a\x00",
        "scaffold/a\\b",
        "scaffold/C:x",
        "scaffold/dot.",
        "scaffold/space ",
        "scaffold/-rf",
        "scaffold/\u00e9",
        "scaffold/\u202e",
        "scaffold/" + "a" * 192,
    ],
)
def test_a_hostile_name_is_refused_in_plain_characters(name: str) -> None:
    detail = refused({**PARENT, name: b"x"})
    assert detail.isascii()
    assert detail.isprintable()
    assert len(detail) < 300


@pytest.mark.parametrize(
    "name", ["scaffold/a b.md", "scaffold/tools/.hidden", "scaffold/x" + "a" * 190, "scaffold/a.b-c+d"]
)
def test_a_plain_name_is_allowed(name: str) -> None:
    check_name(name)


@settings(max_examples=300)
@given(st.text(max_size=40))
def test_no_name_leads_out_of_its_folder(name: str) -> None:
    try:
        check_name(name)
    except GuestFault:
        return
    assert name.isascii()
    assert name.isprintable()
    assert not name.startswith("/")
    assert not {"", ".", ".."} & set(name.split("/"))
    assert ".git" not in [part[:4].lower() for part in name.split("/")]


def test_names_that_could_meet_on_a_disk_are_refused() -> None:
    assert "case" in refused({**PARENT, "scaffold/Improve.py": b"x"})
    assert "folder" in refused({**PARENT, "scaffold/prompts": b"x"})
    assert "folder" in refused({**PARENT, "scaffold/PROMPTS": b"x"})


def test_counts_and_sizes_have_caps() -> None:
    many = {f"scaffold/{n}": b"" for n in range(100_000)}
    assert "100006 files" in refused({**PARENT, **many})
    assert "scaffold/big" in refused({**PARENT, "scaffold/big": b"x" * (bundles.FILE_BYTES_MAX + 1)})
    piled = {f"scaffold/{n}": bytes(bundles.FILE_BYTES_MAX) for n in range(8)}
    assert "together" in refused({**PARENT, **piled})
    check_files(dict(list(piled.items())[:7]))


def test_the_scaffold_has_a_size_cap_of_its_own() -> None:
    padding = {f"scaffold/{n}": bytes(bundles.FILE_BYTES_MAX) for n in range(2)}
    assert str(bundles.SCAFFOLD_BYTES_MAX) in refused({**PARENT, **padding})
    assert scaffold_bytes(PARENT) == len(b"import glass\n" + b"Be honest.\n")
