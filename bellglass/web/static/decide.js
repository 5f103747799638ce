// Where a person decides: the review of a successor, re-arming a tripwire, recheck and stop. Only where the page can write;
// elsewhere it says which command does the same.
"use strict";
(function (bg) {
  const { h } = bg;
  const draft = { reason: "", decision: "", answer: "" }; // kept when the page is drawn again while somebody types

  let sure = false; // stop is asked twice, because it kills
  bg.draftOf = () => [draft.answer, sure];

  const CHOICES = [
    ["approve", "Approve", "trainer and scaffold are taken over as the rules say"],
    ["trainer", "Trainer only", "the better trainer is taken over, the scaffold stays its parent's"],
    ["reject", "Reject", "nothing is taken over"],
  ];

  async function act(action, body, done) {
    draft.answer = "Sending…";
    bg.redraw();
    try {
      const reply = await bg.source.act(action, body);
      draft.answer = reply.message || done;
      draft.reason = "";
    } catch (error) {
      draft.answer = error.message;
    }
    bg.say(draft.answer);
    bg.redraw();
  }

  function reasonField() {
    const field = h("textarea", { id: "reason", "aria-label": "reason", placeholder: "Why, in a few words. It is kept in the ledger." });
    field.value = draft.reason;
    field.addEventListener("input", () => (draft.reason = field.value));
    return field;
  }

  const answer = () => h("p", { class: "answer small", role: "status" }, bg.foreign(draft.answer));

  function choice([key, label, what]) {
    const input = h("input", { type: "radio", name: "decision", value: key, id: "decide-" + key, checked: draft.decision === key });
    input.addEventListener("change", () => (draft.decision = key));
    return h("label", { for: "decide-" + key }, input, h("span", {}, h("b", {}, label), h("span", { class: "soft" }, ": ", what)));
  }

  function form(g) {
    const send = () => {
      if (!draft.decision || !draft.reason.trim()) {
        draft.answer = "A decision and a reason are both needed.";
        bg.say(draft.answer);
        return bg.redraw();
      }
      const body = { generation: g.n, decision: draft.decision, reason: draft.reason.trim(), evidence_hash: g.evidence };
      return act("review", body, "Recorded. The loop goes on with it.");
    };
    return h(
      "form",
      { on: { submit: (event) => (event.preventDefault(), send()) } },
      h("fieldset", {}, h("legend", {}, "Your decision"), CHOICES.map(choice)),
      reasonField(),
      h("div", { class: "actions" }, h("button", { type: "submit", class: "strong" }, "Decide"),
        bg.source.can("recheck") && bg.button("Train it again first (recheck)", () => act("recheck", { generation: g.n }, "The recheck was asked for."))),
      answer(),
    );
  }

  bg.review = (doc) => {
    const n = doc.oversight.waiting;
    const g = n && doc.generations.find((one) => one.n === n);
    if (!g || doc.playback) return null;
    const bound = ["Your answer is bound to evidence ", bg.code(g.evidence.slice(0, 12)), ": exactly what is shown here. No answer is no."];
    const diff = h("div", { "aria-busy": "true" }, h("p", { class: "soft" }, "Fetching the diff…"));
    bg.source.diff(n).then((found) => bg.put(diff, bg.diffView(found)), (error) => bg.put(diff, h("p", { class: "note alarm" }, "The diff could not be fetched: ", bg.foreign(error.message), ". Don't approve what you can't see.")));
    return h(
      "section",
      { class: "decide", id: "review", "aria-label": "review of generation " + n },
      h("h2", {}, "Generation " + n + " waits for a person"),
      h("p", { class: "soft" }, bound),
      h("div", { class: "columns" },
        bg.facts([
          ["the gate says", bg.foreign(g.gate ? g.gate + ": " + g.gate_why : "nothing: the trainer is unchanged")],
          ["verdict", bg.interval(g.raw)],
          ["claim", bg.num(g.claim)],
          ["changed", g.kinds.join(", ")],
          g.boot && ["boot check", bg.foreign((g.boot.ok ? "passed: " : "failed: ") + g.boot.why)],
          ["alarms", g.alarms ? bg.many(g.alarms, "tripwire") + " fired" : "none"],
        ]),
        h("div", {}, bg.testimony(g.note))),
      h("details", { class: "more", open: true }, h("summary", {}, "The whole diff, the trainer first"), diff),
      bg.source.can("review") ? form(g) : [h("p", { class: "soft small" }, "Decide with:"), h("p", { class: "commands mono" }, "bellglass review " + doc.loop.name)],
    );
  };

  bg.tripped = (doc) => {
    if (!doc.tripwires.length) return null;
    const one = (wire) =>
      h("li", {}, bg.icon("alarm"), h("div", {}, h("b", {}, wire.name.replaceAll("_", " ")), " in generation " + wire.generation + ": ", bg.foreign(wire.sentence),
        h("div", { class: "small soft" }, "evidence: ", wire.evidence.map((id, k) => [k ? ", " : "", bg.code(bg.foreign(id))])),
        bg.source.can("rearm") && h("div", { class: "actions" }, bg.button("Re-arm with the reason below", () => act("rearm", { name: wire.name, reason: draft.reason.trim() }, "Re-armed.")))));
    return h(
      "section",
      { class: "decide alarm", id: "tripwires", "aria-label": "tripwires" },
      h("h2", {}, "Halted by a tripwire"),
      h("p", { class: "soft" }, "It stays latched until a person has looked and re-arms it."),
      h("ul", { class: "list" }, doc.tripwires.map(one)),
      bg.source.can("rearm") ? [reasonField(), answer()] : h("p", { class: "commands mono" }, "bellglass review " + doc.loop.name + " --rearm " + doc.tripwires[0].name + " --reason '…'"),
    );
  };

  bg.stopButton = (doc) => {
    if (!bg.source.can("stop") || doc.ended || doc.playback) return null;
    const press = () => {
      if (!sure) {
        sure = true;
        setTimeout(() => ((sure = false), bg.redraw()), 6000);
        return bg.redraw();
      }
      sure = false;
      return act("stop", { reason: draft.reason.trim() || "stopped from the page" }, "Stopping.");
    };
    return [bg.button(sure ? "Stop it: are you sure?" : "Stop the loop", press, { class: "grave", id: "stop" }), draft.answer && answer()];
  };
})((window.bellglass = window.bellglass || {}));
