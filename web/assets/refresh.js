// Keeps an open page current: reads it again and puts the new content in place of the old. Without this script the page
// is as complete, and a reload does the same.
"use strict";
(() => {
  const every = 3000;
  const live = document.getElementById("live");
  let lost = "";

  // A person who marks text, fills in a form or reads on must not lose it.
  const busy = () =>
    document.hidden || !getSelection().isCollapsed || document.activeElement.matches("input, select");

  const swap = (fresh) => {
    const main = document.querySelector("main");
    const focus = main.contains(document.activeElement) && document.activeElement.getAttribute("href");
    const open = [...main.querySelectorAll("details[open]")].map((d) => d.id);
    main.replaceChildren(...fresh.querySelector("main").childNodes);
    live.replaceChildren(...fresh.getElementById("live").childNodes);
    live.append(", kept current");
    document.title = fresh.title;
    for (const id of open) document.getElementById(id)?.setAttribute("open", "");
    if (focus) main.querySelector(`a[href="${CSS.escape(focus)}"]`)?.focus({ preventScroll: true });
  };

  const say = (trouble) => {
    if (trouble && !lost) live.append("; " + trouble);
    lost = trouble;
    live.className = trouble ? "lost" : "";
  };

  const refresh = async () => {
    if (!busy()) {
      try {
        const answer = await fetch(location.pathname + location.search, {
          cache: "no-store",
          headers: { "Dealseal-Refresh": "1" },
          signal: AbortSignal.timeout(5000),
        });
        const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
        if (document.querySelector(".out") && !fresh.querySelector(".out")) {
          say("the session has ended");
        } else if (!answer.ok) {
          say("the daemon cannot read its state");
        } else {
          swap(fresh);
          say("");
        }
      } catch {
        say("the daemon does not answer");
      }
    }
    setTimeout(refresh, every);
  };

  setTimeout(refresh, every);
})();
