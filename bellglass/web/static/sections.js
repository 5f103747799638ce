// The parts of the page, from the headline to what may be concluded. Each names what of the document it reads, so that
// news redraw only what they change.
"use strict";
(function (bg) {
  const { h, s } = bg;
  const END = {
    finished: "Finished within its bounds",
    stalled: "Stalled: it stopped gaining",
    bound: "A bound was reached",
    waiting: "Waits for a person's review",
    tripwire: "Halted by a tripwire",
    stopped: "Stopped by a person",
    failed: "Ended with an error",
  };

  // It ended because it waited for a person, and the person has decided since.
  const decided = (doc) => doc.ended && doc.ended.why === "waiting" && !doc.oversight.waiting;

  // What a person types to go on; a report or a recording is read elsewhere.
  const next = (doc) => {
    if (bg.source.report || doc.playback || doc.ended.why === "finished") return "";
    return "; bellglass resume " + doc.loop.name + " goes on" + (doc.ended.why === "bound" ? ", with a higher bound" : "");
  };

  // Why it ended, with the reason that a person gave for a stop.
  function ending(doc) {
    const { why, detail } = doc.ended;
    if (["finished", "waiting"].includes(why)) return null;
    const asked = why === "stopped" && doc.stop_requested;
    return h("span", { class: "foreign" }, asked ? detail + " by " + asked.who + ": " + asked.reason : detail);
  }

  bg.stateOf = (doc) => {
    if (doc.tripwires.length) return ["alarm", END.tripwire];
    if (doc.oversight.waiting) return ["under way", "Generation " + doc.oversight.waiting + " waits for a person"];
    if (decided(doc)) return ["unchanged", "Decided; bellglass resume " + doc.loop.name + " goes on"];
    if (doc.ended) return [doc.ended.why === "finished" ? "adopted" : "unchanged", (END[doc.ended.why] || doc.ended.why) + next(doc)];
    return ["under way", doc.phase.charAt(0).toUpperCase() + doc.phase.slice(1)];
  };

  function hero(doc) {
    const loop = doc.loop;
    const models = Object.entries(loop.models).map(([name, model]) => (name === "main" ? model : name + ": " + model));
    const [icon, words] = bg.stateOf(doc);
    const received = loop.standing && loop.standing.word === "received";
    const seal = received ? ["unchanged", [bg.term("received"), ": its maker says glass ", bg.foreign(String(loop.glass))]] : loop.sealed ? ["adopted", [bg.term("sealed"), ", " + loop.glass]] : ["rejected", [bg.term("unsealed"), ": " + loop.glass + ", isolates nothing"]];
    return h(
      "div",
      { class: "hero" },
      h("p", { class: "kicker" }, bg.term("loop"), " ", bg.code(loop.id), loop.started && " · " + bg.when(loop.started)),
      h("h1", {}, bg.foreign(String(loop.task || "a loop").split("/").at(-1))),
      loop.title && h("p", { class: "lead" }, loop.title),
      h(
        "p",
        { class: "badges" },
        h("span", {}, bg.icon(icon), words),
        h("span", {}, bg.icon(seal[0]), h("span", {}, seal[1])),
        h("span", {}, bg.term("improver"), bg.foreign(models.join(", "))),
        doc.ended && ending(doc),
      ),
    );
  }

  const tile = (name, value, unit, more) =>
    h("div", { class: "tile" }, h("div", { class: "name" }, name), h("div", { class: "value" }, value, unit && h("small", {}, unit)), h("div", { class: "more" }, more));

  function headline(doc) {
    const gens = doc.generations.filter((g) => g.done);
    const final = doc.final && doc.final.gain;
    const champion = gens.filter((g) => g.trainer === "adopted" && g.score).at(-1) || doc.starter;
    const adopted = doc.oversight.adopted;
    const unit = doc.loop.unit;
    const failed = doc.final && doc.final.failed ? ["; ", bg.foreign(doc.final.failed)] : [];
    const first = doc.final
      ? final
        ? tile([bg.term("final"), ": gain over the starter"], bg.plus(final.mean), unit, [bg.range(final), ", " + (doc.final.clear ? "clear of zero" : "NOT clear of zero"), ...failed])
        : tile([bg.term("final"), ": gain over the starter"], "none", "", [bg.foreign(doc.final.lacks), ...failed])
      : tile([bg.term("verdict", "Verdict"), " of the ", bg.term("champion")], bg.num(champion.raw && champion.raw.mean), unit, "starter " + bg.num(doc.starter.raw && doc.starter.raw.mean) + "; the final split is not opened yet");
    const rest = gens.length - adopted;
    const score = (one) => (one.score ? bg.num(one.score.mean) : "–");
    return h(
      "div",
      { class: "tiles" },
      first,
      tile([bg.term("generation", "Generations"), " adopted"], adopted + " of " + gens.length, "", bg.count(rest) + " not adopted; " + bg.count(doc.config.generations) + " allowed"),
      doc.floor > 0 && tile(["Above the ", bg.term("floor")], score(champion), unit, "starter " + score(doc.starter) + "; each above the floor of its own documents"),
      tile([bg.term("noise", "Noise"), " over seeds"], doc.calibration ? bg.num(doc.calibration.sd) : "–", "", doc.calibration ? [bg.term("smallest gain", "smallest detectable gain"), " " + bg.num(doc.calibration.smallest_gain)] : doc.calibrates ? "being measured" : "not measured"),
    );
  }

  function notes(doc) {
    const doubted = bg.source.report && bg.source.report.findings.some((finding) => !finding.ok); // then it is said first
    const lines = [
      ...doc.said,
      doc.loop.sealed === false && "Unsealed: guests were plain processes on this machine and isolated nothing. Only built-in improvers may run so.",
      doc.baselines ? doc.baselines.line : null,
      ...doc.missing.map((line) => "Missing: " + line + "."),
      ...((bg.source.report && bg.source.report.left_out) || []),
    ];
    return h("div", { class: "notes" }, lines.filter(Boolean).map((line, k) => h("p", { class: k === 0 && doubted ? "note alarm" : "note" }, bg.foreign(line))));
  }

  // Generations as rows

  let whole = false;
  const MOST = 25;
  function generations(doc) {
    const all = doc.generations;
    if (!all.length) return h("p", { class: "intro" }, "None yet.");
    const shown = whole ? all : all.slice(-MOST);
    const gains = shown.flatMap((g) => (g.gain ? [g.gain] : []));
    const reach = bg.reach(gains);
    const row = (g) => {
      const cells = [
        bg.button(String(g.n), (e) => (e.stopPropagation(), bg.pick(g.n)), { class: "rowlink", id: "open-" + g.n, "aria-label": "open generation " + g.n, "aria-expanded": String(bg.chosen() === g.n) }),
        bg.trainerMark(g),
        bg.scaffoldMark(g),
        g.kinds.join(", ") || "–",
        h("span", { class: "mark" }, bg.bar(g.gain, reach, 112), g.gain && bg.plus(g.gain.mean)),
        h("span", {}, bg.num(g.raw && g.raw.mean), " ", h("span", { class: "soft small" }, bg.range(g.raw))),
        bg.num(g.claim),
        bg.plus(g.fitted && g.fitted.mean),
        bg.seconds(g.cost.train_seconds),
        g.cost.usd === null ? "unknown" : bg.num(g.cost.usd, g.cost.usd < 1 ? 4 : 2),
      ];
      const tr = h("tr", { class: "pick", "aria-selected": String(bg.chosen() === g.n) }, cells.map((cell, k) => h("td", { class: k === 3 ? "wide" : k === 1 && !g.done ? "stage" : null }, cell)));
      tr.addEventListener("click", () => bg.pick(g.n));
      return tr;
    };
    const head = ["generation", bg.term("trainer"), bg.term("scaffold"), "changed", "gain over parent, bits", bg.term("verdict"), bg.term("claim"), bg.term("fitted"), "trained", "USD"];
    const paid = shown.some((g) => g.cost.usd !== 0);
    const table = h("table", { class: "rows" }, h("thead", {}, h("tr", {}, head.map((cell) => h("th", { scope: "col" }, cell)))), h("tbody", {}, shown.map(row)));
    if (!paid) table.querySelectorAll("tr > :last-child").forEach((cell) => cell.remove());
    const more = all.length > MOST && bg.button(whole ? "Show the last " + MOST : "Show all " + bg.count(all.length), () => ((whole = !whole), bg.redraw()));
    const cut = gains.some((gain) => bg.cut(gain, reach)) && h("p", { class: "small soft" }, "A gain whose bar ends in an arrowhead goes on beyond it.");
    return [h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "generations" }, table), cut, more, bg.detail(doc)];
  }

  // Bounds and oversight

  function gauge(bound) {
    const used = bound.name === "usd" ? bg.usd(bound.used) : bound.unit === "s" ? bg.seconds(bound.used) : bg.count(bound.used);
    const limit = bound.limit === null ? "no limit" : "of " + (bound.unit === "s" ? bg.seconds(bound.limit) : bg.count(bound.limit) + (bound.unit ? " " + bound.unit : ""));
    const share = bound.limit ? (bound.used || 0) / bound.limit : 0;
    const bar = bound.limit !== null && s("svg", { viewBox: "0 0 100 6", preserveAspectRatio: "none", role: "img", "aria-label": bg.num(share * 100, 0) + " % used" },
      s("rect", { class: "back", x: 0, y: 0, width: 100, height: 6 }), s("rect", { class: share > 1 ? "over" : "used", x: 0, y: 0, width: Math.min(100, share * 100), height: 6 }));
    return h("div", { class: "gauge" }, h("div", { class: "name" }, h("span", {}, bound.label), h("span", { class: "soft" }, used + (bound.limit === null ? ", " : " ") + limit)), bar);
  }

  function boundsPart(doc) {
    const burnt = doc.burnt.train_seconds || doc.burnt.calls ? h("p", { class: "small soft" }, "Of it wasted by crashes: " + bg.seconds(doc.burnt.train_seconds) + " of training, " + bg.many(doc.burnt.calls, "call") + ".") : null;
    return h("div", {}, h("div", { class: "gauges" }, doc.bounds.map(gauge)), burnt, bg.stopPart(doc));
  }

  function safety(doc) {
    const o = doc.oversight;
    const looks = doc.looks || {};
    const people = o.people.length ? [" by ", bg.foreign(o.people.join(", "))] : "";
    const rule = { every: "every successor", tripwire: "only after a tripwire", never: "never" }[o.rule] || "–";
    const facts = bg.facts([
      [bg.term("received", "standing"), doc.loop.standing ? doc.loop.standing.word + ": " + doc.loop.standing.why : "–"],
      ["glass", doc.loop.sealed ? doc.loop.glass + ", sealed" : doc.loop.glass + ", unsealed"],
      [bg.term("review"), ["asked for: " + rule + ". ", bg.many(o.decided, "decision"), people, Object.keys(o.decisions).length ? " (" + Object.entries(o.decisions).map(([k, v]) => k + " " + v).join(", ") + ")" : ""]],
      ["adopted unseen", bg.count(o.adopted_without_review) + " of " + bg.count(o.adopted) + " adoptions had no person's decision"],
      [bg.term("tripwire", "tripwires"), doc.tripwires.length ? bg.many(doc.tripwires.length, "alarm") + " latched" : o.alarms ? bg.many(o.alarms, "alarm") + ", re-armed by a person" : "none fired"],
      ["looks at the splits", looks.select === undefined ? "–" : [bg.term("select"), " " + looks.select + ", ", bg.term("confirm"), " " + looks.confirm + " on " + (looks.confirm_slices > 1 ? looks.confirm_slices + " slices in turn" : bg.many(looks.confirm_sets, "fresh set")) + ", ", bg.term("final"), " " + looks.final]],
      [bg.term("secret commitment"), [bg.code(doc.loop.secret_commitment || "–"), doc.secret_revealed ? " (revealed at the end)" : " (not revealed yet)"]],
      [bg.term("head", "ledger head"), bg.code(doc.loop.head || "–")],
    ]);
    const findings = bg.source.report && bg.source.report.findings;
    const list = findings && [h("h3", { class: "after" }, "What verify found when this file was made"),
      h("ul", { class: "list" }, findings.map((f) => h("li", {}, bg.icon(!f.ok ? "alarm" : f.unproved ? "unchanged" : "adopted"), h("div", {}, h("b", {}, f.what), ": ", bg.foreign(f.found)))))];
    return h("div", { class: "columns" }, facts, h("div", {}, list || h("p", { class: "small soft" }, "Chain, hashes, seeds and decisions are derived again with ", bg.code("bellglass verify " + doc.loop.name), ".")));
  }

  function conclusions(doc) {
    const list = (title, icon, lines) => lines.length > 0 && h("div", {}, h("h3", {}, title), h("ul", { class: "list" }, lines.map((line) => h("li", {}, bg.icon(icon), h("div", {}, bg.foreign(line))))));
    return h("div", { class: "columns" }, list("May be concluded", "adopted", doc.conclusions.may), list("May not be concluded", "failed", doc.conclusions.may_not));
  }

  function reproduce(doc) {
    const r = bg.source.report && bg.source.report.reproduce;
    if (!r) return null;
    return h("div", {}, h("pre", { class: "commands", tabindex: "0" }, r.commands.join("\n")), h("div", { class: "columns" }, bg.facts(r.facts.map(([name, value]) => [name, bg.foreign(value)]))));
  }

  const part = (id, title, intro, ...body) => h("section", { class: "part", id }, h("h2", {}, title), intro && h("p", { class: "intro" }, intro), body);
  const ui = () => [bg.chosen(), whole];

  bg.parts = [
    { key: "hero", of: (d) => [d.loop, d.ended, d.tripwires, d.oversight.waiting, d.phase], draw: hero },
    { key: "tripped", of: (d) => [d.tripwires], draw: (d) => bg.tripped(d) },
    { key: "review", of: (d) => [d.playback, d.generations.find((g) => g.n === d.oversight.waiting)], draw: (d) => bg.review(d) },
    { key: "headline", of: (d) => [d.final, d.generations.length, d.generations.at(-1), d.calibration, d.calibrates, d.starter], draw: headline },
    { key: "notes", of: (d) => [d.said, d.missing, d.baselines], draw: notes },
    { key: "chart", of: (d) => [d.generations, d.starter, d.calibration, d.calibrates, d.baselines], draw: (d) => part("overview", "What was measured", null, bg.verdictChart(d)) },
    { key: "now", of: (d) => [d.ended, d.under_way, d.calls_under_way, bg.growing()], draw: (d) => (d.ended ? null : part("now", "Under way", null, bg.now(d))) },
    { key: "lineage", nav: "Lineage", of: (d) => [d.generations, ui()], draw: (d) => part("lineage", "Lineage", ["Every ", bg.term("generation"), " has two decisions. A ", bg.term("scaffold"), " comes along with a better ", bg.term("trainer"), "; it was not selected for itself."], bg.lineageChart(d)) },
    { key: "generations", nav: "Generations", of: (d) => [d.generations, d.trials.rows.length, ui()], draw: (d) => part("generations", "Generations", "Open one to see why it was decided so, what it changed, and what its improver did.", generations(d)) },
    { key: "skills", nav: "Skills", of: (d) => [d.generations, d.starter], draw: (d) => part("skills", "Skills of the champion", [d.loop.unit + " above each skill's own ", bg.term("floor"), ", from the starter to the last generation; one scale, lower is better."], bg.skillCharts(d)) },
    { key: "gaps", nav: "Claims", of: (d) => [d.generations], draw: (d) => part("gaps", "Claims and fit", "Two ways a number can flatter: the inside says so, or its documents were looked at too often.", h("div", { class: "pair" }, bg.claimGap(d), bg.fitGap(d))) },
    { key: "bounds", nav: "Bounds", of: (d) => [d.bounds, d.burnt, d.ended], draw: (d) => part("bounds", "Bounds", ["What the loop may use, and has used. ", bg.term("bounds", "Bounds"), " lie outside the glass."], boundsPart(d)) },
    { key: "safety", nav: "Safety", of: (d) => [d.oversight, d.tripwires, d.looks, d.loop], draw: (d) => part("safety", "Safety and oversight", null, safety(d)) },
    { key: "conclusions", nav: "Conclusions", of: (d) => [d.conclusions], draw: (d) => part("conclusions", "What this shows, and what not", null, conclusions(d)) },
    { key: "reproduce", nav: "Reproduce", only: () => bg.source.report, of: () => [], draw: (d) => part("reproduce", "How to reproduce it", null, reproduce(d)) },
  ];
})((window.bellglass = window.bellglass || {}));
