// The lineage: trainer and scaffold each on a line of their own, because each has a decision of its own; what was not
// taken over hangs below its line. Under them, which kinds of file each successor changed.
"use strict";
(function (bg) {
  const { h, s } = bg;
  const KINDS = ["data", "objective", "architecture", "optimiser", "scaffold"];
  const TRAINER = 34, SCAFFOLD = 104, DROP = 30, MATRIX = 176, ROW = 21;

  const trainerShape = (g) => (g.done ? g.trainer : "under way");
  const scaffoldShape = (g) => (g.done ? g.scaffold || "unchanged" : "under way");

  // One line: a trunk through what was taken over, and a short branch to each that was not.
  function track(f, generations, y, kindOf, taken) {
    const r = Math.max(2.2, Math.min(7, f.column / 3));
    const last = generations.length;
    f.add(s("line", { class: f.column < 14 ? "thin" : "line", x1: f.x(0), x2: f.x(last), y1: y, y2: y }));
    const nodes = generations.map((g, k) => {
      const kind = kindOf(g);
      const x = f.x(k + 1);
      if (kind === taken || kind === "unchanged") return bg.shape(kind, x, y, kind === taken ? r : r * 0.7);
      const from = f.x(k);
      const branch = s("path", { class: "dash", d: `M${from} ${y}C${(from + x) / 2} ${y} ${(from + x) / 2} ${y + DROP} ${x} ${y + DROP}` });
      return [branch, bg.shape(kind, x, y + DROP, r)];
    });
    f.add(nodes, bg.shape(taken, f.x(0), y, r));
  }

  function draw(doc, width) {
    const all = doc.generations;
    const count = all.length + 1;
    const left = 104;
    const least = all.length > 400 ? 9 : 15;
    const wide = Math.max(width, left + 16 + least * count);
    const column = Math.min(320, (wide - left - 16) / count);
    const total = left + 16 + column * count;
    const height = MATRIX + ROW * KINDS.length + 34;
    const f = bg.frame({ width: total, height, count, values: [0, 1], box: { left, right: 16, top: 10, bottom: 30 } });
    const chosen = bg.chosen();
    if (chosen) f.add(s("rect", { class: "chosen", x: f.x(chosen) - column / 2, width: column, y: 6, height: height - 34, rx: 4 }));
    KINDS.forEach((kind, row) => {
      const y = MATRIX + ROW * row;
      f.add(s("line", { class: "grid", x1: left, x2: total - 16, y1: y, y2: y }));
    });
    all.forEach((g, k) => {
      for (const kind of g.kinds) {
        const row = KINDS.indexOf(kind);
        if (row >= 0) f.add(s("circle", { class: "quiet", cx: f.x(k + 1), cy: MATRIX + ROW * row, r: Math.max(1.6, Math.min(4.5, column / 4)) }));
      }
      if (g.alarms) f.add(bg.shape("alarm", f.x(k + 1), 12, Math.min(6, column / 2.4)));
    });
    track(f, all, TRAINER, trainerShape, "adopted");
    track(f, all, SCAFFOLD, scaffoldShape, "inherited");
    bg.xAxis(f, bg.generationNames(f, all));
    f.add((f.fixed = names(height)));
    return f;
  }

  // They stay in sight when the chart is scrolled.
  function names(height) {
    const name = (y, text, look) => s("text", { x: 0, y: y + 4, class: look }, text);
    const lines = [name(TRAINER, "trainer", "strong"), name(SCAFFOLD, "scaffold", "strong")];
    return s("g", {}, s("rect", { class: "cover", x: 0, y: 0, width: 100, height }), lines, KINDS.map((kind, row) => name(MATRIX + ROW * row, kind)));
  }

  function tip(doc, i) {
    if (i === 0) return ["Starter", "written by people"];
    const g = doc.generations[i - 1];
    return [
      "Generation " + g.n,
      g.done ? "trainer " + g.trainer + ", scaffold " + g.scaffold : g.trainer,
      "from " + (g.from ? "generation " + g.from : "the starter"),
      g.kinds.length ? "changed " + g.kinds.join(", ") : "",
      g.alarms ? bg.many(g.alarms, "tripwire") + " fired" : "",
    ];
  }

  bg.lineageChart = (doc) => {
    const occurs = (shapeOf, kind) => doc.generations.some((g) => shapeOf(g) === kind);
    return bg.figure({
      key: "tree",
      title: "Trainer and scaffold, decided apart",
      sub: "on the line: taken over by the next generation; below it: not",
      count: doc.generations.length + 1,
      showEnd: true,
      height: MATRIX + ROW * KINDS.length + 34,
      draw: (width) => draw(doc, width),
      tip: (i) => tip(doc, i),
      pick: (i) => i && bg.pick(i),
      legend: bg.legend(
        ["adopted", "trainer adopted"],
        occurs(trainerShape, "rejected") && ["rejected", "trainer rejected"],
        ["inherited", ["scaffold ", bg.term("inherited")]],
        occurs(scaffoldShape, "not inherited") && ["not inherited", "scaffold not inherited"],
        (occurs(trainerShape, "failed") || occurs(scaffoldShape, "failed boot check")) && ["failed", "failed"],
        (occurs(trainerShape, "unchanged") || occurs(scaffoldShape, "unchanged")) && ["unchanged", "unchanged"],
        doc.generations.some((g) => !g.done) && ["under way", "under way"],
        doc.generations.some((g) => g.alarms) && ["alarm", bg.term("tripwire")],
      ),
      head: ["generation", "parent", "trainer", "scaffold", "changed"],
      rows: () => doc.generations.map((g) => [g.n, g.from || "starter", g.trainer, g.scaffold, g.kinds.join(", ")]),
    });
  };
  bg.trainerMark = (g) => bg.mark(trainerShape(g), g.trainer);
  bg.scaffoldMark = (g) => (g.done ? bg.mark(scaffoldShape(g), g.scaffold) : h("span", { class: "soft" }, "–"));
})((window.bellglass = window.bellglass || {}));
