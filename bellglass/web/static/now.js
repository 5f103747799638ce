// What is under way: trials, model calls, and the curves of trainings as they grow. Only a live page has these curves.
"use strict";
(function (bg) {
  const { h } = bg;
  let told = null; // the newest stamp that news brought
  let stamp = null; // of what was asked for last
  let series = []; // stays, as the last training's, until another has reported: the page keeps its height
  let asking = false;

  bg.growing = () => series;

  // Told at each piece of news; asks one question at a time.
  bg.grow = async (news) => {
    if (news === undefined || !bg.source.can("live")) return;
    told = news;
    if (asking) return;
    asking = true;
    try {
      while (stamp !== told) {
        const asked = told;
        const found = (await bg.source.live()).series.filter((line) => line.points.length > 1);
        stamp = asked;
        if (found.length) series = found;
        bg.redrawOne("now");
      }
    } catch (error) {
      console.warn(error.message); // the next news asks again
    } finally {
      asking = false;
    }
  };

  bg.now = (doc) => {
    const running = [...doc.under_way.map((trial) => trial.trial_id), ...(doc.calls_under_way ? [bg.many(doc.calls_under_way, "model call")] : [])];
    const names = running.length ? running.map((name, k) => [k ? ", " : "", bg.code(bg.foreign(name))]) : "no training and no model call";
    if (!bg.source.can("live")) return h("p", { class: "intro" }, names, ".");
    const open = new Set(doc.under_way.map((trial) => trial.trial_id));
    const growing = series.filter((line) => open.has(line.trial));
    const past = !growing.length && series.length > 0;
    const ended = [...new Set(series.map((line) => line.trial))].join(", ");
    const about = past
      ? [open.size ? ", which reported nothing yet" : "", ". These are the curves of ", bg.code(bg.foreign(ended)), ", which ended: "]
      : growing.length > 0 && ". Curves are what the trainers report: ";
    const curves = series.length ? bg.curveCharts(past ? series : growing, "growing") : h("p", { class: "soft" }, "Curves come once a training has reported twice.");
    return [h("p", { class: "intro" }, names, about, about && bg.term("claim", "claims"), "."), h("div", { class: past ? "past" : null }, curves)];
  };
})((window.bellglass = window.bellglass || {}));
