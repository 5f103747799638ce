// What all charts share: the frame with its scales, shapes for decisions, and a figure that has a table beside it, can be
// read with the arrow keys and is drawn again when its width changes.
"use strict";
(function (bg) {
  const { h, s } = bg;

  // The next smaller of 1, 2, 5 times a power of ten.
  function step(rough) {
    const power = 10 ** Math.floor(Math.log10(rough));
    return [5, 2, 1].map((f) => f * power).find((f) => f <= rough * 1.0000001) || power;
  }

  function ticks(lo, hi, most) {
    const by = step((hi - lo) / most);
    const first = Math.ceil(lo / by - 1e-9);
    const last = Math.floor(hi / by + 1e-9);
    const digits = Math.max(0, -Math.floor(Math.log10(by) + 1e-9));
    return Array.from({ length: Math.max(0, last - first + 1) }, (_, k) => [(first + k) * by, digits]);
  }

  // For a projector the text of charts is larger (page.css has the same width), and needs more room beside them.
  bg.large = () => window.matchMedia("(min-width: 1700px)").matches;

  // Where a column and a value stand. `values` set the scale; anything beyond is drawn at the edge.
  bg.frame = (options) => {
    const { width, height, count, values } = options;
    const box = { left: bg.large() ? 76 : 58, right: 16, top: 12, bottom: 30, ...options.box };
    const known = values.filter(bg.known);
    let lo = known.length ? Math.min(...known.slice(0, 5e4)) : 0;
    let hi = known.length ? Math.max(...known.slice(0, 5e4)) : 1;
    const room = (hi - lo) * 0.07 || Math.max(0.05, Math.abs(hi) * 0.05);
    lo -= options.zero && lo >= 0 ? lo : room;
    hi += room;
    if (bg.known(options.least)) lo = Math.max(lo, options.least);
    const column = (width - box.left - box.right) / Math.max(1, count);
    const y = (value) => box.top + ((hi - Math.min(hi, Math.max(lo, value))) / (hi - lo)) * (height - box.top - box.bottom);
    const svg = s("svg", { width, height, viewBox: "0 0 " + width + " " + height, "aria-hidden": "true" });
    const frame = { svg, width, height, box, column, lo, hi, y, x: (i) => box.left + column * (i + 0.5) };
    frame.size = Math.max(1.6, Math.min(6, column / 2.6));
    frame.add = (...nodes) => (nodes.flat(9).forEach((node) => node && svg.append(node)), frame);
    return frame;
  };

  bg.yAxis = (f, most = 5, write = bg.num) => {
    for (const [value, digits] of ticks(f.lo, f.hi, most)) {
      f.add(
        s("line", { class: "grid", x1: f.box.left, x2: f.width - f.box.right, y1: f.y(value), y2: f.y(value) }),
        s("text", { x: f.box.left - 9, y: f.y(value) + 4, "text-anchor": "end" }, write(value, digits)),
      );
    }
  };

  // Names along the bottom, as many as there is room for; numbered ones at round numbers.
  bg.xAxis = (f, names) => {
    const every = Math.ceil(52 / f.column);
    const nice = [1, 2, 5, 10, 20, 25, 50, 100, 200, 250, 500].find((n) => n >= every) || 1000;
    names.forEach((name, i) => {
      const number = Number.isNaN(Number(name)) ? i : Number(name);
      if (number % nice === 0) f.add(s("text", { x: f.x(i), y: f.height - 10, "text-anchor": "middle" }, name));
    });
  };
  bg.generationNames = (f, generations) => [f.column < 52 ? "0" : "starter", ...generations.map((g) => String(g.n))];

  // One shape per meaning; colour never stands alone.
  bg.shape = (kind, x, y, r = 6) => {
    const at = (path, name) => s("path", { d: path, class: name });
    switch (kind) {
      case "starter":
      case "adopted":
        return s("circle", { cx: x, cy: y, r, class: "full" });
      case "rejected":
        return s("rect", { x: x - r * 0.85, y: y - r * 0.85, width: r * 1.7, height: r * 1.7, class: "open" });
      case "unchanged":
        return at(`M${x} ${y - r}v${r * 2}`, "line");
      case "inherited":
        return at(`M${x} ${y - r}L${x + r} ${y + r * 0.8}H${x - r}Z`, "full");
      case "not inherited":
        return at(`M${x} ${y - r}L${x + r} ${y + r * 0.8}H${x - r}Z`, "open");
      case "claim":
        return at(`M${x} ${y - r}l${r} ${r} ${-r} ${r} ${-r} ${-r}z`, "said");
      case "failed":
      case "failed boot check":
        return at(`M${x - r * 0.8} ${y - r * 0.8}l${r * 1.6} ${r * 1.6}m0 ${-r * 1.6}l${-r * 1.6} ${r * 1.6}`, "cross");
      case "alarm":
        return at(`M${x} ${y - r}L${x + r} ${y + r * 0.8}H${x - r}ZM${x} ${y - r * 0.35}v${r * 0.6}`, "alarmed");
      default: // under way
        return s("circle", { cx: x, cy: y, r: r * 0.85, class: "dash" });
    }
  };
  // An end beyond the frame has no cap but an arrowhead: it goes on.
  bg.whisker = (f, x, low, high, half, name = "thin") => {
    const arrow = (y, by) => `M${x - Math.max(2, half)} ${y + by}L${x} ${y}L${x + Math.max(2, half)} ${y + by}`;
    const cap = (value) => {
      if (value > f.hi || value < f.lo) return arrow(f.y(value), value > f.hi ? 6 : -6);
      return half < 2 ? "" : `M${x - half} ${f.y(value)}h${half * 2}`;
    };
    return s("path", { class: name, d: `M${x} ${f.y(low)}V${f.y(high)}${cap(low)}${cap(high)}` });
  };
  // What may set a scale: all means, and the ends of intervals that don't reach further beyond them than a `share` of the
  // intervals are wide. Two seeds give intervals so wide that nothing else would be seen.
  bg.ends = (intervals, share) => {
    const means = intervals.map((v) => v.mean).filter(bg.known);
    const lo = Math.min(...means);
    const hi = Math.max(...means);
    const widths = intervals.filter((v) => bg.known(v.low)).map((v) => (v.high - v.low) / 2).sort((a, b) => a - b);
    const room = Math.max((hi - lo) * 0.12, widths[Math.ceil((widths.length - 1) * share)] || 0);
    return [...means, ...intervals.flatMap((v) => [v.low, v.high]).filter((v) => bg.known(v) && v >= lo - room && v <= hi + room)];
  };
  bg.icon = (kind, r = 5.5) => s("svg", { width: 14, height: 14, viewBox: "0 0 14 14", "aria-hidden": "true" }, bg.shape(kind, 7, 7, r));
  bg.mark = (kind, words) => h("span", { class: "mark" }, bg.icon(kind), words);
  bg.legend = (...entries) =>
    h("div", { class: "legend" }, entries.filter(Boolean).map(([icon, words]) => h("span", {}, typeof icon === "string" ? bg.icon(icon) : icon, words)));
  bg.swatch = (name, shape = "line") =>
    s("svg", { width: 22, height: 12, "aria-hidden": "true" }, shape === "band"
      ? s("rect", { x: 0, y: 1, width: 22, height: 10, class: name })
      : s("line", { x1: 0, x2: 22, y1: 6, y2: 6, class: name }));

  // How far the bars of a table reach: to the longest, but not beyond four times the usual length unless a tenth of the means
  // lies there. A single huge interval would turn all others into dots.
  const sorted = (values) => values.filter(bg.known).sort((a, b) => a - b);
  const furthest = (v) => Math.max(...[v.low, v.mean, v.high].filter(bg.known).map(Math.abs));
  bg.reach = (intervals) => {
    const ends = sorted(intervals.map(furthest));
    const means = sorted(intervals.map((v) => Math.abs(v.mean)));
    const usual = 4 * (ends[Math.floor((ends.length - 1) / 2)] || 0);
    return Math.max(0.01, Math.min(ends.at(-1) || 0, Math.max(usual, means[Math.floor(means.length * 0.9)] || 0)));
  };
  bg.cut = (interval, reach) => furthest(interval) > reach * 1.0001;

  // An interval as a bar on a line with a zero, for tables. What goes on beyond the reach ends in an arrowhead.
  bg.bar = (interval, reach, width = 132) => {
    if (!interval) return h("span", { class: "soft" }, "–");
    const x = (value) => width / 2 + (Math.max(-reach, Math.min(reach, value)) / reach) * (width / 2 - 9);
    const low = interval.low ?? interval.mean;
    const high = interval.high ?? interval.mean;
    return s(
      "svg",
      { width, height: 18, role: "img", "aria-label": bg.interval(interval, 3, bg.plus) },
      s("line", { x1: 0, x2: width, y1: 9, y2: 9, class: "grid" }),
      s("line", { x1: width / 2, x2: width / 2, y1: 1, y2: 17, class: "hint" }),
      s("line", { x1: x(low), x2: x(high), y1: 9, y2: 9, class: "line" }),
      high > reach && s("path", { class: "line", d: `M${width - 6} 5l5 4l-5 4` }),
      low < -reach && s("path", { class: "line", d: "M6 5l-5 4l5 4" }),
      Math.abs(interval.mean) <= reach && s("circle", { cx: x(interval.mean), cy: 9, r: 4, class: low > 0 ? "full" : "open" }),
    );
  };

  // What is not in sight yet is drawn after what is, one after the other.
  const queue = [];
  function next() {
    const draw = queue.shift();
    if (!draw) return;
    setTimeout(next, 0); // before it: what cannot be drawn holds nobody else up
    draw();
  }
  const near = (holder) => holder.getBoundingClientRect().top < window.innerHeight * 1.3;
  bg.whenSeen = (holder, draw) => {
    let seen = false;
    const observer = new ResizeObserver(() => {
      if (seen || near(holder)) return (seen = true), draw();
      seen = true;
      queue.push(draw);
      if (queue.length === 1) requestAnimationFrame(() => setTimeout(next, 0));
    });
    observer.observe(holder);
  };

  // A figure: caption, chart, table twin. `draw(width)` gives a frame; columns answer to pointer and arrow keys.
  const tables = new Set(); // figures that a person has switched to their table; kept when the page is drawn again
  bg.figure = (o) => {
    const canvas = h("div", { class: "canvas", tabindex: "0", role: "group", id: o.key + "-canvas" });
    canvas.setAttribute("aria-label", o.title + ". Arrow keys go from column to column" + (o.pick ? ", Enter opens one." : "."));
    const under = o.legend || null;
    let frame = null;
    let at = null;
    let cursor = null;
    const show = (i, loud) => {
      if (!frame || i === null || !o.tip) return;
      at = Math.max(0, Math.min(o.count - 1, i));
      if (!cursor) frame.svg.prepend((cursor = s("rect", { class: "cursor", rx: 3 })));
      const wide = Math.max(frame.column, 3);
      const place = { x: frame.x(at) - wide / 2, width: wide, y: frame.box.top - 4, height: frame.height - frame.box.top - frame.box.bottom + 8 };
      for (const [name, value] of Object.entries(place)) cursor.setAttribute(name, value);
      const [title, ...lines] = o.tip(at).filter(Boolean);
      bg.tip(canvas, lines, title, { x: frame.x(at) - canvas.scrollLeft, y: frame.box.top + 26 });
      if (loud) bg.say([title, ...lines].join(". "));
    };
    const hide = () => {
      bg.untip();
      if (cursor) cursor.remove();
      cursor = null;
    };
    const nearest = (event) => {
      const x = event.clientX - canvas.getBoundingClientRect().left + canvas.scrollLeft;
      return Math.floor((x - frame.box.left) / frame.column);
    };
    const keys = (event) => {
      const move = { ArrowRight: 1, ArrowLeft: -1, PageDown: 10, PageUp: -10, Home: -1e9, End: 1e9 }[event.key];
      if (event.key === "Enter" && o.pick && at !== null) o.pick(at);
      if (move === undefined || !frame) return;
      event.preventDefault();
      const next = Math.max(0, Math.min(o.count - 1, (at === null ? (move > 0 ? -1 : o.count) : at) + move));
      const x = frame.x(next);
      if (x < canvas.scrollLeft + 40 || x > canvas.scrollLeft + canvas.clientWidth - 40) canvas.scrollLeft = x - canvas.clientWidth / 2;
      show(next, true);
    };
    const listen = { pointermove: (e) => frame && show(nearest(e)), pointerleave: hide, blur: hide, keydown: keys };
    listen.click = (e) => frame && o.pick && nearest(e) >= 0 && nearest(e) < o.count && o.pick(nearest(e));
    for (const [event, action] of Object.entries(listen)) canvas.addEventListener(event, action);
    const stay = () => frame && frame.fixed && frame.fixed.setAttribute("transform", "translate(" + canvas.scrollLeft + " 0)");
    canvas.addEventListener("scroll", stay);
    const drawAt = (width) => {
      cursor = null;
      frame = o.draw(width);
      frame.asked = width;
      bg.put(canvas, frame.svg);
      canvas.style.minHeight = "";
    };
    let settled = false;
    const draw = () => {
      const width = Math.floor(canvas.clientWidth);
      if (width < 40) return;
      if (!frame || frame.asked !== width) drawAt(width);
      if (!settled && o.showEnd) canvas.scrollLeft = canvas.scrollWidth;
      settled = true;
      stay();
    };
    canvas.style.minHeight = (o.height || 220) + "px";
    const before = document.getElementById(canvas.id); // in whose place it comes: what was seen stays in sight
    if (before && before.firstChild && !before.hidden && near(before)) drawAt(Math.floor(before.clientWidth));
    bg.whenSeen(canvas, draw);
    const table = h("div", { hidden: true });
    const toggle = bg.button("Table", () => flip(!tables.has(o.key)), { id: o.key + "-table", "aria-pressed": "false", "aria-label": o.title + " as a table" });
    const flip = (on) => {
      tables[on ? "add" : "delete"](o.key);
      toggle.setAttribute("aria-pressed", String(on));
      canvas.hidden = on;
      if (under) under.hidden = on;
      table.hidden = !on;
      if (on) bg.put(table, bg.table(o.head, o.rows(), { label: o.title }));
    };
    if (tables.has(o.key)) flip(true);
    const caption = h("figcaption", {}, h("h3", {}, o.title), h("span", { class: "sub" }, o.sub), toggle);
    return h("figure", { class: "chart", id: o.key }, caption, canvas, under, table);
  };
})((window.bellglass = window.bellglass || {}));
