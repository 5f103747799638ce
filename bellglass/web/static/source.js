// Where the page finds its loop. A report carries all of it: nothing is ever fetched. The live page's server puts
// live.js behind this script, which has the same face:
//   document(at) diff(n) session(n) curves(n) live() -> promises;  listen(callback);  can(action);  act(action, body)
"use strict";
(function (bg) {
  const holder = document.getElementById("data");
  if (!holder) return;
  const data = JSON.parse(holder.textContent);
  const SMALL = "left out of this file to keep it small";
  const dropped = (what, n) => data.dropped[what].includes(n);
  bg.source = {
    document: () => Promise.resolve(data.document),
    diff: async (n) => data.diffs[n] || { note: "", files: [], missing: dropped("diffs", n) ? SMALL : "generation " + n + " has no successor" },
    session: async (n) => data.sessions[n] || { calls: [], printed: [], missing: dropped("sessions", n) ? [SMALL] : [] },
    curves: async (n) => data.curves[n],
    listen: () => {},
    can: (action) => action === "session" || (action === "curves" && Object.keys(data.curves).length > 0),
    report: data.report,
  };
})((window.bellglass = window.bellglass || {}));
