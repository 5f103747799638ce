// What is under way: trials, model calls, and the curves of trainings as they grow. Only a live page has these curves.
"use strict";
(function (bg) {
  const { h } = bg;
  let stamp = null; // of what was asked for last
  let series = []; // stays until the next training has reported something, so that the page keeps its height
  let asking = false;

  bg.growing = () => series;

  // Told at each piece of news; asks at most once at a time.
  bg.grow = async (news) => {
    if (news === undefined || news === stamp || asking || !bg.source.can("live")) return;
    asking = true;
    stamp = news;
    try {
      const found = (await bg.source.live()).series.filter((line) => line.points.length > 1);
      if (found.length) series = found;
    } catch (error) {
      stamp = null;
      console.warn(error.message);
    } finally {
      asking = false;
    }
    bg.redrawOne("now");
  };

  bg.now = (doc) => {
    const running = [...doc.under_way.map((trial) => trial.trial_id), ...(doc.calls_under_way ? [bg.many(doc.calls_under_way, "model call")] : [])];
    const names = running.length ? running.map((name, k) => [k ? ", " : "", bg.code(bg.foreign(name))]) : "no training and no model call";
    const curves = series.length ? bg.curveCharts(series, "growing") : h("p", { class: "soft" }, "Curves come once a training has reported twice.");
    return h("div", {}, h("p", { class: "intro" }, names, running.length > 0 && ". Curves are what the trainers report: ", running.length > 0 && bg.term("claim", "claims"), "."), bg.source.can("live") && curves);
  };
})((window.bellglass = window.bellglass || {}));
