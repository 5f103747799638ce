// Where the page finds its loop. Both kinds have the same face:
//   document() diff(n) session(n) curves(n) -> promises;  listen(callback(state));  can(action);  act(action, body)
// report: all of it lies in this file, nothing is ever fetched.  live: from the server that served the page, nobody else.
"use strict";
(function (bg) {
  function inlined(data) {
    const has = (what, n) => Promise.resolve(data[what] && data[what][n]);
    const dropped = (what, n) => (data.dropped && data.dropped[what] && data.dropped[what].includes(n) ? "left out of this file to keep it small" : "");
    return {
      document: () => Promise.resolve(data.document),
      diff: (n) => has("diffs", n).then((diff) => diff || { files: [], missing: dropped("diffs", n) || "generation " + n + " has no successor" }),
      session: (n) => has("sessions", n).then((s) => s || { calls: [], printed: [], missing: dropped("sessions", n) ? [dropped("sessions", n)] : [] }),
      curves: (n) => has("curves", n),
      listen: () => {},
      can: (action) => (action === "session" ? Boolean(data.sessions) : action === "curves" ? Boolean(data.curves && Object.keys(data.curves).length) : false),
      report: data.report || null,
    };
  }

  function live() {
    const token = () => (document.querySelector("meta[name=bellglass-token]") || { content: "" }).content;
    const ask = async (path, options) => {
      const reply = await fetch("api/" + path, { cache: "no-store", credentials: "same-origin", ...options, headers: { "X-Bellglass": token(), ...(options && options.headers) } });
      const body = await reply.json().catch(() => ({}));
      if (!reply.ok) throw new Error(body.message || "the server answered " + reply.status);
      return body;
    };
    const may = (document.querySelector("meta[name=bellglass-can]") || { content: "" }).content.split(" ");
    return {
      document: (at) => ask("document" + (at === undefined ? "" : "?at=" + Number(at))),
      diff: (n) => ask("diff/" + Number(n)),
      session: (n) => ask("session/" + Number(n)),
      curves: (n) => ask("curves/" + Number(n)),
      seek: (at) => ask("seek?at=" + Number(at)),
      can: (action) => action === "session" || may.includes(action),
      act: (action, body) => ask("act/" + action, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) }),
      // The browser connects again by itself; `callback` hears of both.
      listen: (callback) => {
        const events = new EventSource("api/events");
        events.onopen = () => callback({ connected: true });
        events.onmessage = (event) => callback({ connected: true, news: JSON.parse(event.data) });
        events.onerror = () => callback({ connected: false });
      },
      report: null,
    };
  }

  const data = document.getElementById("data");
  bg.source = data ? inlined(JSON.parse(data.textContent)) : live();
})((window.bellglass = window.bellglass || {}));
