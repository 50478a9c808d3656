// Returns what a person who cannot see, or who has only a keyboard or a phone, would stumble over on the open page.
(() => {
  const complaints = [];
  const complain = (what, e) => complaints.push(`${what}: ${e.outerHTML.slice(0, 160)}`);
  const visible = (e) => e.checkVisibility({ checkOpacity: true, checkVisibilityCSS: true });
  const nameOf = (e) =>
    (e.getAttribute("aria-label") || [...(e.labels || [])].map((l) => l.textContent).join(" ") || e.textContent || e.title || "").trim();

  for (const e of document.querySelectorAll("input:not([type=hidden]), select, textarea, button, a[href], summary"))
    if (!nameOf(e)) complain("without a name", e);
  for (const e of document.querySelectorAll("img:not([alt])")) complain("picture without a text", e);
  for (const e of document.querySelectorAll("svg[role=img]"))
    if (!e.querySelector("title")?.textContent || !e.querySelector("desc")?.textContent) complain("drawing without a description", e);
  for (const e of document.querySelectorAll("[aria-labelledby], [aria-describedby]"))
    for (const name of ["aria-labelledby", "aria-describedby"])
      for (const id of (e.getAttribute(name) || "").split(/\s+/).filter(Boolean))
        if (!document.getElementById(id)) complain(`${name} names nothing`, e);
  const ids = [...document.querySelectorAll("[id]")].map((e) => e.id);
  for (const id of ids) if (ids.indexOf(id) !== ids.lastIndexOf(id)) complaints.push(`the id ${id} is there twice`);
  if (!document.documentElement.lang) complaints.push("no language");
  if (!document.querySelector("main") || document.querySelectorAll("h1").length !== 1) complaints.push("not one main and one h1");
  let level = 0;
  for (const e of document.querySelectorAll("h1, h2, h3, h4")) {
    const own = Number(e.localName[1]);
    if (own > level + 1) complain("heading skips a level", e);
    level = own;
  }
  for (const e of document.querySelectorAll("table")) {
    if (!e.caption?.textContent.trim()) complain("table without a caption", e);
    for (const th of e.querySelectorAll("th:not([scope])")) complain("header cell without scope", th);
  }

  // Whatever is wider than the window makes the page move sideways.
  const width = document.documentElement.clientWidth;
  if (document.documentElement.scrollWidth > width) complaints.push(`the page is ${document.documentElement.scrollWidth} wide in a window of ${width}`);
  for (const e of document.querySelectorAll("main *, header *, footer *")) {
    const r = e.getBoundingClientRect();
    if (visible(e) && r.width > 0 && r.right > width + 0.5 && !e.closest(".unseen, .stack thead, .skip")) complain(`reaches to ${r.right} of ${width}`, e);
  }

  // Contrast as WCAG 2 counts it: 4.5 for text, 3 for large text and for what must be seen of controls.
  const rgba = (css) => {
    const c = document.createElement("canvas").getContext("2d");
    c.fillStyle = css;
    c.fillRect(0, 0, 1, 1);
    return [...c.getImageData(0, 0, 1, 1).data];
  };
  const known = new Map();
  const colour = (css) => known.get(css) || known.set(css, rgba(css)).get(css);
  const behind = (e) => {
    for (; e; e = e.parentElement) {
      const c = colour(getComputedStyle(e).backgroundColor);
      if (c[3] === 255) return c;
    }
    return [255, 255, 255, 255];
  };
  const light = (c) => {
    const [r, g, b] = c.map((v) => ((v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const contrast = (a, b) => {
    const [x, y] = [light(a), light(b)].sort((p, q) => q - p);
    return (x + 0.05) / (y + 0.05);
  };
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const seen = new Set();
  while (texts.nextNode()) {
    const e = texts.currentNode.parentElement;
    if (!texts.currentNode.data.trim() || seen.has(e) || !visible(e) || e.closest("script, .unseen, option, title, desc")) continue;
    seen.add(e);
    const style = getComputedStyle(e);
    const ink = colour(e instanceof SVGElement ? style.fill : style.color);
    const size = parseFloat(style.fontSize);
    const least = size >= 24 || (size >= 18.6 && style.fontWeight >= 700) ? 3 : 4.5;
    const got = contrast(ink, behind(e));
    if (got < least) complain(`contrast ${got.toFixed(2)}`, e);
  }
  for (const e of document.querySelectorAll(".mark, .bar, path.line, line.limit")) {
    const style = getComputedStyle(e);
    const ink = [style.stroke, style.fill, style.backgroundColor, style.borderTopColor].map((c) => (c && c !== "none" ? colour(c) : null));
    const best = Math.max(...ink.filter((c) => c && c[3] > 0).map((c) => contrast(c, behind(e.parentElement))));
    if (visible(e) && best < 3) complain(`contrast of a mark ${best.toFixed(2)}`, e);
  }
  for (const e of document.querySelectorAll("input:not([type=hidden]), select, button")) {
    const edge = contrast(colour(getComputedStyle(e).borderTopColor), behind(e.parentElement));
    if (visible(e) && edge < 3 && contrast(behind(e), behind(e.parentElement)) < 3) complain(`contrast of a control's edge ${edge.toFixed(2)}`, e);
  }
  return complaints;
})()
