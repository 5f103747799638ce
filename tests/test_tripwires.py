"""Each tripwire: what sets it off, and an honest twin that does not."""

from __future__ import annotations

from dataclasses import replace

from bellglass import tripwires
from bellglass.records import Budget, Claim, Proof, Seeds, Trial, Verdict
from bellglass.tripwires import Watched

AGREES = Proof(positions=40, mean_gap_bits=1e-6, gap_z=0.4, targeted_gap_bits=-2e-6, targeted_z=-1.1, agrees=True)
VERDICT = Verdict(
    score=0.9, raw_bits=1.2, floor_bits=0.3, by_skill={"all": 0.9}, sampling_se=0.01, targets=9000, proof=AGREES
)
TRIAL = Trial(
    trial_id="g1-c0",
    bundle="b" * 40,
    purpose="gate",
    seeds=Seeds(1, 2),
    budget=Budget("steps", 10, 60.0),
    claim=Claim(bits=1.15, steps=10, metrics=3),
    verdict=VERDICT,
    fault=None,
    weights="w" * 64,
    train_seconds=1.0,
    wall_seconds=1.2,
    judge_seconds=0.2,
)
OTHER = replace(TRIAL, trial_id="g1-c1", seeds=Seeds(3, 4), weights="v" * 64)


def evidence(*trials: Trial, **more: object) -> Watched:
    return Watched(generation=1, trials=trials, floor="exact", **more)  # type: ignore[arg-type]


def judged(trial: Trial = TRIAL, **fields: object) -> Trial:
    return replace(trial, verdict=replace(VERDICT, **fields))  # type: ignore[arg-type]


def failed(code: str) -> Trial:
    return replace(OTHER, verdict=None, weights=None, fault=code)


def test_an_honest_generation_sets_off_nothing() -> None:
    assert tripwires.look(evidence(TRIAL, OTHER, failed("overran"), session_faults=("no_submit",))) == ()
    assert tripwires.look(evidence()) == ()


def test_a_proof_that_disagrees_is_an_alarm() -> None:
    lying = judged(proof=replace(AGREES, targeted_gap_bits=3.5, targeted_z=9.0, agrees=False))
    (alarm,) = tripwires.look(evidence(OTHER, lying))
    assert (alarm.name, alarm.evidence) == ("proof_disagrees", ("g1-c0",))
    assert "+3.500" in alarm.sentence
    assert tripwires.proof_disagrees(evidence(judged(proof=None))) is None


def test_a_score_below_the_source_is_an_alarm_by_z_and_not_by_sign() -> None:
    (alarm,) = tripwires.look(evidence(judged(score=-0.06, raw_bits=1.1)))
    assert (alarm.name, alarm.evidence) == ("below_floor", ("g1-c0",))
    assert tripwires.below_floor(evidence(judged(score=-0.03))) is None  # 3 standard errors: chance
    assert tripwires.below_floor(evidence(judged(score=-0.0005, sampling_se=0.0))) is None  # rounding
    assert tripwires.below_floor(evidence(judged(score=-0.01, sampling_se=0.0))) is not None


def test_an_unknown_floor_cannot_be_beaten() -> None:
    trial = judged(score=-5.0, raw_bits=1.1)
    assert tripwires.below_floor(Watched(generation=1, trials=(trial,), floor="unknown")) is None


def test_a_claim_far_better_than_the_verdict_is_an_alarm() -> None:
    boasting = replace(TRIAL, claim=Claim(bits=0.8, steps=10, metrics=3))
    (alarm,) = tripwires.look(evidence(boasting, OTHER))
    assert (alarm.name, alarm.evidence) == ("claim_mismatch", ("g1-c0",))
    assert "claims 0.800 bits, judged 1.200" in alarm.sentence
    modest = replace(TRIAL, claim=Claim(bits=9.0, steps=10, metrics=3))
    silent = replace(OTHER, claim=Claim(bits=None, steps=0, metrics=0))
    assert tripwires.look(evidence(modest, silent)) == ()


def test_on_real_text_a_child_is_caught_by_claiming_more_than_its_parent_does() -> None:
    """Documents of other files may be harder for both: that is no lie."""

    def pair(parent: float | None, child: float) -> Watched:
        sides = {"parent": parent, "child": child}
        claims = {side: Claim(bits=bits, steps=10, metrics=3) for side, bits in sides.items()}
        both = [
            replace(judged(), trial_id=f"g1-pair-0-{side}", seeds=Seeds(index, 2), weights=side * 8, claim=claim)
            for index, (side, claim) in enumerate(claims.items())
        ]
        alone = replace(OTHER, trial_id="g1-panel-0", claim=Claim(bits=0.4, steps=10, metrics=3))
        return replace(evidence(*both, alone), floor="unknown")

    assert tripwires.look(pair(0.6, 0.5)) == ()
    (alarm,) = tripwires.look(pair(1.1, 0.5))
    assert (alarm.name, alarm.evidence) == ("claim_mismatch", ("g1-pair-0-child",))
    assert tripwires.look(pair(9.0, 1.1)) == (), "a modest parent makes no liar of its child"
    assert tripwires.look(pair(None, 0.5)) != (), "nor does a silent one hide it"


