// Large texts: a diff by file, with the language's words told apart, and a session as a transcript. All of it is foreign.
"use strict";
(function (bg) {
  const { h } = bg;
  const MOST_ROWS = 1500; // of one file; beyond, a person asks for the rest
  const TOKEN =
    /(#.*$)|("(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')|\b(def|class|return|if|elif|else|for|while|in|not|and|or|import|from|as|with|try|except|finally|raise|lambda|yield|None|True|False|is|pass|break|continue|global|assert|del|async|await)\b/g;

  function coloured(line) {
    if (line.length > 2000) return [line];
    const parts = [];
    let at = 0;
    for (const found of line.matchAll(TOKEN)) {
      if (found.index > at) parts.push(line.slice(at, found.index));
      parts.push(h("span", { class: found[1] ? "rem" : found[2] ? "st" : "k" }, found[0]));
      at = found.index + found[0].length;
    }
    parts.push(line.slice(at));
    return parts;
  }

  function rowOf(line, python) {
    const name = { "+": "add", "-": "cut", "@": "at" }[line[0]] || "same";
    const text = line.slice(1);
    const inside = name === "at" ? [line] : [line[0] || " ", ...(python ? coloured(text) : [text])];
    return h("span", { class: "row " + name }, inside);
  }

  // The number of each row in the new text; of a removed one, where it stood; of a hunk's heading, none.
  function numbered(lines) {
    let next = 0;
    return lines.map((line) => {
      const hunk = /^@@ -\S+ \+(\d+)/.exec(line);
      if (hunk) next = Number(hunk[1]);
      if (hunk || line[0] === "\\") return null;
      return line[0] === "-" ? next : next++;
    });
  }

  // A file's rows, and how to come to those of a place, whether they are drawn yet or not.
  function patch(file, most = MOST_ROWS) {
    const lines = file.patch.replace(/\n$/, "").split("\n");
    const python = file.path.endsWith(".py");
    const drawn = (from, to) => lines.slice(from, to).map((line) => rowOf(line, python));
    const body = h("pre", { dir: "ltr", tabindex: "0" }, drawn(0, most));
    const rest = lines.length > most && bg.button("Show " + bg.count(lines.length - most) + " more lines", () => (body.append(...drawn(most)), rest.remove()));
    const numbers = numbered(lines);
    const at = (place) => numbers.flatMap((n, k) => (n !== null && n >= place.line && n <= Math.max(place.line, place.end) ? [k] : []));
    const rows = (place) => {
      if (rest && at(place).some((k) => k >= body.children.length)) rest.click();
      return at(place).map((k) => body.children[k]);
    };
    return { nodes: [body, rest], has: (place) => at(place).length > 0, rows };
  }

  // Of a review: a trainer's files are all in sight, whatever their length; `hidden` says what is folded of the others.
  bg.diffToDecide = (diff, hidden) => {
    const { flags, files } = parts(diff, true);
    const count = () => {
      const closed = [...files.querySelectorAll("details.file:not([open])")];
      const lines = closed.reduce((sum, one) => sum + Number(one.dataset.changed), 0);
      bg.put(hidden, lines > 0 && ["Not shown above: ", h("b", {}, bg.many(lines, "changed line")), " in " + bg.many(closed.length, "folded file") + ", none of the trainer's."]);
    };
    files.addEventListener("toggle", count, true);
    count();
    return { flags, files };
  };

  bg.diffView = (diff) => {
    const { flags, files } = parts(diff, false);
    return h("div", {}, flags, files);
  };

  let views = 0;

  // Where to look first, and what changed by file.
  function parts(diff, deciding) {
    if (diff.missing) return { flags: null, files: h("p", { class: "soft" }, bg.foreign(diff.missing)) };
    if (!diff.files.length) return { flags: null, files: h("p", { class: "soft" }, "No file differs.") };
    const view = "diff-" + ++views;
    const found = diff.files.map((file, k) => filePart(file, deciding, view + "-" + k));
    const note = diff.note && h("p", { class: "note alarm" }, bg.foreign(diff.note));
    return { flags: flagsPart(diff.flags, found), files: h("div", {}, note, found.map((part) => part.node)) };
  }

  function filePart(file, deciding, id) {
    const words = [bg.code(bg.foreign(file.path)), h("span", { class: "kind" }, file.kind || "no kind", ", +", file.added, " −", file.removed)];
    const changed = file.added + file.removed;
    const whole = deciding && file.path.startsWith("trainer/");
    const inside = patch(file, whole ? Infinity : MOST_ROWS);
    const node = whole
      ? h("div", { class: "file whole", id }, h("div", { class: "head" }, words), inside.nodes)
      : h("details", { class: deciding ? "file whole" : "file", id, open: changed < (deciding ? 60 : 400), "data-changed": String(changed) }, h("summary", {}, words), inside.nodes);
    return { id, node, path: file.path, ...inside };
  }

  function flagsPart(flags, files) {
    if (!flags) return null; // an older recording has none
    if (!flags.length) return h("p", { class: "soft small" }, "No ", bg.term("red flag"), " was raised. That is no praise: they see what reads suspiciously, not what a change does.");
    const one = (flag) => {
      const more = flag.more > 0 && h("span", { class: "soft" }, "and " + bg.many(flag.more, "more place"));
      const links = flag.places.map((place) => placeOf(place, files.find((file) => file.path === place.path && file.has(place))));
      return h("li", { "data-flag": flag.code }, bg.icon("alarm"), h("div", {}, h("b", {}, flag.code.replaceAll("_", " ")), ": ", bg.foreign(flag.sentence), h("div", { class: "places small" }, links, more)));
    };
    return h("div", { class: "flags", role: "region", "aria-label": "red flags" }, h("h3", {}, bg.many(flags.length, "red flag"), ": look here first"), h("ul", { class: "list" }, flags.map(one)));
  }

  // A link to lines of the diff; what it does not show, because it did not change, is quoted.
  function placeOf(place, file) {
    const name = place.path + ":" + place.line + (place.end > place.line ? "–" + place.end : "");
    if (!file) return h("div", { class: "quoted" }, bg.code(bg.foreign(name)), h("pre", { dir: "ltr" }, place.text));
    return h("a", { href: "#" + file.id, class: "jump mono", on: { click: (event) => (event.preventDefault(), jump(place, file)) } }, bg.foreign(name));
  }

  function jump(place, file) {
    if (file.node.tagName === "DETAILS") file.node.open = true;
    document.querySelectorAll(".row.jumped").forEach((row) => row.classList.remove("jumped"));
    const rows = file.rows(place);
    rows.forEach((row) => row.classList.add("jumped"));
    rows[0].tabIndex = -1;
    rows[0].scrollIntoView({ block: "center" });
    rows[0].focus({ preventScroll: true });
  }

  // Long text is folded; its first lines are shown.
  function folded(text, lines = 14) {
    const all = text.split("\n");
    const whole = () => h("pre", { dir: "auto", tabindex: "0" }, text);
    if (all.length <= lines && text.length < 1600) return whole();
    const first = all.slice(0, 3).join("\n").slice(0, 240);
    const details = h("details", {}, h("summary", {}, bg.foreign(first.trim() + " …"), " ", bg.many(all.length, "line")));
    details.addEventListener("toggle", () => details.open && details.childElementCount === 1 && details.append(whole()));
    return details;
  }

  function call(one) {
    const long = Object.entries(one.args);
    return h(
      "div",
      {},
      h("div", { class: "prose" }, "→ ", bg.code(bg.foreign(one.name))),
      long.map(([key, value]) =>
        value.length < 90 && !value.includes("\n")
          ? h("div", { class: "small soft" }, bg.foreign(key), key && ": ", bg.code(bg.foreign(value)))
          : [h("div", { class: "small soft" }, bg.foreign(key), ":"), folded(value)],
      ),
    );
  }

  const WHO = { system: "system prompt, from the scaffold", user: "from the scaffold", tool: "result of a tool", assistant: "the model, earlier" };

  function heard(message) {
    const text = message.text || "";
    return h(
      "div",
      { class: "turn" },
      h("div", { class: "who" }, WHO[message.role] || bg.foreign(message.role), message.cut && h("span", {}, "cut; all of it is in the ledger's blobs")),
      text && folded(text, message.role === "tool" ? 14 : 6),
      message.calls.map(call),
    );
  }

  function answered(one) {
    const reply = one.reply;
    const cost = one.cost.usd ? bg.usd(one.cost.usd) : "";
    const tokens = one.cost.tokens_in + one.cost.tokens_out ? bg.count(one.cost.tokens_in) + " tokens in, " + bg.count(one.cost.tokens_out) + " out" : "";
    const facts = [bg.foreign(one.provider || one.model), bg.foreign(one.key), tokens, cost, one.outcome !== "ok" && bg.foreign(one.outcome)];
    return h(
      "div",
      { class: "turn model" },
      h("div", { class: "who" }, h("b", {}, "the model"), facts.filter(Boolean).map((fact) => h("span", {}, fact))),
      !reply && h("p", { class: "soft" }, "No reply: ", bg.foreign(one.outcome || "none was stored")),
      reply && reply.reasoning.map((text) => h("details", {}, h("summary", {}, "reasoning"), h("pre", { dir: "auto" }, text))),
      reply && reply.text && h("div", { class: "prose foreign", dir: "auto" }, reply.text),
      reply && reply.calls.map(call),
    );
  }

  bg.missing = (lines) => lines.map((line) => h("p", { class: "note" }, "Missing: ", bg.foreign(line)));

  bg.sessionView = (session) => {
    if (!session.calls.length && !session.missing.length) return h("p", { class: "soft" }, "This generation made no model call.");
    const said = bg.missing(session.missing);
    const printed = session.printed.map((text) => [h("h3", {}, "What the session printed"), folded(text)]);
    const count = h("p", { class: "small soft" }, bg.many(session.calls.length, "model call"), ". Each turn shows what its request added to the one before.");
    return h("div", {}, said, count, session.calls.map((one) => [one.heard.map(heard), answered(one)]), printed);
  };
})((window.bellglass = window.bellglass || {}));
