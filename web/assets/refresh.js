// Keeps an open page current: reads it again and puts the new content in place of the old. Without this script the page
// is as complete, and a reload does the same.
"use strict";
(() => {
  const every = 3000;
  const live = document.getElementById("live");
  let lost = false;

  // A person who marks text must not lose it.
  const busy = () => document.hidden || !getSelection().isCollapsed;

  const swap = (fresh) => {
    const main = document.querySelector("main");
    const focus = main.contains(document.activeElement) && document.activeElement.getAttribute("href");
    main.replaceChildren(...fresh.querySelector("main").childNodes);
    live.replaceChildren(...fresh.getElementById("live").childNodes);
    live.append(", kept current");
    document.title = fresh.title;
    if (focus) main.querySelector(`a[href="${CSS.escape(focus)}"]`)?.focus({ preventScroll: true });
  };

  const refresh = async () => {
    if (!busy()) {
      try {
        const answer = await fetch(location.pathname, { cache: "no-store", signal: AbortSignal.timeout(5000) });
        if (!answer.ok) throw new Error(answer.statusText);
        swap(new DOMParser().parseFromString(await answer.text(), "text/html"));
        lost = false;
        live.className = "";
      } catch {
        if (!lost) live.append("; the daemon does not answer");
        lost = true;
        live.className = "lost";
      }
    }
    setTimeout(refresh, every);
  };

  setTimeout(refresh, every);
})();