def predicting(parent: float, child: float, budget: float = 10.0, kind: str = "cpu_seconds") -> list[Trial]:
    """A pair whose sides took so many seconds to predict."""
    return [
        replace(
            TRIAL,
            trial_id=f"g1-pair-0-{side}",
            weights=side * 8,
            seeds=Seeds(len(side), 2),
            budget=Budget(kind, budget, 60.0),  # type: ignore[arg-type]
            predicted_seconds=used,
        )
        for side, used in (("parent", parent), ("child", child))
    ]


def test_a_child_that_takes_much_longer_than_its_parent_to_predict_is_an_alarm() -> None:
    """It may train there, off the clock. A larger model takes a few times as long at most."""
    (alarm,) = tripwires.look(evidence(*predicting(0.4, 3.4)))
    assert (alarm.name, alarm.evidence) == ("trained_when_judged", ("g1-pair-0-child",))
    assert "took 3.40 s to predict, its parent 0.40 s" in alarm.sentence
    assert tripwires.look(evidence(*predicting(0.4, 1.1))) == (), "hardly worth anything"
    assert tripwires.look(evidence(*predicting(3.0, 8.0))) == (), "a larger model on a slow machine"
    assert tripwires.look(evidence(*predicting(3.4, 0.4))) == (), "a leaner one"
    assert tripwires.look(evidence(*predicting(0.4, 3.4, kind="steps"))) == (), "the virtual clock"
    assert tripwires.look(evidence(*predicting(0.0, 0.0))) == (), "a loop from before this was measured"


def test_a_noisy_verdict_widens_what_a_claim_may_say() -> None:
    boasting = replace(judged(sampling_se=0.05), claim=Claim(bits=0.8, steps=10, metrics=3))
    assert tripwires.claim_mismatch(evidence(boasting)) is None


def test_identical_weights_under_different_seeds_are_an_alarm() -> None:
    (alarm,) = tripwires.look(evidence(TRIAL, replace(OTHER, weights=TRIAL.weights)))
    assert (alarm.name, alarm.evidence) == ("seeds_ignored", ("g1-c0", "g1-c1"))
    inert = replace(TRIAL, trial_id="g1-p0")  # an edit without effect, under the same seeds
    assert tripwires.seeds_ignored(evidence(TRIAL, inert)) is None
    assert tripwires.seeds_ignored(evidence(failed("crashed"), replace(failed("crashed"), seeds=Seeds(8, 9)))) is None


def test_a_malformed_frame_is_an_alarm_from_a_trial_or_a_session() -> None:
    (alarm,) = tripwires.look(evidence(TRIAL, failed("malformed"), session_faults=("refused",)))
    assert (alarm.name, alarm.evidence) == ("broke_the_wire", ("g1-c1",))
    assert "2 guest(s)" in alarm.sentence
    assert tripwires.broke_the_wire(evidence(failed("timeout"))) is None
    assert tripwires.broke_the_wire(evidence(session_faults=("malformed",))) is not None


def test_a_parent_that_fails_at_its_gate_is_an_alarm_unless_its_guest_was_lost() -> None:
    def gone(trial_id: str, fault: str, purpose: str = "gate") -> Trial:
        return replace(failed(fault), trial_id=trial_id, purpose=purpose)

    (alarm,) = tripwires.look(evidence(TRIAL, gone("g1-pair-1-parent", "crashed")))
    assert (alarm.name, alarm.evidence) == ("parent_failed", ("g1-pair-1-parent",))
    assert "crashed" in alarm.sentence
    others = (
        gone("g1-pair-1-child", "crashed"),
        gone("g1-panel-0", "crashed", "panel"),
        gone("g1-pair-1-parent", "lost"),
    )
    assert tripwires.look(evidence(*others)) == ()


def test_every_tripwire_is_in_the_registry() -> None:
    names = {
        alarm.name
        for alarm in tripwires.look(
            evidence(
                judged(score=-1.0, raw_bits=9.0, proof=replace(AGREES, agrees=False)),
                replace(OTHER, weights=TRIAL.weights),
                failed("malformed"),
                *predicting(0.4, 3.4),
                replace(failed("crashed"), trial_id="g1-pair-0-parent"),
                disturbed=({"trial_id": "g1-pair-0-child", "last": True},) * 3,
            )
        )
    }
    assert names == {check.__name__ for check in tripwires.TRIPWIRES}
