// One generation: what was decided and why, the numbers behind it, what changed, and what the improver said and did.
"use strict";
(function (bg) {
  const { h } = bg;
  const open = { n: null, tab: "changes" };
  const kept = {}; // large texts that were fetched: "diff 3" -> a promise
  bg.chosen = () => open.n;
  bg.forget = () => Object.keys(kept).forEach((key) => delete kept[key]);

  // Opening takes the focus along, closing brings it back to the row: the button that had it is drawn anew or gone.
  bg.pick = (n) => {
    open.n = open.n === n ? null : n;
    bg.redraw();
    const panel = document.getElementById("generation");
    if (open.n && panel) panel.scrollIntoView({ block: "start" });
    const next = open.n ? panel : document.getElementById("open-" + n);
    if (next) next.focus({ preventScroll: Boolean(open.n) });
  };

  function fetched(what, n) {
    const key = what + " " + n;
    kept[key] = kept[key] || bg.source[what](n);
    return kept[key];
  }

  // A part that comes later: what stands there meanwhile, and what is said when it does not come.
  function later(promise, show) {
    const holder = h("div", { "aria-busy": "true" }, h("p", { class: "soft" }, "Fetching…"));
    promise.then(
      (value) => bg.put(holder, value ? show(value) : h("p", { class: "soft" }, "Nothing of this was recorded.")),
      (error) => bg.put(holder, h("p", { class: "note" }, "This could not be fetched: ", bg.foreign(error.message))),
    ).finally(() => holder.removeAttribute("aria-busy"));
    return holder;
  }

  bg.testimony = (note) =>
    note && h("div", { class: "testimony" }, h("div", { class: "name" }, bg.term("testimony", "The improver's own words: testimony, not evidence")), bg.foreign(note));

  function numbers(doc, g) {
    const unit = doc.loop.unit;
    const boot = g.boot && (g.boot.ok ? "passed: " : "failed: ") + g.boot.why;
    return bg.facts([
      ["gain over parent", [bg.interval(g.gain, 4, bg.plus), " bits; the gate's own interval"]],
      [bg.term("verdict"), [bg.interval(g.raw), " ", unit, g.raw && ", " + bg.many(g.raw.n, "seed"), g.measured_by === "panel" && [", ", bg.term("panel", "on new seeds")]]],
      [["above the ", bg.term("floor")], g.score ? [bg.interval(g.score), g.floor > 0 && "; the floor of its documents is " + bg.num(g.floor)] : "–"],
      [bg.term("claim"), [bg.num(g.claim), bg.known(g.claim_gap) && " (" + bg.plus(g.claim_gap) + " against the verdict)"]],
      [[bg.term("fitted"), " to select"], g.fitted ? bg.interval(g.fitted, 4, bg.plus) + " bits" : "not measured"],
      boot && [bg.term("boot check"), bg.foreign(boot)],
      g.review && [bg.term("review"), [g.review.decision + " by ", bg.foreign(g.review.who), ": ", bg.foreign(g.review.reason)]],
      ["explored", [bg.many(g.explored, "trial"), bg.known(g.best_explored) && ", best score on select " + bg.num(g.best_explored)]],
      ["cost", [bg.seconds(g.cost.train_seconds), " trained, ", bg.many(g.cost.calls, "model call"), ", ", bg.usd(g.cost.usd)]],
      g.alarms > 0 && ["alarms", bg.many(g.alarms, "tripwire") + " fired"],
    ]);
  }

  bg.trialsOf = (doc, n) => {
    const { columns, rows } = doc.trials;
    const at = columns.indexOf("generation");
    return rows.filter((row) => row[at] === n).map((row) => Object.fromEntries(columns.map((name, k) => [name, row[k]])));
  };

  function trials(doc, g) {
    const own = bg.trialsOf(doc, g.n);
    const onSelect = (t) => (t.purpose === "explore" ? t.score : t.select);
    const proof = (value) => (value === null ? "" : value ? "agrees" : "DISAGREES");
    const row = (t) => [
      bg.code(bg.foreign(t.id)), t.purpose, bg.num(t.claim), bg.num(t.raw), bg.num(t.score, 4), bg.num(onSelect(t), 4),
      bg.seconds(t.seconds), t.fault || "", proof(t.proof), t.note ? bg.foreign("“" + t.note + "”") : "",
    ];
    if (doc.trials.dropped) return h("p", { class: "soft" }, "The rows of single trials were left out of this file to keep it small.");
    if (!own.length) return h("p", { class: "soft" }, "No trial was run.");
    const head = [
      bg.term("trial"), "for", bg.term("claim"), [bg.term("verdict"), ", raw"], ["above ", bg.term("floor")], ["on ", bg.term("select")],
      "trained", "fault", bg.term("proof"), "tried, in its improver's words",
    ];
    const splits = ["Explorations are judged on ", bg.term("select"), " alone; pairs on ", bg.term("confirm"), ", and on select beside; a ", bg.term("panel"), " on documents of its own."];
    return [bg.table(head, own.map(row), { class: "rows", label: "trials of generation " + g.n }), h("p", { class: "small soft" }, splits)];
  }

  const TABS = [
    ["changes", "What changed", (doc, g) => later(fetched("diff", g.n), bg.diffView)],
    ["session", "The improver's session", (doc, g) => later(fetched("session", g.n), bg.sessionView)],
    ["trials", "Trials", trials],
    ["curves", "Curves", (doc, g) => later(fetched("curves", g.n), curves)],
  ];

  function curves(found) {
    const { series = [], missing = [] } = found;
    const none = !missing.length && h("p", { class: "soft" }, "No curves were recorded.");
    return h("div", {}, bg.missing(missing), series.length ? bg.curveCharts(series) : none);
  }

  function step(by) {
    return () => {
      open.n += by;
      bg.redraw();
    };
  }

  bg.detail = (doc) => {
    const g = doc.generations.find((one) => one.n === open.n);
    if (!g) return null;
    const tabs = TABS.filter(([key]) => key === "changes" || key === "trials" || bg.source.can(key));
    if (!tabs.some(([key]) => key === open.tab)) open.tab = "changes";
    const body = h("div", { role: "tabpanel", "aria-labelledby": "tab-" + open.tab });
    const show = () => bg.put(body, tabs.find(([key]) => key === open.tab)[2](doc, g));
    const buttons = tabs.map(([key, label]) =>
      bg.button(label, () => {
        open.tab = key;
        buttons.forEach((button) => button.setAttribute("aria-selected", String(button.id === "tab-" + key)));
        body.setAttribute("aria-labelledby", "tab-" + key);
        show();
      }, { role: "tab", id: "tab-" + key, "aria-selected": String(key === open.tab) }),
    );
    show();
    const first = doc.generations[0].n;
    const last = doc.generations.at(-1).n;
    const moves = h("div", { class: "actions" }, bg.button("←", step(-1), { id: "earlier", "aria-label": "previous generation", disabled: g.n <= first }), bg.button("→", step(1), { id: "later", "aria-label": "next generation", disabled: g.n >= last }), bg.button("Close", () => bg.pick(g.n), { id: "close" }));
    const again = !doc.playback && doc.oversight.waiting !== g.n && bg.recheck(g, "Train it again (recheck)");
    const decided = h("p", { class: "badges" }, h("span", {}, "trainer ", bg.trainerMark(g)), h("span", {}, "scaffold ", bg.scaffoldMark(g)), g.kinds.length > 0 && h("span", {}, "changed " + g.kinds.join(", ")));
    return h(
      "article",
      { class: "detail", id: "generation", tabindex: "-1", "aria-label": "generation " + g.n },
      h("header", {}, h("div", {}, h("h3", {}, "Generation " + g.n), decided), moves),
      h("p", { class: "why" }, bg.foreign(g.why || g.gate_why || g.fault || "Not decided yet.")),
      h("div", { class: "columns" }, h("div", {}, numbers(doc, g), again), h("div", {}, bg.pairChart(doc, g))),
      h("div", { class: "columns" }, bg.testimony(g.note)),
      h("div", { class: "tabs", role: "tablist" }, buttons),
      body,
    );
  };
})((window.bellglass = window.bellglass || {}));
