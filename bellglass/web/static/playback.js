// Playing a recorded loop: play, pause, and a bar to go anywhere in it. Only where the document says that it is one.
"use strict";
(function (bg) {
  const { h } = bg;
  const SPEEDS = [1, 10, 60, 600];
  const EVERY = 400; // milliseconds between two looks
  let playing = false;
  let speed = null;
  let at = 0; // event
  let clock = 0; // seconds into the recording
  let timer = null;
  let busy = false;
  let show = null;
  let known = null;
  let parts = null;

  const timeOf = (seq) => (known.times ? known.times[Math.max(0, Math.min(known.times.length, seq) - 1)] : seq);
  const endTime = () => timeOf(known.last);

  async function go(seq) {
    at = Math.max(1, Math.min(known.last, Math.round(seq)));
    if (busy) return;
    busy = true;
    try {
      const wanted = at;
      show(await bg.source.document(wanted));
      if (wanted !== at) setTimeout(() => go(at), 0);
    } catch (error) {
      bg.say(error.message);
    } finally {
      busy = false;
    }
  }

  function tick() {
    clock += (EVERY / 1000) * speed;
    let next = at;
    while (next < known.last && timeOf(next + 1) <= clock) next += 1;
    if (next !== at) go(next);
    if (next >= known.last) play(false);
    label();
  }

  function play(on) {
    playing = on;
    clearInterval(timer);
    if (on) {
      if (at >= known.last) at = 1;
      clock = timeOf(at);
      timer = setInterval(tick, EVERY);
    }
    label();
  }

  function label() {
    bg.put(parts.toggle, playing ? "❚❚ Pause" : "► Play");
    if (document.activeElement !== parts.range) parts.range.value = at;
    const where = known.times ? bg.seconds(timeOf(at)) + " of " + bg.seconds(endTime()) : "event " + bg.count(at) + " of " + bg.count(known.last);
    parts.range.setAttribute("aria-valuetext", where);
    bg.put(parts.where, where);
  }

  function build() {
    const range = h("input", { type: "range", min: 1, max: known.last, step: 1, "aria-label": "place in the recording" });
    range.addEventListener("input", () => {
      go(Number(range.value));
      clock = timeOf(at);
      label();
    });
    const toggle = bg.button("", () => play(!playing), { class: "strong", id: "play" });
    const choice = h("select", { "aria-label": "speed" }, [...new Set([...SPEEDS, speed])].sort((a, b) => a - b).map((n) => h("option", { value: n, selected: n === speed }, n + "×")));
    choice.addEventListener("change", () => (speed = Number(choice.value)));
    parts = { range, toggle, where: h("span", { class: "soft" }) };
    const bar = h("div", { class: "play", role: "group", "aria-label": "playback" }, toggle, range, parts.where, choice, h("span", { class: "soft" }, "a recording; nothing runs"));
    document.body.append(bar);
    new ResizeObserver(() => document.documentElement.style.setProperty("--under", bar.offsetHeight + "px")).observe(bar);
  }

  bg.playback = (doc, draw) => {
    if (!doc.playback) return;
    const first = !known;
    known = { ...known, ...doc.playback };
    show = draw;
    if (first) {
      at = known.at || known.last;
      speed = known.speed || 60;
      build();
      if (known.playing) play(true);
    }
    label();
  };
})((window.bellglass = window.bellglass || {}));
