// How the page reaches the server that served it, and nobody else. Only the server puts this script into the page.
// The token comes behind # in the address, which is sent nowhere; it is kept for this tab, and goes along in a header.
"use strict";
(function (bg) {
  const KEY = "bellglass-token";
  const RETRY = 1000; // milliseconds between two attempts to connect again
  const given = /^#token=([A-Za-z0-9_-]{20,})$/.exec(location.hash);
  if (given) {
    try {
      sessionStorage.setItem(KEY, given[1]);
    } catch {
      // Where nothing may be kept, the token lasts until the page is left.
    }
    history.replaceState(null, "", location.pathname);
  }
  const kept = () => {
    try {
      return sessionStorage.getItem(KEY);
    } catch {
      return null;
    }
  };
  const token = (given && given[1]) || kept() || "";
  const may = (document.querySelector("meta[name=bellglass-can]") || { content: "" }).content.split(" ");

  const reach = (path, options) =>
    fetch("api/" + path, { cache: "no-store", credentials: "omit", redirect: "error", ...options, headers: { "X-Bellglass": token, ...(options && options.headers) } });

  async function ask(path, options) {
    let reply;
    try {
      reply = await reach(path, options);
    } catch {
      throw new Error("the server of this page does not answer; bellglass watch starts it again");
    }
    const body = await reply.json().catch(() => ({}));
    if (!reply.ok) throw new Error(body.message || "the server answered " + reply.status);
    return body;
  }

  // Server-sent events, read by hand, because an EventSource cannot send the token in a header.
  async function follow(callback) {
    const reply = await reach("events");
    if (!reply.ok) throw new Error("the server answered " + reply.status);
    callback({ connected: true });
    const reader = reply.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      const blocks = (rest + value).split("\n\n");
      rest = blocks.pop();
      for (const block of blocks) {
        const data = block.split("\n").filter((line) => line.startsWith("data: ")).map((line) => line.slice(6)).join("\n");
        if (data) callback({ connected: true, news: JSON.parse(data) });
      }
    }
  }

  async function listen(callback) {
    for (;;) {
      try {
        await follow(callback);
      } catch {
        // The server is gone or refuses: said below, and tried again.
      }
      callback({ connected: false });
      await new Promise((again) => setTimeout(again, RETRY));
    }
  }

  bg.source = {
    document: (at) => ask("document" + (at === undefined ? "" : "?at=" + Number(at))),
    diff: (n) => ask("diff/" + Number(n)),
    session: (n) => ask("session/" + Number(n)),
    curves: (n) => ask("curves/" + Number(n)),
    live: () => ask("live"),
    can: (action) => action === "session" || may.includes(action),
    act: (action, body) => ask("act/" + action, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) }),
    listen,
    report: null,
  };
})((window.bellglass = window.bellglass || {}));
