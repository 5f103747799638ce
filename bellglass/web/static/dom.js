// Making elements, and writing numbers. Whatever came from a bundle or a model goes in as text nodes only: nothing here
// parses markup, sets a handler from a string or follows an address.
"use strict";
(function (bg) {
  const SVG = "http://www.w3.org/2000/svg";
  // What nobody would see, or what turns the direction of the text around it, is spelled out (as visible.py does it).
  const UNSEEN =
    /(?![\n\t])[\p{Cc}\p{Cf}\p{Cs}\p{Co}\p{Cn}\p{Zl}\p{Zp}\p{Default_Ignorable_Code_Point}\u2800\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefe\u{10800}-\u{10fff}\u{1e800}-\u{1efff}]/gu;

  bg.clean = (text) => String(text).replace(UNSEEN, (c) => "⟨" + c.codePointAt(0).toString(16).padStart(4, "0") + "⟩");

  function set(node, attributes) {
    for (const [name, value] of Object.entries(attributes || {})) {
      if (value === null || value === undefined || value === false) continue;
      if (name === "on") {
        for (const [event, action] of Object.entries(value)) node.addEventListener(event, action);
      } else if (/^(on|style$|src)/i.test(name) || (/href$/i.test(name) && !/^#[\w-]*$/.test(value))) {
        throw new Error("attribute " + name + " is not set from here");
      } else {
        node.setAttribute(name, value === true ? "" : bg.clean(value));
      }
    }
    return node;
  }

  function fill(node, children) {
    for (const child of children.flat(9)) {
      if (child === null || child === undefined || child === false || child === "") continue;
      node.append(child instanceof Node ? child : document.createTextNode(bg.clean(child)));
    }
    return node;
  }

  bg.h = (tag, attributes, ...children) => fill(set(document.createElement(tag), attributes), children);
  bg.s = (tag, attributes, ...children) => fill(set(document.createElementNS(SVG, tag), attributes), children);
  bg.put = (node, ...children) => fill((node.replaceChildren(), node), children);

  // Numbers

  const sign = (text) => text.replace("-", "−");
  const missing = (value) => value === null || value === undefined || !Number.isFinite(value);
  bg.num = (value, digits = 3) => {
    if (missing(value)) return "–";
    return sign(Math.abs(value) >= 1e6 ? value.toExponential(2) : value.toFixed(Math.min(digits, 100)));
  };
  bg.plus = (value, digits = 3) => (missing(value) ? "–" : (value > 0 ? "+" : "") + bg.num(value, digits));
  bg.count = (value) => (missing(value) ? "–" : sign(Math.round(value).toLocaleString("en-GB")));
  bg.many = (count, one, more) => bg.count(count) + " " + (count === 1 ? one : more || one + "s");
  bg.usd = (value) => (value === null ? "unknown" : value === 0 ? "0 USD" : bg.num(value, value < 1 ? 4 : 2) + " USD");
  bg.range = (interval, digits = 3) =>
    !interval || missing(interval.low) ? "" : "[" + bg.num(interval.low, digits) + ", " + bg.num(interval.high, digits) + "]";
  bg.interval = (interval, digits = 3, write = bg.num) =>
    interval ? (write(interval.mean, digits) + " " + bg.range(interval, digits)).trim() : "–";
  bg.seconds = (value) => {
    if (missing(value)) return "–";
    if (value < 100) return bg.num(value, value < 10 ? 1 : 0) + " s";
    if (value < 6000) return bg.num(value / 60, 1) + " min";
    return bg.num(value / 3600, 1) + " h";
  };
  bg.when = (time) => (missing(time) ? "–" : new Date(time * 1000).toISOString().slice(0, 16).replace("T", " ") + " UTC");
  bg.known = (value) => !missing(value);

  // Small parts that several sections use

  bg.button = (label, action, more) => bg.h("button", { type: "button", ...more, on: { click: action } }, label);
  bg.code = (text) => bg.h("code", {}, text);
  bg.foreign = (text, tag = "span") => bg.h(tag, { class: "foreign", dir: "auto" }, text);
  bg.table = (head, rows, attributes) =>
    bg.h(
      "div",
      { class: "scroll", tabindex: "0", role: "region", "aria-label": (attributes && attributes.label) || "table" },
      bg.h(
        "table",
        { class: attributes && attributes.class },
        bg.h("thead", {}, bg.h("tr", {}, head.map((cell) => bg.h("th", { scope: "col" }, cell)))),
        bg.h("tbody", {}, rows.map((row) => bg.h("tr", {}, row.map((cell) => bg.h("td", {}, cell))))),
      ),
    );
  bg.facts = (pairs) =>
    bg.h("dl", { class: "facts" }, pairs.filter(Boolean).map(([name, value]) => [bg.h("dt", {}, name), bg.h("dd", {}, value)]));
  bg.say = (text) => bg.put(document.getElementById("aloud"), text);
})((window.bellglass = window.bellglass || {}));
