// The words of bellglass, each with its one meaning, shown where a pointer or the focus rests on them.
"use strict";
(function (bg) {
  const MEANINGS = {
    loop: "One bounded run of generations; one folder on disk.",
    bundle: "What evolves: a trainer and a scaffold, one commit in the loop's lineage.",
    starter: "The bundle of generation 0, written by people.",
    champion: "The bundle that the next generation starts from.",
    generation: "One step: an improver turns the parent bundle into a successor, which is trained, judged and decided on.",
    improver: "A model, or a person, that works through the parent's scaffold inside the glass.",
    trainer: "The half of a bundle that trains a small model.",
    scaffold: "The other half: the improver's prompts, tools and control code. It is inherited, so it is what recurs.",
    trial: "One training of one bundle with one random seed under one budget, then judged.",
    claim: "What the inside reported about itself. It never decides.",
    verdict: "What the host measured. Only verdicts decide.",
    judge: "Host code that holds the targets and makes verdicts.",
    gate: "The statistical decision over paired trainings: adopt, reject, or more evidence.",
    tripwire: "A named check that halts the loop until a person has looked.",
    review: "A person's decision on a successor, bound to exactly the evidence they were shown.",
    "red flag": "What a person should look at first in a successor: it reads suspiciously. It decides nothing.",
    bounds: "The hard limits of a loop, kept where nothing inside can edit them.",
    glass: "A sandbox. Sealed if it isolates (Docker, gVisor); unsealed if it is a plain process.",
    sealed: "Guests ran in containers without network, mounts or keys.",
    received: "Not made by this user here, or not as it was left. It can be looked at, verified, and judged and trained again in a sealed glass; to go on with it, a person takes it over.",
    unsealed: "Guests ran as plain processes: nothing was isolated. Only built-in improvers may run so.",
    lineage: "The tree of bundles: a git repository that the host writes.",
    select: "The split that scores an improver's own trials.",
    confirm: "The split that the gate judges on. The improver hears adopt or reject, never a score.",
    final: "The split that is opened once, at the end, for champion against starter.",
    floor: "The realised code length of the text under its own source. No model can be better. Each set of documents has its own.",
    noise: "How far the score of one bundle moves with the random seed alone.",
    interval: "95% t interval of the mean over seeds, unless something else is said. Where it ends in an arrowhead, it goes on beyond the picture.",
    inherited: "The scaffold came along with a better trainer. It was not selected for itself.",
    "select–confirm gap":
      "The child's gain over its parent on select minus that on confirm. Positive where it was fitted to select, by search or by luck.",
    "claim–verdict gap": "Claim minus verdict. Below zero: the inside said that it is better than the host found.",
    "smallest gain": "The gain that the first gate would find in four of five cases with all its pairs, if the noise is as measured.",
    testimony:
      "The improver's own words. Shown apart from evidence; no decision reads them. “At 0.25” in those of a built-in improver: in trials of a quarter of the budget.",
    head: "The hash of the ledger's last event. Noted elsewhere, it shows whether the end was cut or rewritten.",
    baseline: "A search that draws from a menu of edits people wrote and understands none of them.",
    proof:
      "A second guest is asked some of the same questions, with the text behind each replaced. A model that looked ahead answers them worse: then its verdict disagrees with the proof.",
    fitted: "The select–confirm gap of one generation: its gain on select minus that on confirm. Positive where it was fitted to select, by search or by luck.",
    "boot check": "A changed scaffold proves that it can still chat, edit, run a trial and submit.",
    panel: "A new champion's training on new seeds: the scores that chose it were lucky by being chosen.",
    "secret commitment": "The hash of the secret that all data and seeds derive from, in the ledger from the start.",
  };
  bg.meanings = MEANINGS;

  // A word with its meaning. `as` is what is written when the sentence needs another form of it.
  bg.term = (word, as) => {
    const node = bg.h("span", { class: "term", tabindex: "0", "data-word": word }, as || word);
    node.addEventListener("pointerenter", () => bg.tip(node, [MEANINGS[word]], word));
    node.addEventListener("focus", () => bg.tip(node, [MEANINGS[word]], word));
    node.addEventListener("pointerleave", bg.untip);
    node.addEventListener("blur", bg.untip);
    return node;
  };

  // The one tool tip of the page: beside a node, or at a place within it.
  let tipped = null;
  bg.tip = (node, lines, title, at) => {
    tipped = node;
    const tip = document.getElementById("tip");
    bg.put(tip, title && bg.h("strong", {}, title), lines.map((line) => bg.h("span", {}, line)));
    tip.hidden = false;
    node.setAttribute("aria-describedby", "tip");
    const box = node.getBoundingClientRect();
    const x = at ? box.left + at.x : box.left + Math.min(box.width / 2, 60);
    const y = at ? box.top + at.y : box.bottom;
    const width = tip.offsetWidth;
    const left = Math.max(8, Math.min(x - width / 2, document.documentElement.clientWidth - width - 8));
    const below = y + 14 + tip.offsetHeight < window.innerHeight;
    tip.style.left = left + window.scrollX + "px";
    tip.style.top = (below ? y + 12 : y - 12 - tip.offsetHeight) + window.scrollY + "px";
  };
  bg.untip = (within) => {
    if (within instanceof Element && tipped && !within.contains(tipped)) return; // it belongs to another part
    document.getElementById("tip").hidden = true;
  };
  document.addEventListener("keydown", (event) => event.key === "Escape" && bg.untip());
})((window.bellglass = window.bellglass || {}));
