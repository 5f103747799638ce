// The charts of a loop: verdicts with intervals, noise, floor and baselines; what each skill did; the two gaps.
"use strict";
(function (bg) {
  const { h, s } = bg;
  const name = (i) => (i === 0 ? "starter" : String(i));
  const gens = (doc) => doc.generations;
  const word = (i) => (i === 0 ? "Starter" : "Generation " + i);

  // The champion's verdict after each generation, carried on until the next adoption.
  function champions(doc) {
    let now = doc.starter;
    return [doc.starter, ...gens(doc).map((g) => (g.trainer === "adopted" && g.raw ? (now = g) : now))];
  }

  bg.decided = (g) => (g.done ? (g.raw ? g.trainer : g.trainer === "unchanged" ? "unchanged" : "failed") : "under way");

  // A value holds from its generation until the next one; the last, to the edge.
  function stepLine(f, values) {
    const d = [];
    values.forEach((value, i) => {
      if (!bg.known(value) || (i && values[i - 1] === value)) return;
      d.push((d.length ? "H" + f.x(i) + "V" : "M" + f.x(i) + " ") + f.y(value));
    });
    return d.length ? s("path", { class: "line", d: d.join("") + "H" + (f.width - f.box.right) }) : null;
  }

  // Text at the right end of lines, moved apart where it would overlap.
  function endLabels(f, labels) {
    const placed = labels.map(([value, text]) => [f.y(value), text]).sort((a, b) => a[0] - b[0]);
    placed.forEach((label, i) => {
      if (i) label[0] = Math.max(label[0], placed[i - 1][0] + 18);
    });
    const x = f.width - f.box.right + 8;
    f.add(placed.map(([y, text]) => s("text", { x, y: y + 4 }, text)));
  }

  function baselines(doc) {
    if (!doc.baselines || !doc.starter.raw) return [];
    return Object.entries(doc.baselines.gains).map(([label, gain]) => {
      const at = (value) => doc.starter.raw.mean - value;
      return { label, mean: at(gain.mean), low: at(gain.high), high: at(gain.low), n: gain.n };
    });
  }

  function verdictTip(doc, i, unit) {
    const g = i === 0 ? doc.starter : gens(doc)[i - 1];
    const trainer = i === 0 ? "" : g.done ? "trainer " + g.trainer + ", scaffold " + g.scaffold : g.trainer;
    return [
      word(i),
      trainer,
      g.raw ? "verdict " + bg.interval(g.raw) + " " + unit : "no verdict",
      g.score && g.floor > 0 ? bg.num(g.score.mean) + " above the floor " + bg.num(g.floor) + " of its documents" : "",
      bg.known(g.claim) ? "claim " + bg.num(g.claim) : "no claim",
      i && g.gain ? "gain over parent " + bg.interval(g.gain, 3, bg.plus) : "",
      i && g.kinds.length ? "changed " + g.kinds.join(", ") : "",
    ];
  }

  function verdictMark(f, [g, i, kind], whisker) {
    const x = f.x(i);
    if (g.raw && bg.known(g.raw.low)) f.add(bg.whisker(f, x, g.raw.low, g.raw.high, Math.min(5, f.size), whisker));
    if (bg.known(g.claim) && g.raw && f.column > 2.5) {
      const aside = x + Math.min(14, f.column / 3);
      if (f.column > 8) f.add(s("path", { class: "thread", d: `M${x} ${f.y(g.raw.mean)}L${aside} ${f.y(g.claim)}` }));
      f.add(bg.shape("claim", aside, f.y(g.claim), f.size * 0.85));
    }
    if (g.raw) f.add(bg.shape(kind, x, f.y(g.raw.mean), f.size));
    else if (kind === "failed") f.add(bg.shape(kind, x, f.box.top + 8, Math.max(3, f.size)));
  }

  bg.verdictChart = (doc) => {
    const all = [doc.starter, ...gens(doc)];
    const unit = doc.loop.unit;
    if (!all.some((g) => g.raw)) return h("p", { class: "soft" }, "No verdict yet. ", doc.calibrates ? "The first are the starter's own, from the calibration that is under way." : "");
    const floor = doc.floor > 0 ? doc.floor : null;
    const noise = doc.calibration ? doc.calibration.band : null;
    const lines = baselines(doc);
    const judged = bg.ends(all.flatMap((g) => (g.raw ? [g.raw] : [])), 0.3);
    const top = Math.max(...judged, 0.1);
    const bottom = Math.min(...judged, top);
    const reach = Math.max(top - bottom, 0.2 * top); // a claim far away must not squeeze what was measured
    const occurs = (kind) => gens(doc).some((g) => bg.decided(g) === kind);
    const near = all.map((g) => g.claim).filter((c) => bg.known(c) && c > bottom - reach && c < top + reach);
    const draw = (width) => {
      const narrow = width < 560;
      const height = narrow ? 300 : Math.min(480, Math.max(340, width * 0.36));
      const values = [...judged, ...near, floor, ...lines.flatMap((b) => [b.low, b.high])];
      const f = bg.frame({ width, height, count: all.length, values, box: { right: narrow ? 74 : bg.large() ? 120 : 96, bottom: 34 }, least: 0 });
      bg.yAxis(f);
      bg.xAxis(f, bg.generationNames(f, gens(doc)));
      const kept = champions(doc).map((g) => (g.raw ? g.raw.mean : null));
      const right = width - f.box.right;
      const labels = [];
      if (noise) {
        kept.forEach((v, i) => {
          if (!bg.known(v) || (i && kept[i - 1] === v)) return;
          const y = f.y(v + noise);
          const other = kept.findIndex((w, k) => k > i && w !== v);
          const until = other > 0 ? f.x(other) : right;
          f.add(s("rect", { class: "band", x: f.x(i), width: until - f.x(i), y, height: Math.max(1, f.y(v - noise) - y) }));
        });
      }
      for (const b of lines) {
        f.add(
          s("rect", { class: "baseband", x: f.box.left, width: right - f.box.left, y: f.y(b.high), height: f.y(b.low) - f.y(b.high) }),
          s("line", { class: "baseline", x1: f.box.left, x2: right, y1: f.y(b.mean), y2: f.y(b.mean) }),
        );
        labels.push([b.mean, b.label]);
      }
      if (floor) {
        f.add(s("line", { class: "floor", x1: f.box.left, x2: right, y1: f.y(floor), y2: f.y(floor) }));
        labels.push([floor, "floor " + bg.num(floor)]);
      }
      // What was not taken over lies behind, and fainter; the champions lie on top.
      const kindOf = (g, i) => (i === 0 ? "starter" : bg.decided(g));
      const order = all.map((g, i) => [g, i, kindOf(g, i)]);
      const taken = ([, , kind]) => kind === "starter" || kind === "adopted";
      order.filter((one) => !taken(one)).forEach((one) => verdictMark(f, one, "thin faint"));
      f.add(stepLine(f, kept));
      order.filter(taken).forEach((one) => verdictMark(f, one, "thin"));
      if (bg.known(kept.at(-1))) labels.push([kept.at(-1), bg.num(kept.at(-1))]);
      endLabels(f, labels);
      return f;
    };
    return bg.figure({
      key: "verdicts",
      title: "Verdict, generation by generation",
      sub: [bg.term("verdict", "verdicts"), " in " + unit + ", lower is better; bars are ", bg.term("interval", "95% intervals"), " over seeds"],
      count: all.length,
      draw,
      tip: (i) => verdictTip(doc, i, unit),
      pick: (i) => i && bg.pick(i),
      legend: bg.legend(
        ["adopted", "verdict, trainer adopted"],
        occurs("rejected") && ["rejected", "rejected"],
        occurs("failed") && ["failed", "failed, no verdict"],
        occurs("under way") && ["under way", "under way"],
        ["claim", [bg.term("claim"), " (never decides)"]],
        [bg.swatch("line"), "champion"],
        noise && [bg.swatch("band", "band"), [bg.term("noise", "seed noise"), " around it (95%)"]],
        floor && [bg.swatch("floor"), [bg.term("floor"), " of the champion's documents"]],
        lines.length > 0 && [bg.swatch("baseline"), [bg.term("baseline", "baselines"), " on this task"]],
      ),
      head: ["generation", "trainer", "verdict, " + unit, "its floor", "above floor", "claim", "gain over parent"],
      rows: () =>
        all.map((g, i) => [
          name(i), i ? g.trainer : "", bg.interval(g.raw), g.floor > 0 ? bg.num(g.floor) : "–", g.score ? bg.num(g.score.mean) : "–", bg.num(g.claim),
          i ? bg.interval(g.gain, 3, bg.plus) : "",
        ]),
    });
  };

  // One small chart per skill, all on one scale: eight lines in one chart are a tangle.
  bg.skillCharts = (doc) => {
    const kept = champions(doc);
    const skills = [...new Set(kept.flatMap((g) => Object.keys(g.skills)))];
    const values = kept.flatMap((g) => Object.values(g.skills));
    if (!skills.length) return h("p", { class: "soft" }, "No skills were measured yet.");
    const last = kept.at(-1).skills;
    skills.sort((a, b) => (last[b] ?? 0) - (last[a] ?? 0));
    const small = (skill) => {
      const own = kept.map((g) => g.skills[skill]);
      const holder = h("div", { class: "canvas" });
      const draw = () => {
        const width = Math.floor(holder.clientWidth);
        if (width < 40) return;
        const box = { left: 2, right: 5, top: 8, bottom: 8 };
        const f = bg.frame({ width, height: 84, count: kept.length, values: [0, ...values], box, zero: true });
        f.add(s("line", { class: "axis", x1: 0, x2: width, y1: f.y(0), y2: f.y(0) }), stepLine(f, own));
        if (bg.known(own.at(-1))) f.add(s("circle", { class: "full", cx: width - 5, cy: f.y(own.at(-1)), r: 3.5 }));
        bg.put(holder, f.svg);
      };
      bg.whenSeen(holder, draw);
      const change = bg.known(own[0]) && own.length > 1 ? bg.num(own[0], 2) + " → " : "";
      return h("div", {}, h("div", { class: "name" }, h("b", {}, bg.foreign(skill)), h("span", { class: "soft" }, change, bg.num(own.at(-1), 2))), holder);
    };
    const head = ["generation", ...skills.map((skill) => bg.foreign(skill))];
    const rows = kept.map((g, i) => [name(i), ...skills.map((skill) => bg.num(g.skills[skill]))]);
    const twin = h("details", { class: "more" }, h("summary", {}, "As a table"), bg.table(head, rows, { label: "skills" }));
    return h("div", {}, h("div", { class: "multiples" }, skills.map(small)), twin);
  };

  function gapChart(doc, o) {
    const all = gens(doc);
    const values = bg.ends(all.map(o.of).filter(Boolean), 0.75);
    if (!values.length) return h("figure", { class: "chart" }, h("h3", {}, o.title), h("p", { class: "soft small" }, o.none));
    const draw = (width) => {
      const f = bg.frame({ width, height: 220, count: all.length, values: [0, ...values], box: { right: 8, bottom: 34 } });
      bg.yAxis(f, 4, bg.plus);
      bg.xAxis(f, all.map((g) => String(g.n)));
      f.add(s("line", { class: "axis", x1: f.box.left, x2: width - 8, y1: f.y(0), y2: f.y(0) }));
      all.forEach((g, i) => {
        const v = o.of(g);
        if (!v) return;
        if (bg.known(v.low)) f.add(bg.whisker(f, f.x(i), v.low, v.high, Math.min(4, f.size)));
        f.add(o.shape === "claim" ? bg.shape("claim", f.x(i), f.y(v.mean), f.size * 0.85) : bg.shape(bg.decided(g), f.x(i), f.y(v.mean), f.size * 0.8));
      });
      return f;
    };
    return bg.figure({
      ...o,
      count: all.length,
      draw,
      tip: (i) => [word(all[i].n), o.of(all[i]) ? bg.interval(o.of(all[i]), 3, bg.plus) + " bits" : "not measured"],
      pick: (i) => bg.pick(all[i].n),
      head: ["generation", o.title + ", bits"],
      rows: () => all.map((g) => [g.n, bg.interval(o.of(g), 3, bg.plus)]),
    });
  }

  bg.claimGap = (doc) =>
    gapChart(doc, {
      key: "claim-gap",
      shape: "claim",
      title: "Claim minus verdict",
      sub: ["bits; below zero: the inside ", bg.term("claim", "claims"), " to be better than the host found"],
      of: (g) => (bg.known(g.claim_gap) ? { mean: g.claim_gap } : null),
      none: "No trial of a successor has both a claim and a verdict yet.",
    });

  bg.fitGap = (doc) =>
    gapChart(doc, {
      key: "fit-gap",
      title: "Fitted to select",
      sub: ["bits; the ", bg.term("select–confirm gap"), ": above zero, a gain that fresh documents don't show"],
      of: (g) => g.fitted,
      none: "Not measured in this loop: it needs two pairs at a gate that are scored on select as well.",
    });

  // The pairs of one gate: each a line from the parent's score to the child's.
  bg.pairChart = (doc, g) => {
    if (!g.pairs.length) return h("p", { class: "soft small" }, "No pair finished.");
    const draw = (width) => {
      const f = bg.frame({ width, height: 190, count: g.pairs.length, values: g.pairs.flat(), box: { right: 8, bottom: 34 } });
      bg.yAxis(f, 4);
      bg.xAxis(f, g.pairs.map((_, i) => "pair " + (i + 1)));
      const r = Math.min(6, Math.max(3, f.column / 6));
      g.pairs.forEach(([parent, child], i) => {
        const x = f.x(i);
        f.add(s("line", { class: "thin", x1: x, x2: x, y1: f.y(parent), y2: f.y(child) }));
        f.add(s("circle", { cx: x, cy: f.y(parent), r, class: "open" }), s("circle", { cx: x, cy: f.y(child), r, class: "full" }));
      });
      return f;
    };
    return bg.figure({
      key: "pairs-" + g.n,
      title: "The gate's pairs",
      sub: "bits above the floor, lower is better; both under the same seeds",
      count: g.pairs.length,
      draw,
      tip: (i) => ["Pair " + (i + 1), "parent " + bg.num(g.pairs[i][0]), "child " + bg.num(g.pairs[i][1]), "gain " + bg.plus(g.pairs[i][0] - g.pairs[i][1])],
      legend: bg.legend([s("svg", { width: 14, height: 14, "aria-hidden": "true" }, s("circle", { cx: 7, cy: 7, r: 5, class: "open" })), "parent"], ["adopted", "child"]),
      head: ["pair", "parent", "child", "gain"],
      rows: () => g.pairs.map(([p, c], i) => [i + 1, bg.num(p, 4), bg.num(c, 4), bg.plus(p - c, 4)]),
    });
  };

  // Training curves, where the loop recorded some: one chart for each metric, one line for each trial.
  bg.curveCharts = (series, key = "curves") => {
    const drawn = series.filter((line) => line.points.length);
    const names = [...new Set(drawn.map((line) => line.name))];
    const draw = (metric, k) => {
      const lines = drawn.filter((line) => line.name === metric);
      return lines.every((line) => line.points.length < 2) ? onceTold(metric, lines) : curveChart(metric, key + "-" + k, lines);
    };
    return h("div", { class: "pair" }, names.map(draw));
  };

  // What was reported once in each trial is no curve.
  function onceTold(metric, lines) {
    const caption = h("figcaption", {}, h("h3", {}, bg.foreign(metric)), h("span", { class: "sub" }, "reported once in each trial"));
    return h("figure", { class: "chart" }, caption, bg.table(["trial", "value"], lines.map((line) => [bg.foreign(line.trial), bg.num(line.points[0] && line.points[0][1])]), { label: metric }));
  }

  function curveChart(metric, key, lines) {
    const points = lines.flatMap((line) => line.points);
    const last = Math.max(...points.map((p) => p[0]), 1);
    const child = (line) => /-(child|panel)\b/.test(line.trial);
    const named = lines.length <= 4; // more names than that would lie on top of each other
    const draw = (width) => {
      const f = bg.frame({ width, height: 220, count: 1, values: points.map((p) => p[1]), box: { right: named ? 116 : 24, bottom: 34 } });
      const x = (at) => f.box.left + (at / last) * (width - f.box.left - f.box.right);
      bg.yAxis(f, 4);
      const marks = last < 2 ? [0, last] : [0, Math.round(last / 2), last];
      f.add(marks.map((at) => s("text", { x: x(at), y: f.height - 10, "text-anchor": "middle" }, bg.count(at))));
      for (const line of lines) {
        const d = line.points.map(([at, value], i) => (i ? "L" : "M") + x(at) + " " + f.y(value)).join("");
        f.add(s("path", { class: child(line) ? "thin" : "dash", d }, s("title", {}, line.trial)));
      }
      if (named) endLabels(f, lines.map((line) => [line.points.at(-1)[1], line.trial.replace(/(-explore-\d+)-\w+$/, "$1").slice(0, 18)]));
      return f;
    };
    return bg.figure({
      key,
      title: bg.clean(metric),
      sub: ["as the trainers report it, over their steps: ", bg.term("claim", "claims")],
      count: 1,
      draw,
      legend: bg.legend([bg.swatch("thin"), "child, new champion"], [bg.swatch("dash"), "parent, starter, explorations"]),
      head: ["trial", "step", "value"],
      rows: () => lines.flatMap((line) => line.points.map(([at, v]) => [bg.foreign(line.trial), at, bg.num(v, 4)])),
    });
  }
})((window.bellglass = window.bellglass || {}));
