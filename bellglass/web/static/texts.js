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

  function patch(file, most = MOST_ROWS) {
    const lines = file.patch.replace(/\n$/, "").split("\n");
    const python = file.path.endsWith(".py");
    const body = h("pre", { dir: "ltr", tabindex: "0" }, lines.slice(0, most).map((line) => rowOf(line, python)));
    if (lines.length <= most) return body;
    const rest = bg.button("Show " + bg.count(lines.length - most) + " more lines", () => {
      body.append(...lines.slice(most).map((line) => rowOf(line, python)));
      rest.remove();
    });
    return [body, rest];
  }

  // Of a review: a trainer's files are all in sight, whatever their length; `unseen` says what is folded of the others.
  bg.diffToDecide = (diff, unseen) => {
    const view = bg.diffView(diff, true);
    const count = () => {
      const closed = [...view.querySelectorAll("details.file:not([open])")];
      const lines = closed.reduce((sum, one) => sum + Number(one.dataset.changed), 0);
      bg.put(unseen, lines > 0 && ["Not shown above: ", h("b", {}, bg.many(lines, "changed line")), " in " + bg.many(closed.length, "folded file") + ", none of the trainer's."]);
    };
    view.addEventListener("toggle", count, true);
    count();
    return view;
  };

  bg.diffView = (diff, deciding) => {
    if (diff.missing) return h("p", { class: "soft" }, bg.foreign(diff.missing));
    if (!diff.files.length) return h("p", { class: "soft" }, "No file differs.");
    const part = (file) => {
      const words = [bg.code(bg.foreign(file.path)), h("span", { class: "kind" }, file.kind || "no kind", ", +", file.added, " −", file.removed)];
      const changed = file.added + file.removed;
      if (deciding && file.path.startsWith("trainer/")) return h("div", { class: "file whole" }, h("div", { class: "head" }, words), patch(file, Infinity));
      const open = changed < (deciding ? 60 : 400);
      return h("details", { class: deciding ? "file whole" : "file", open, "data-changed": String(changed) }, h("summary", {}, words), patch(file));
    };
    const note = diff.note && h("p", { class: "note alarm" }, bg.foreign(diff.note));
    return h("div", {}, note, diff.files.map(part));
  };

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
