"use strict";
(() => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const root = document.documentElement;

  // -- theme
  const theme = document.getElementById("theme");
  const system = matchMedia("(prefers-color-scheme: dark)");
  let kept = null;
  try { kept = localStorage.getItem("startmethods-theme"); } catch { /* a file may have no storage */ }
  const dark = () => (root.dataset.theme ? root.dataset.theme === "dark" : system.matches);
  const label = () => { theme.textContent = dark() ? "Light" : "Dark"; };
  if (kept === "dark" || kept === "light") root.dataset.theme = kept;
  theme.hidden = false;
  theme.setAttribute("aria-label", "Change between light and dark");
  label();
  system.addEventListener("change", label);
  theme.addEventListener("click", () => {
    root.dataset.theme = dark() ? "light" : "dark";
    try { localStorage.setItem("startmethods-theme", root.dataset.theme); } catch { /* as above */ }
    label();
  });

  // -- a link to a cause opens it
  const open = () => {
    const target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (target instanceof HTMLDetailsElement) {
      target.open = true;
      target.scrollIntoView({ block: "start" });
    }
  };
  addEventListener("hashchange", open);
  document.addEventListener("click", (event) => {
    const link = event.target.closest('a[href^="#cause-"]');
    if (link && link.hash === location.hash) open();
  });

  // -- filters
  const form = document.getElementById("filters");
  if (!form) return;
  form.hidden = false;
  const text = document.getElementById("text");
  const shown = document.getElementById("shown");
  const none = document.getElementById("none");
  const chips = all(".chip", form);
  const rows = all("tr.test").map((row) => ({
    row,
    number: row.dataset.number,
    verdict: row.dataset.verdict,
    codes: row.dataset.codes.split(" "),
  }));
  const causes = all(".cause").map((cause) => ({ cause, of: cause.dataset.of.split(" "), code: cause.dataset.code }));
  const words = new Map();
  for (const { cause, of } of causes) {
    const said = cause.querySelector("summary").textContent + cause.querySelector(".message").textContent;
    for (const number of of) words.set(number, (words.get(number) || "") + said);
  }
  for (const each of rows) {
    const file = each.row.parentElement.querySelector(".file").textContent;
    each.text = `${file}::${each.row.textContent} ${words.get(each.number) || ""}`.toLowerCase();
  }
  const pressed = (kind) => chips.filter((chip) => chip.dataset[kind] && chip.getAttribute("aria-pressed") === "true")
    .map((chip) => chip.dataset[kind]);

  const apply = () => {
    const verdicts = pressed("verdict");
    const codes = pressed("code");
    const wanted = text.value.toLowerCase().split(/\s+/).filter(Boolean);
    const left = new Set();
    for (const each of rows) {
      const show = (!verdicts.length || verdicts.includes(each.verdict))
        && (!codes.length || codes.some((code) => each.codes.includes(code)))
        && wanted.every((word) => each.text.includes(word));
      each.row.hidden = !show;
      if (show) left.add(each.number);
    }
    for (const { cause, of, code } of causes) {
      cause.hidden = !of.some((number) => left.has(number)) || (codes.length > 0 && !codes.includes(code));
    }
    for (const body of all(".matrix tbody")) body.hidden = !body.querySelector("tr.test:not([hidden])");
    for (const id of ["causes", "notes"]) {
      const section = document.getElementById(id);
      if (section) section.hidden = !section.querySelector(".cause:not([hidden])");
    }
    none.hidden = left.size > 0;
    shown.textContent = left.size === rows.length ? `${rows.length} tests` : `${left.size} of ${rows.length} tests`;
  };
  for (const chip of chips) {
    chip.addEventListener("click", () => {
      chip.setAttribute("aria-pressed", String(chip.getAttribute("aria-pressed") !== "true"));
      apply();
    });
  }
  const reset = () => {
    for (const chip of chips) chip.setAttribute("aria-pressed", "false");
    text.value = "";
    apply();
  };
  text.addEventListener("input", apply);
  form.addEventListener("reset", (event) => { event.preventDefault(); reset(); });
  form.addEventListener("submit", (event) => event.preventDefault());
  none.querySelector("button").addEventListener("click", reset);
  document.addEventListener("keydown", (event) => {
    if (event.key === "/" && document.activeElement !== text && !event.ctrlKey && !event.metaKey && !event.altKey) {
      event.preventDefault();
      text.focus();
    }
  });
  apply(); // a browser may have kept the text
  open();
})();
