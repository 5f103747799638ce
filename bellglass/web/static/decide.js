// Where a person decides: the review of a successor, re-arming a tripwire, recheck and stop. Only where the page can write;
// elsewhere it says which command does the same.
"use strict";
(function (bg) {
  const { h } = bg;

  // A form is made once for what it is about, and the page takes it along when it is drawn again: what was typed, chosen
  // and answered stays in it, and goes with it when something else is decided in its place.
  const forms = new Map(); // place -> [what it is about, its form]
  function formOf(place, about, make) {
    if (!forms.has(place) || forms.get(place)[0] !== about) forms.set(place, [about, make()]);
    return forms.get(place)[1];
  }

  const NOTE_CHARS = 2000; // show/view.py gives no more of an improver's note
  const CHOICES = [
    ["approve", "Approve"],
    ["trainer", "Trainer only"],
    ["reject", "Reject"],
  ];

  function tell(answer, said) {
    const lines = said.split("\n").filter((line) => line.trim());
    bg.put(answer, lines.length > 1 ? h("ul", {}, lines.map((line) => h("li", {}, bg.foreign(line)))) : bg.foreign(said));
    bg.say(lines.join(". "));
  }

  async function act(answer, action, body, meanwhile = "Sending…") {
    tell(answer, meanwhile);
    try {
      tell(answer, (await bg.source.act(action, body)).message);
    } catch (error) {
      tell(answer, error.message);
    }
  }

  const answerPlace = () => h("div", { class: "answer small" });
  const reasonField = (id, label, hint) => h("textarea", { id, "aria-label": label, placeholder: hint });
  const deed = (send, ...parts) => h("form", { class: "deed", on: { submit: (event) => (event.preventDefault(), send(event.currentTarget)) } }, parts);
  const doing = (label, more) => h("button", { type: "submit", ...more }, label);
  const KEPT = "Why, in a few words. It is kept in the ledger.";

  // What it does to this successor, the host says.
  function choice([key, label], what) {
    const input = h("input", { type: "radio", name: "decision", value: key, id: "decide-" + key });
    return h("label", { for: "decide-" + key }, input, h("span", {}, h("b", {}, label), h("span", { class: "soft" }, ": ", bg.foreign(what))));
  }

  const inSight = new Map(); // successors whose whole diff is on the page, and the hash of what is shown

  function reviewForm(g, outcomes) {
    const answer = answerPlace();
    const reason = reasonField("review-reason", "reason of the decision", KEPT);
    const send = (form) => {
      const decision = form.elements.decision.value;
      if (!decision || !reason.value.trim()) return tell(answer, "A decision and a reason are both needed.");
      if (decision !== "reject" && !inSight.has(g.successor)) return tell(answer, "The diff is not on this page yet. Nobody can approve what they can't see.");
      return act(answer, "review", { generation: g.n, decision, reason: reason.value.trim(), evidence_hash: inSight.get(g.successor) || g.evidence });
    };
    const choices = h("fieldset", {}, h("legend", {}, "Your decision"), CHOICES.map((one) => choice(one, outcomes[one[0]] || "")));
    return deed(send, choices, reason, h("div", { class: "actions" }, doing("Decide", { class: "strong" })), answer);
  }

  // Parent and child of a gate, trained again. Of what waits for a review, its own panel offers it.
  bg.recheck = (g, label) => {
    if (!bg.source.can("recheck") || !g.gate) return null;
    return formOf("recheck " + g.n, g.successor, () => {
      const answer = answerPlace();
      const send = () => act(answer, "recheck", { generation: g.n }, "Parent and child are trained again; it takes as long as the gate did.");
      return deed(send, h("div", { class: "actions" }, doing(label, { id: "recheck-" + g.n })), answer);
    });
  };

  // What the gate saw, trial by trial: it is part of the evidence.
  function gateTrials(doc, g) {
    const trials = bg.trialsOf(doc, g.n).filter((t) => t.purpose === "gate");
    const row = (t) => [bg.code(bg.foreign(t.id)), bg.num(t.claim, 4), bg.num(t.raw, 4), bg.num(t.score, 4), t.fault || ""];
    const head = ["trial", bg.term("claim"), bg.term("verdict"), ["above ", bg.term("floor")], "fault"];
    return trials.length > 0 && h("details", { class: "more" }, h("summary", {}, "The gate's " + bg.many(trials.length, "trial")), bg.table(head, trials.map(row), { class: "rows", label: "trials of the gate" }));
  }

  bg.review = (doc) => {
    const n = doc.oversight.waiting;
    const g = n && doc.generations.find((one) => one.n === n);
    if (!g || doc.playback) return null;
    const cut = g.note.length >= NOTE_CHARS && [" The improver's own words are cut here; ", bg.code("bellglass review " + doc.loop.name), " shows all of them."];
    const bound = ["Your answer is bound to evidence ", bg.code(g.evidence.slice(0, 12)), ", a hash over both commits, the red flags, the diff, the gate's numbers and trials, the boot check, the improver's own words and what each answer does; numbers are rounded here.", cut, " No answer is no."];
    const warning = g.gate && g.gate !== "adopt" && h("p", { class: "note alarm" }, "The gate did not adopt it, so whatever you decide, its trainer is not adopted.");
    const diff = h("div", { "aria-busy": "true" }, h("p", { class: "soft" }, "Fetching the diff…"));
    const flags = h("div", { class: "first" });
    const hidden = h("p", { class: "folded small", "aria-live": "polite" });
    const show = (found) => {
      const shown = bg.diffToDecide(found, hidden);
      const other = found.evidence && found.evidence !== g.evidence && h("p", { class: "note alarm" }, "The loop asked about other evidence than is shown here, so no answer is taken: ", bg.code("bellglass resume " + doc.loop.name), " asks again.");
      bg.put(flags, other, shown.flags);
      bg.put(diff, shown.files);
      if (!found.missing) inSight.set(g.successor, found.evidence);
    };
    bg.source.diff(n).then(show, (error) => bg.put(diff, h("p", { class: "note alarm" }, "The diff could not be fetched: ", bg.foreign(error.message), ". Don't approve what you can't see.")));
    return h(
      "section",
      { class: "decide", id: "review", "aria-label": "review of generation " + n },
      h("h2", {}, "Generation " + n + " waits for a person"),
      flags,
      h("p", { class: "soft" }, bound),
      warning,
      h("div", { class: "columns" },
        bg.facts([
          ["the gate says", bg.foreign(g.gate ? g.gate + ": " + g.gate_why : "nothing: the trainer is unchanged")],
          g.gate && ["gain over parent", [bg.interval(g.gain, 4, bg.plus), " bits"]],
          ["verdict", bg.interval(g.raw)],
          ["claim", bg.num(g.claim)],
          ["changed", g.kinds.join(", ")],
          g.boot && ["boot check", bg.foreign((g.boot.ok ? "passed: " : "failed: ") + g.boot.why)],
          ["alarms", g.alarms ? bg.many(g.alarms, "tripwire") + " fired" : "none"],
          ["parent", bg.code(g.parent)],
          ["successor", bg.code(g.successor)],
        ]),
        h("div", {}, bg.testimony(g.note))),
      gateTrials(doc, g),
      h("h3", {}, "The whole diff, every path in it, the trainer first"),
      diff,
      hidden,
      bg.source.can("review")
        ? [formOf("review", n + " " + g.evidence, () => reviewForm(g, doc.choices || {})), bg.recheck(g, "Train it again first (recheck)")]
        : [h("p", { class: "soft small" }, "Decide with:"), h("p", { class: "commands mono" }, "bellglass review " + doc.loop.name)],
    );
  };

  const words = (name) => name.replaceAll("_", " ");
  const evidenceOf = (wire) => (Array.isArray(wire.evidence) ? wire.evidence : []);
  const place = (wire) => (evidenceOf(wire).some((id) => String(id).startsWith("final-")) ? " on final" : " in generation " + wire.generation);

  function rearmForm(wires) {
    const name = wires[0].name;
    const answer = answerPlace();
    const reason = reasonField("rearm-" + name, "reason for re-arming " + words(name), "Why it is safe to go on. It is kept in the ledger.");
    const send = () => act(answer, "rearm", { name, reason: reason.value.trim(), seen: wires.map((wire) => wire.sentence).join("\n") });
    return deed(send, reason, h("div", { class: "actions" }, doing("Re-arm " + words(name))), answer);
  }

  bg.tripped = (doc) => {
    if (!doc.tripwires.length) return null;
    const one = (wire) =>
      h("li", {}, bg.icon("alarm"), h("div", {}, h("b", {}, words(wire.name)), place(wire) + ": ", bg.foreign(wire.sentence),
        h("div", { class: "small soft" }, "evidence: ", evidenceOf(wire).map((id, k) => [k ? ", " : "", bg.code(bg.foreign(id))]))));
    const forms = [...new Set(doc.tripwires.map((wire) => wire.name))].map((name) => {
      const wires = doc.tripwires.filter((wire) => wire.name === name);
      return formOf("rearm " + name, JSON.stringify(wires), () => rearmForm(wires));
    });
    return h(
      "section",
      { class: "decide alarm", id: "tripwires", "aria-label": "tripwires" },
      h("h2", {}, "Halted by a tripwire"),
      h("p", { class: "soft" }, "It stays latched until a person has looked and re-arms it."),
      h("ul", { class: "list" }, doc.tripwires.map(one)),
      bg.source.can("rearm") ? forms : h("p", { class: "commands mono" }, "bellglass review " + doc.loop.name + " --rearm " + doc.tripwires[0].name + " --reason '…'"),
    );
  };

  // Stop is asked twice, because it kills; in between there is room for a reason.
  function stopForm() {
    const answer = answerPlace();
    const reason = reasonField("stop-reason", "reason of the stop", "Why, in a few words; may stay empty.");
    const button = doing("", { class: "grave", id: "stop" });
    const back = bg.button("Let it run", () => (ask(false), button.focus()));
    const ask = (on) => {
      reason.hidden = back.hidden = !on;
      bg.put(button, on ? "Stop it: are you sure?" : "Stop the loop");
    };
    ask(false);
    const send = () => {
      if (reason.hidden) return ask(true), reason.focus();
      ask(false);
      return act(answer, "stop", { reason: reason.value.trim() || "stopped from the page" }, "Stopping…");
    };
    return deed(send, reason, h("div", { class: "actions" }, button, back), answer);
  }

  bg.stopPart = (doc) => {
    if (doc.ended) forms.delete("stop"); // when it is resumed, it is asked anew
    return !bg.source.can("stop") || doc.ended || doc.playback ? null : formOf("stop", "", stopForm);
  };
})((window.bellglass = window.bellglass || {}));
