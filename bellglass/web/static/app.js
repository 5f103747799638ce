// Starts the page: asks the source for the document, draws the parts whose share of it changed, and keeps listening.
"use strict";
(function (bg) {
  const { h, s } = bg;
  const main = document.getElementById("main");
  const drawn = new Map(); // part -> the text of what it was drawn from
  const holders = new Map();
  let doc = null;
  let connected = true;

  bg.redraw = () =>
    keepingFocus(() => {
      for (const part of bg.parts) draw(part);
      bar();
      foot();
    });
  bg.redrawOne = (key) => keepingFocus(() => draw(bg.parts.find((part) => part.key === key)));

  function keepingFocus(drawing) {
    if (!doc) return;
    const focused = document.activeElement && document.activeElement.id;
    const caret = document.activeElement && document.activeElement.selectionStart;
    drawing();
    const back = focused && document.getElementById(focused);
    if (back && back !== document.activeElement) {
      back.focus({ preventScroll: true });
      if (caret !== undefined && back.setSelectionRange && back.type !== "radio") back.setSelectionRange(caret, caret);
    }
  }

  function draw(part) {
    if (!holders.has(part.key)) {
      const holder = h("div", { id: "part-" + part.key });
      holders.set(part.key, holder);
      main.append(holder);
    }
    const from = JSON.stringify(part.of(doc));
    if (drawn.get(part.key) === from) return;
    drawn.set(part.key, from);
    bg.untip(holders.get(part.key));
    try {
      bg.put(holders.get(part.key), part.only && !part.only() ? null : part.draw(doc));
    } catch (error) {
      console.error(error);
      bg.put(holders.get(part.key), h("p", { class: "note alarm" }, "This part of the page could not be drawn: ", bg.foreign(error.message)));
    }
  }

  // The bar, with the theme that a person picked before

  const THEMES = ["auto", "light", "dark"];
  const stored = () => {
    try {
      return localStorage.getItem("bellglass-theme") || "auto";
    } catch {
      return "auto";
    }
  };
  let theme = stored();
  function setTheme(next) {
    theme = next;
    document.documentElement.toggleAttribute("data-theme", theme !== "auto");
    if (theme !== "auto") document.documentElement.setAttribute("data-theme", theme);
    try {
      localStorage.setItem("bellglass-theme", theme);
    } catch {
      // A page from a file may not be allowed to remember; then it forgets.
    }
    if (doc) bar();
  }

  const logo = () =>
    s("svg", { viewBox: "0 0 20 20", "aria-hidden": "true" },
      s("path", { class: "line", d: "M3 16V9a7 7 0 0 1 14 0v7" }), s("path", { class: "line", d: "M1 17h18" }), s("path", { class: "thin", d: "M10 15v-4m0 1.5c-2 0-3-1-3-2.5m3 1.5c2 0 3-1 3-2.5" }));

  function bar() {
    const parts = bg.parts.filter((part) => part.nav && (!part.only || part.only()));
    const links = parts.map((part) => h("a", { href: "#" + part.key }, part.nav));
    const state = connected ? null : h("span", { class: "small", role: "status" }, "connection lost; trying again…");
    const next = THEMES[(THEMES.indexOf(theme) + 1) % 3];
    const toggle = bg.button({ auto: "◐", light: "○", dark: "●" }[theme] + " " + theme, () => setTheme(next), { class: "plain", "aria-label": "colours: " + theme + "; press for " + next, id: "theme" });
    bg.put(document.getElementById("bar"), h("div", {}, h("a", { class: "brand", href: "#main" }, logo(), h("span", {}, "bellglass")), h("nav", { "aria-label": "parts of this page" }, links), state, toggle));
  }

  function foot() {
    const made = bg.source.report ? "A file made by bellglass report; it fetches nothing." : "A projection of the ledger; it can be thrown away and made again.";
    bg.put(document.getElementById("foot"), made, " Event " + bg.count(doc.loop.seq) + ", head " + doc.loop.head.slice(0, 12) + ", " + bg.when(doc.loop.updated) + ".");
  }

  function show(next) {
    doc = next;
    document.title = (bg.stateOf(doc)[0] === "alarm" ? "! " : "") + String(doc.loop.task || "loop").split("/").at(-1) + " " + doc.loop.id + " · bellglass";
    if (!holders.size) bg.put(main);
    bg.redraw();
    if (bg.playback) bg.playback(doc, show);
    window.bellglassReady = true;
  }

  // News come as often as they like; the document is asked for at most twice a second.
  let asked = 0;
  let waiting = null;
  function news(state) {
    if (state.connected !== connected) {
      connected = state.connected;
      if (doc) bar();
      if (!connected) return;
    }
    if (state.news && state.news.loop) return show(state.news);
    if (state.news) bg.grow(state.news.live);
    if (!state.news || waiting || (doc && state.news.head === doc.loop.head)) return;
    waiting = setTimeout(async () => {
      waiting = null;
      asked = Date.now();
      try {
        bg.forget();
        show(await bg.source.document());
      } catch (error) {
        console.warn(error.message);
      }
    }, Math.max(0, 500 - (Date.now() - asked)));
  }

  setTheme(theme);
  bg.source.document().then(
    (first) => {
      show(first);
      if (location.hash.length > 1) document.getElementById(location.hash.slice(1))?.scrollIntoView();
      if (!doc.ended || bg.source.can("review") || doc.playback) bg.source.listen(news);
    },
    (error) => bg.put(main, h("p", { class: "wait" }, "The loop could not be opened: ", bg.foreign(error.message))),
  );
})((window.bellglass = window.bellglass || {}));
